package registry

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// BrokerRow is a MessagingBroker.
type BrokerRow struct {
	ID int64 `json:"id" db:"id"`
	BrokerSpec
	InsertedAt db.Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp `json:"updated_at" db:"updated_at"`
}

// BrokerSpec is what an operator states about a broker.
type BrokerSpec struct {
	Name       string `json:"name" db:"name"`
	FailoverID *int64 `json:"failover_broker_id" db:"failover_broker_id"`
}

const brokerColumns = `b.id, b.name, b.failover_broker_id, b.inserted_at, b.updated_at`

// EachBroker lists brokers by id; a part with an exchange has those that it may use.
func (s *Registry) EachBroker(ctx context.Context, p db.Part, fn func(BrokerRow) error) error {
	reach, _, err := s.brokersOf(ctx, p.Exchange)
	if err != nil {
		return err
	}
	return db.Each(ctx, s.db.Pool, p.Limit, func(r BrokerRow) int64 { return r.ID }, fn,
		`SELECT `+brokerColumns+` FROM messaging_brokers b WHERE $1 = 0 OR b.id = ANY($2)`, p.Exchange, pq.Array(reach))
}

// Broker reads a broker, if the exchange may use it (0: any).
func (s *Registry) Broker(ctx context.Context, id int64, exchange component.ExchangeID) (BrokerRow, error) {
	reach, _, err := s.brokersOf(ctx, exchange)
	if err != nil {
		return BrokerRow{}, err
	}
	row, err := db.One[BrokerRow](ctx, s.db.Pool, `SELECT `+brokerColumns+` FROM messaging_brokers b
		WHERE ($1 = 0 OR b.id = ANY($3)) AND b.id = $2`, exchange, id, pq.Array(reach))
	if err != nil {
		return row, fmt.Errorf("read broker %d: %w", id, err)
	}
	return row, nil
}

// BrokerNamed reports whether a broker has the name.
func (s *Registry) BrokerNamed(ctx context.Context, name string) (bool, error) {
	found, err := db.One[bool](ctx, s.db.Pool, `SELECT EXISTS (SELECT 1 FROM messaging_brokers WHERE name = $1)`, name)
	if err != nil {
		return false, fmt.Errorf("look for broker %q: %w", name, err)
	}
	return found, nil
}

// CreateBroker stores a broker. Conflict: the name exists. Invalid: the failover broker does not.
func (s *Registry) CreateBroker(ctx context.Context, spec BrokerSpec) (int64, error) {
	var id int64
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if err := failoverKnown(ctx, tx, 0, spec); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &id, `INSERT INTO messaging_brokers (name, failover_broker_id) VALUES ($1, $2)
			RETURNING id`, spec.Name, spec.FailoverID)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(id), Code: "broker_created", Inputs: spec})
	})
	if err != nil {
		return 0, fmt.Errorf("create broker %q: %w", spec.Name, err)
	}
	return id, nil
}

func brokerSubject(id int64) string { return "broker/" + strconv.FormatInt(id, 10) }

// failoverKnown refuses a failover broker that does not exist or is the broker itself.
func failoverKnown(ctx context.Context, tx *sqlx.Tx, id int64, spec BrokerSpec) error {
	if spec.FailoverID == nil {
		return nil
	}
	known, err := db.One[bool](ctx, tx, `SELECT EXISTS (SELECT 1 FROM messaging_brokers WHERE id = $1 AND id <> $2)`,
		*spec.FailoverID, id)
	if err != nil || !known {
		return orWrong(err, "failover_broker_id", "Invalid MessagingBroker")
	}
	return nil
}

// UpdateBroker changes a broker by edit, which gets what is stored. Conflict: through its failover, exchanges would
// share queues.
func (s *Registry) UpdateBroker(ctx context.Context, id int64, edit func(*BrokerSpec) error) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		old, err := lockBroker(ctx, tx, id)
		if err != nil {
			return err
		}
		spec := old.BrokerSpec
		if err := edit(&spec); err != nil {
			return err
		}
		if spec.Name == old.Name && samePointed(spec.FailoverID, old.FailoverID) {
			return nil
		}
		if err := failoverKnown(ctx, tx, id, spec); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE messaging_brokers SET name = $2, failover_broker_id = $3, updated_at = now()
			WHERE id = $1`,
			id, spec.Name, spec.FailoverID)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(id), Code: "broker_changed",
			Inputs: db.Change{Before: old.BrokerSpec, After: spec}})
	})
	if err != nil {
		return fmt.Errorf("update broker %d: %w", id, err)
	}
	return nil
}

func lockBroker(ctx context.Context, tx *sqlx.Tx, id int64) (BrokerRow, error) {
	return db.One[BrokerRow](ctx, tx, `SELECT `+brokerColumns+` FROM messaging_brokers b WHERE b.id = $1 FOR UPDATE`, id)
}

// DeleteBroker removes a broker with its connections. InUse: exchanges or other brokers refer to it, unless cascade.
// Conflict: exchanges that are freed of it would share queues on manager-api's own broker.
func (s *Registry) DeleteBroker(ctx context.Context, id int64, cascade bool) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		old, err := lockBroker(ctx, tx, id)
		if err != nil {
			return err
		}
		if !cascade {
			err := db.FindUses(ctx, tx, fmt.Sprintf("MessagingBroker %d", id), `
				SELECT 'messaging_exchange' AS kind, e.id::text AS id, e.name FROM messaging_exchange_brokers r
				JOIN messaging_exchanges e ON e.id = r.messaging_exchange_id WHERE r.messaging_broker_id = $1
				UNION ALL SELECT 'messaging_broker', id::text, name FROM messaging_brokers WHERE failover_broker_id = $1
				ORDER BY kind, id`, id)
			if err != nil {
				return err
			}
		}
		for _, statement := range []string{
			`UPDATE messaging_brokers SET failover_broker_id = NULL, updated_at = now() WHERE failover_broker_id = $1`,
			`DELETE FROM messaging_exchange_brokers WHERE messaging_broker_id = $1`,
			`DELETE FROM messaging_brokers WHERE id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return err
			}
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(id), Code: "broker_deleted", Inputs: old.BrokerSpec})
	})
	if err != nil {
		return fmt.Errorf("delete broker %d: %w", id, err)
	}
	return nil
}

// ConnectionRow is one way to reach a broker. The password shows itself to nobody but the caller of Reveal.
type ConnectionRow struct {
	ID       int64 `json:"id" db:"id"`
	BrokerID int64 `json:"messaging_broker_id" db:"messaging_broker_id"`
	ConnectionSpec
	Password   boot.Secret `json:"-" db:"-"`
	Sealed     []byte      `json:"-" db:"password_sealed"`
	KeyID      string      `json:"-" db:"password_key_id"`
	InsertedAt db.Stamp    `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp    `json:"updated_at" db:"updated_at"`
}

// ConnectionSpec is what an operator states about a connection, but for its password.
type ConnectionSpec struct {
	Username    string `json:"username" db:"username"`
	Host        string `json:"host" db:"host"`
	Port        *int64 `json:"port" db:"port"`
	VirtualHost string `json:"virtual_host" db:"virtual_host"`
}

const connectionColumns = `id, messaging_broker_id, username, password_sealed, password_key_id, host, port,
	virtual_host, inserted_at, updated_at`

// sealPlace is where the password of a connection is sealed to.
func sealPlace(id int64) seal.Place {
	return seal.Place{Table: "messaging_broker_connections", Row: id, Column: "password_sealed"}
}

// open opens the password. Its error names the connection, never the secret.
func (c ConnectionRow) open(keys *seal.Ring) (boot.Secret, error) {
	password, err := keys.Open(sealPlace(c.ID), c.KeyID, c.Sealed)
	if err != nil {
		return "", fmt.Errorf("open password of connection %d: %w", c.ID, err)
	}
	return boot.Secret(password), nil
}

// Connections reads the connections of a broker, without passwords.
func (s *Registry) Connections(ctx context.Context, broker int64) ([]ConnectionRow, error) {
	return findConnections(ctx, s.db.Pool, broker)
}

func findConnections(ctx context.Context, q sqlx.QueryerContext, broker int64) ([]ConnectionRow, error) {
	var rows []ConnectionRow
	err := sqlx.SelectContext(ctx, q, &rows, `SELECT `+connectionColumns+` FROM messaging_broker_connections
		WHERE messaging_broker_id = $1 ORDER BY id`, broker)
	if err != nil {
		return nil, fmt.Errorf("read connections of broker %d: %w", broker, err)
	}
	return rows, nil
}

// OpenConnections reads the connections of a broker with their passwords; the journal tells who read them.
func (s *Registry) OpenConnections(ctx context.Context, broker int64, keys *seal.Ring) ([]ConnectionRow, error) {
	var rows []ConnectionRow
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		var err error
		if rows, err = findConnections(ctx, tx, broker); err != nil || len(rows) == 0 {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(broker), Code: "passwords_read",
			Inputs: map[string]int{"connections": len(rows)}})
	})
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].Password, err = rows[i].open(keys); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// CreateConnection stores a connection with its password sealed.
func (s *Registry) CreateConnection(ctx context.Context, broker int64, spec ConnectionSpec, password boot.Secret,
	keys *seal.Ring) (int64, error) {
	var id int64
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := lockBroker(ctx, tx, broker); err != nil {
			return err
		}
		// The id comes first: the password is sealed to its row.
		err := tx.GetContext(ctx, &id, `SELECT nextval(pg_get_serial_sequence('messaging_broker_connections', 'id'))`)
		if err != nil {
			return err
		}
		sealed, keyID, err := keys.Seal(sealPlace(id), password.Reveal())
		if err != nil {
			return fmt.Errorf("seal password: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO messaging_broker_connections
			(id, messaging_broker_id, username, password_sealed, password_key_id, host, port, virtual_host)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			id, broker, spec.Username, sealed, keyID, spec.Host, spec.Port, spec.VirtualHost)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(broker), Code: "connection_created",
			Inputs: connectionInput{id, spec}})
	})
	if err != nil {
		return 0, fmt.Errorf("create connection of broker %d: %w", broker, err)
	}
	return id, nil
}

// connectionInput is what the journal tells of a connection.
type connectionInput struct {
	ID int64 `json:"connection_id"`
	ConnectionSpec
}

// UpdateConnection changes a connection by edit, which gets what is stored and returns a new password, or nil to keep
// it.
func (s *Registry) UpdateConnection(ctx context.Context, broker, id int64, keys *seal.Ring,
	edit func(*ConnectionSpec) (*boot.Secret, error)) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockConnection(ctx, tx, broker, id)
		if err != nil {
			return err
		}
		spec, sealed, keyID := old.ConnectionSpec, old.Sealed, old.KeyID
		password, err := edit(&spec)
		if err != nil {
			return err
		}
		if password != nil {
			if sealed, keyID, err = keys.Seal(sealPlace(id), password.Reveal()); err != nil {
				return fmt.Errorf("seal password: %w", err)
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE messaging_broker_connections SET username = $2, password_sealed = $3,
			password_key_id = $4,
			host = $5, port = $6, virtual_host = $7, updated_at = now() WHERE id = $1`,
			id, spec.Username, sealed, keyID, spec.Host, spec.Port, spec.VirtualHost)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(broker), Code: "connection_changed", Inputs: struct {
			connectionInput
			PasswordChanged bool `json:"password_changed"`
		}{connectionInput{id, spec}, password != nil}})
	})
	if err != nil {
		return fmt.Errorf("update connection %d: %w", id, err)
	}
	return nil
}

func lockConnection(ctx context.Context, tx *sqlx.Tx, broker, id int64) (ConnectionRow, error) {
	return db.One[ConnectionRow](ctx, tx, `SELECT `+connectionColumns+` FROM messaging_broker_connections
		WHERE messaging_broker_id = $1 AND id = $2 FOR UPDATE`, broker, id)
}

// DeleteConnection removes one connection of a broker.
func (s *Registry) DeleteConnection(ctx context.Context, broker, id int64) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockConnection(ctx, tx, broker, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM messaging_broker_connections WHERE id = $1`, id); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(broker), Code: "connection_deleted",
			Inputs: connectionInput{id, old.ConnectionSpec}})
	})
	if err != nil {
		return fmt.Errorf("delete connection %d: %w", id, err)
	}
	return nil
}

// DeleteConnections removes all connections of a broker; without any it does nothing.
func (s *Registry) DeleteConnections(ctx context.Context, broker int64) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := lockBroker(ctx, tx, broker); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM messaging_broker_connections WHERE messaging_broker_id = $1`, broker)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return nil
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(broker), Code: "connections_deleted"})
	})
	if err != nil {
		return fmt.Errorf("delete connections of broker %d: %w", broker, err)
	}
	return nil
}

// Reseal seals anew, under the active key, every password that another key sealed, and returns how many. After it has
// returned, the old key may leave the key file.
func (s *Registry) Reseal(ctx context.Context, keys *seal.Ring) (int, error) {
	var rows []ConnectionRow
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		rows = nil
		err := tx.SelectContext(ctx, &rows, `SELECT `+connectionColumns+` FROM messaging_broker_connections
			WHERE password_key_id <> $1 ORDER BY id FOR UPDATE`, keys.Active())
		if err != nil {
			return fmt.Errorf("read passwords of old keys: %w", err)
		}
		for _, row := range rows {
			if err := resealOne(ctx, tx, row, keys); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reseal broker passwords: %w", err)
	}
	return len(rows), nil
}

func resealOne(ctx context.Context, tx *sqlx.Tx, row ConnectionRow, keys *seal.Ring) error {
	password, err := row.open(keys)
	if err != nil {
		return err
	}
	sealed, keyID, err := keys.Seal(sealPlace(row.ID), password.Reveal())
	if err != nil {
		return fmt.Errorf("seal password of connection %d: %w", row.ID, err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE messaging_broker_connections SET password_sealed = $2, password_key_id = $3
		WHERE id = $1`, row.ID, sealed, keyID)
	if err != nil {
		return fmt.Errorf("store password of connection %d: %w", row.ID, err)
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: brokerSubject(row.BrokerID), Code: "password_resealed",
		Inputs: map[string]any{"connection_id": row.ID, "from": row.KeyID, "to": keyID}})
}
