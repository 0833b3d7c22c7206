package registry

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// ExchangeView is a MessagingExchange with its place in the hierarchy.
type ExchangeView struct {
	ID component.ExchangeID `json:"id" db:"id"`
	ExchangeSpec
	RoutingKey string  `json:"routing_key" db:"routing_key"`
	Root       string  `json:"root_exchange_name" db:"root_exchange_name"`
	Ancestors  db.JSON `json:"ancestors" db:"ancestors"` // from the parent to the root
	// FailoverBrokerID is the failover of the broker that serves the exchange. Exchange alone reads it.
	FailoverBrokerID *int64 `json:"failover_broker_id,omitempty" db:"failover_broker_id"`

	InsertedAt db.Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp `json:"updated_at" db:"updated_at"`
}

// ExchangeSpec is what an operator states about an exchange.
type ExchangeSpec struct {
	Name string `json:"name" db:"name"`
	// FailoverID is kept and shown where the predecessor stored it, and has no effect: brokers have a failover,
	// exchanges have none.
	FailoverID *component.ExchangeID `json:"failover_exchange_id" db:"failover_exchange_id"`
	ParentID   *component.ExchangeID `json:"parent_exchange_id" db:"parent_exchange_id"`
	Fragment   *string               `json:"routing_key_fragment" db:"routing_key_fragment"`
}

const exchangeColumns = `e.id, e.name, e.failover_exchange_id, e.parent_exchange_id, e.routing_key_fragment,
	e.routing_key, e.root_exchange_name,
	e.inserted_at, e.updated_at, coalesce((
		WITH RECURSIVE up AS (
			SELECT p.name, p.routing_key, p.parent_exchange_id, 1 AS depth FROM messaging_exchanges p
			WHERE p.id = e.parent_exchange_id
			UNION ALL
			SELECT p.name, p.routing_key, p.parent_exchange_id, depth + 1 FROM up JOIN messaging_exchanges p
			ON p.id = up.parent_exchange_id
			WHERE depth < 64)
		SELECT json_agg(json_build_object('name', name, 'routing_key', routing_key) ORDER BY depth)
		FROM up), '[]') AS ancestors`

// The forms of what becomes part of exchange names, queue names and routing keys on the broker.
var (
	fragmentForm = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)
	nameForm     = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,200}$`)
)

// Both leave room for the rest of a key or of a queue's name in the 255 bytes that AMQP has for them.
const (
	maxName       = 200
	maxRoutingKey = 200
)

// Validate checks the forms of the names.
func (e ExchangeSpec) Validate() error {
	if !nameForm.MatchString(e.Name) || len(e.Name) > maxName {
		return db.WrongField("name", "is invalid")
	}
	if e.Name == reserved || strings.HasPrefix(e.Name, reserved+".") {
		return db.WrongField("name", "is or begins with "+reserved+"., which RabbitMQ keeps for itself")
	}
	if e.Fragment != nil && !fragmentForm.MatchString(*e.Fragment) {
		return db.WrongField("routing_key_fragment", "has invalid format")
	}
	return nil
}

// EachExchange lists exchanges by id; a part with an exchange is that one alone.
func (s *Registry) EachExchange(ctx context.Context, p db.Part, fn func(ExchangeView) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r ExchangeView) int64 { return int64(r.ID) }, fn,
		`SELECT `+exchangeColumns+` FROM messaging_exchanges e WHERE $1 = 0 OR e.id = $1`,
		p.Exchange)
}

// Exchange reads one exchange.
func (s *Registry) Exchange(ctx context.Context, id component.ExchangeID) (ExchangeView, error) {
	row, err := db.One[ExchangeView](ctx, s.db.Pool, `SELECT `+exchangeColumns+` FROM messaging_exchanges e
		WHERE e.id = $1`, id)
	if err != nil {
		return row, fmt.Errorf("read exchange %d: %w", id, err)
	}
	_, row.FailoverBrokerID, err = s.brokersOf(ctx, id)
	return row, err
}

// ExchangeNamed reads the exchange of that name.
func (s *Registry) ExchangeNamed(ctx context.Context, name string) (ExchangeView, error) {
	row, err := db.One[ExchangeView](ctx, s.db.Pool, `SELECT `+exchangeColumns+` FROM messaging_exchanges e
		WHERE e.name = $1`, name)
	if err != nil {
		return row, fmt.Errorf("read exchange %q: %w", name, err)
	}
	return row, nil
}

// CreateExchange stores an exchange and computes its place. Conflict: its name, its root and routing key, or its queues
// on a broker, are taken. Invalid: it names a failover exchange.
func (s *Registry) CreateExchange(ctx context.Context, spec ExchangeSpec) (component.ExchangeID, error) {
	var id component.ExchangeID
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &id, `SELECT nextval(pg_get_serial_sequence('messaging_exchanges', 'id'))`)
		if err != nil {
			return err
		}
		if err := cmp.Or(failoverKept(nil, spec.FailoverID), requirePlaceable(ctx, tx, id, spec)); err != nil {
			return err
		}
		// A key that no fragment can have keeps the address unique until it is computed.
		_, err = tx.ExecContext(ctx, `INSERT INTO messaging_exchanges (id, name, failover_exchange_id, parent_exchange_id,
			routing_key_fragment,
			routing_key, root_exchange_name) VALUES ($1, $2, $3, $4, $5, $6, $2)`,
			id, spec.Name, spec.FailoverID, spec.ParentID, spec.Fragment, "/"+strconv.FormatInt(int64(id), 10))
		if err != nil {
			return err
		}
		if err := placeSubtree(ctx, tx, id); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(id), Code: "exchange_created", Inputs: spec})
	})
	if err != nil {
		return 0, fmt.Errorf("create exchange %q: %w", spec.Name, addressTaken(err))
	}
	return id, nil
}

// addressTaken says which of the two unique things exists.
func addressTaken(err error) error {
	if postgres.Constraint(err) == "messaging_exchanges_address_key" {
		return fault.Wrap(fault.Conflict, err, "another exchange has this root and routing key").WithCode("address_taken")
	}
	return err
}

// UpdateExchange changes an exchange by edit, which gets what is stored, and computes its whole subtree anew in the
// same transaction. While something runs below, addresses stay (see requireIdle).
func (s *Registry) UpdateExchange(ctx context.Context, id component.ExchangeID, edit func(*ExchangeSpec) error) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		old, err := db.One[ExchangeView](ctx, tx, `SELECT `+exchangeColumns+` FROM messaging_exchanges e WHERE e.id = $1
			FOR UPDATE OF e`, id)
		if err != nil {
			return err
		}
		spec := old.ExchangeSpec
		if err := edit(&spec); err != nil {
			return err
		}
		if spec.equal(old.ExchangeSpec) {
			return nil
		}
		if err := cmp.Or(failoverKept(old.FailoverID, spec.FailoverID), requirePlaceable(ctx, tx, id, spec)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE messaging_exchanges SET name = $2, failover_exchange_id = $3,
			parent_exchange_id = $4,
			routing_key_fragment = $5, updated_at = now() WHERE id = $1`,
			id, spec.Name, spec.FailoverID, spec.ParentID, spec.Fragment)
		if err != nil {
			return err
		}
		if !spec.sameAddress(old.ExchangeSpec) {
			if err := placeSubtree(ctx, tx, id); err != nil {
				return err
			}
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(id), Code: "exchange_changed",
			Inputs: db.Change{Before: old.ExchangeSpec, After: spec}})
	})
	if err != nil {
		return fmt.Errorf("update exchange %d: %w", id, addressTaken(err))
	}
	return nil
}

func (e ExchangeSpec) equal(o ExchangeSpec) bool {
	return e.sameAddress(o) && samePointed(e.FailoverID, o.FailoverID)
}

func (e ExchangeSpec) sameAddress(o ExchangeSpec) bool {
	return e.Name == o.Name && samePointed(e.ParentID, o.ParentID) && samePointed(e.Fragment, o.Fragment)
}

func samePointed[T comparable](a, b *T) bool { return a == b || (a != nil && b != nil && *a == *b) }

// lockTree lets one change of the hierarchy at a time through.
func lockTree(ctx context.Context, tx *sqlx.Tx) error {
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('messaging_exchanges'))`); err != nil {
		return fmt.Errorf("lock the hierarchy of exchanges: %w", err)
	}
	return nil
}

// failoverKept refuses a failover exchange, which would have no effect. What is stored may stay, so that a client can
// PUT what it has read.
func failoverKept(stored, wanted *component.ExchangeID) error {
	if wanted == nil || samePointed(stored, wanted) {
		return nil
	}
	return db.WrongField("failover_exchange_id",
		"is not supported: set the failover_broker_id of the broker that the exchange is restricted to")
}

// requirePlaceable refuses a parent that is unknown, the exchange itself, or below it.
func requirePlaceable(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID, spec ExchangeSpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if spec.ParentID == nil {
		return nil
	}
	up, err := ancestorChain(ctx, tx, *spec.ParentID)
	if err != nil || len(up) == 0 {
		return orWrong(err, "parent_exchange_id", "Invalid MessagingExchange")
	}
	for _, above := range up {
		if above == id {
			return db.WrongField("parent_exchange_id", "makes a cycle")
		}
	}
	return nil
}

func orWrong(err error, field, message string) error {
	if err != nil {
		return err
	}
	return db.WrongField(field, message)
}

// ancestorChain is the exchange and all above it.
func ancestorChain(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) ([]component.ExchangeID, error) {
	var ids []component.ExchangeID
	err := tx.SelectContext(ctx, &ids, `WITH RECURSIVE up AS (
			SELECT id, parent_exchange_id FROM messaging_exchanges WHERE id = $1
			UNION SELECT p.id, p.parent_exchange_id FROM up JOIN messaging_exchanges p ON p.id = up.parent_exchange_id)
		SELECT id FROM up`, id)
	if err != nil {
		return nil, fmt.Errorf("read the chain of exchange %d: %w", id, err)
	}
	return ids, nil
}

// below is the recursive table of an exchange and its descendants with their computed places.
const below = `WITH RECURSIVE below AS (
		SELECT e.id, concat_ws('.', nullif(p.routing_key, ''), nullif(e.routing_key_fragment, '')) AS key,
		coalesce(p.root_exchange_name, e.name) AS root
		FROM messaging_exchanges e LEFT JOIN messaging_exchanges p ON p.id = e.parent_exchange_id WHERE e.id = $1
		UNION ALL
		SELECT e.id, concat_ws('.', nullif(below.key, ''), nullif(e.routing_key_fragment, '')), below.root
		FROM below JOIN messaging_exchanges e ON e.parent_exchange_id = below.id) `

// placeSubtree computes routing_key and root_exchange_name of an exchange and its descendants.
func placeSubtree(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) error {
	_, err := tx.ExecContext(ctx, below+`UPDATE messaging_exchanges e SET routing_key = below.key,
		root_exchange_name = below.root, updated_at = now()
		FROM below WHERE e.id = below.id AND (e.routing_key, e.root_exchange_name) IS DISTINCT FROM (below.key,
		below.root)`, id)
	if err != nil {
		return fmt.Errorf("compute routing keys below exchange %d: %w", id, err)
	}
	var placed []db.ExchangeRow
	err = tx.SelectContext(ctx, &placed, below+`SELECT e.id, e.name, e.routing_key FROM below
		JOIN messaging_exchanges e USING (id)`, id)
	if err != nil {
		return fmt.Errorf("read routing keys below exchange %d: %w", id, err)
	}
	for _, x := range placed {
		if len(x.RoutingKey) > maxRoutingKey {
			return db.WrongField("routing_key_fragment", fmt.Sprintf("makes a routing key of more than %d bytes", maxRoutingKey))
		}
		if x.View(nil).Address().QueuePrefix() == reserved {
			return db.WrongField("routing_key_fragment",
				fmt.Sprintf("makes queue names of MessagingExchange %s begin with %s., which RabbitMQ keeps for itself", x.Name,
					reserved))
		}
	}
	return nil
}

const exchangeUses = `
	SELECT 'messaging_exchange' AS kind, id::text AS id, name FROM messaging_exchanges WHERE parent_exchange_id = $1
	OR failover_exchange_id = $1
	UNION ALL SELECT 'messaging_exchange_broker', id::text, messaging_broker_id::text FROM messaging_exchange_brokers
	WHERE messaging_exchange_id = $1
	UNION ALL SELECT 'system_component', id::text, type FROM system_components WHERE messaging_exchange_id = $1
	UNION ALL SELECT 'cluster', id::text, etcd_token FROM etcd_clusters WHERE messaging_exchange_id = $1
	UNION ALL SELECT 'upgrade', id::text, state FROM upgrades WHERE messaging_exchange_id = $1
		AND state IN ('requested', 'in_progress', 'verifying', 'rolling_back')
	UNION ALL SELECT 'workflow', id::text, coalesce(current_step, '') FROM workflows WHERE messaging_exchange_id = $1
		AND upgrade_id IS NULL AND began_at IS NOT NULL AND NOT workflow_completed
	ORDER BY kind, id`

// DeleteExchange removes an exchange with its modules. InUse: something depends on it, unless cascade: then its
// components and restrictions go too, its open workflows end, and clusters and other exchanges lose their reference;
// while something runs below it, that gets no other address (see requireIdle).
func (s *Registry) DeleteExchange(ctx context.Context, id component.ExchangeID, cascade bool) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		if cascade {
			if err := lockRunning(ctx, tx, id); err != nil {
				return err
			}
		}
		old, err := db.One[ExchangeView](ctx, tx, `SELECT `+exchangeColumns+` FROM messaging_exchanges e WHERE e.id = $1
			FOR UPDATE OF e`, id)
		if err != nil {
			return err
		}
		if !cascade {
			err := db.FindUses(ctx, tx, fmt.Sprintf("MessagingExchange %d", id), exchangeUses, id)
			if err != nil {
				return err
			}
		}
		if err := db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(id), Code: "exchange_deleted",
			Inputs: old.ExchangeSpec}); err != nil {
			return err
		}
		if cascade {
			if err := s.engine.EndWorkflows(ctx, tx, id); err != nil {
				return err
			}
		}
		return removeExchange(ctx, tx, id)
	})
	if err != nil {
		return fmt.Errorf("delete exchange %d: %w", id, err)
	}
	return nil
}

func removeExchange(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) error {
	var children []component.ExchangeID
	if err := tx.SelectContext(ctx, &children, `SELECT id FROM messaging_exchanges WHERE parent_exchange_id = $1
		ORDER BY id`, id); err != nil {
		return fmt.Errorf("list children of exchange %d: %w", id, err)
	}
	for _, statement := range []string{
		`DELETE FROM system_components WHERE messaging_exchange_id = $1`,
		`UPDATE etcd_clusters SET messaging_exchange_id = NULL, updated_at = now() WHERE messaging_exchange_id = $1`,
		`UPDATE messaging_exchanges SET failover_exchange_id = NULL, updated_at = now() WHERE failover_exchange_id = $1`,
		`UPDATE messaging_exchanges SET parent_exchange_id = NULL, updated_at = now() WHERE parent_exchange_id = $1`,
		`DELETE FROM leases WHERE name = ` + db.LeaderLeaseOf("$1::integer"),
		`DELETE FROM messaging_exchanges WHERE id = $1`,
	} {
		if _, err := tx.ExecContext(ctx, statement, id); err != nil {
			return err
		}
	}
	for _, child := range children {
		if err := placeSubtree(ctx, tx, child); err != nil {
			return err
		}
	}
	return nil
}

// lockRunning waits for what is just moving in the exchange, in the order in which results and judgements lock: they
// need the exchange itself last, for the messages that they leave. What ends meanwhile is not waited for any longer.
func lockRunning(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) error {
	for _, lock := range []string{
		`SELECT 1 FROM leases WHERE name = ` + db.LeaderLeaseOf("$1::integer") + ` FOR UPDATE`,
		`SELECT 1 FROM upgrades WHERE messaging_exchange_id = $1 AND state IN ` + engine.OpenStates +
			` ORDER BY id FOR UPDATE`,
		`SELECT 1 FROM workflows WHERE messaging_exchange_id = $1 AND ` + engine.OpenWorkflow + ` ORDER BY id FOR UPDATE`,
	} {
		if _, err := tx.ExecContext(ctx, lock, id); err != nil {
			return fmt.Errorf("lock what runs in exchange %d: %w", id, err)
		}
	}
	return nil
}

// RestrictionRow says that an exchange uses a broker.
type RestrictionRow struct {
	ID         int64                `json:"id" db:"id"`
	ExchangeID component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	BrokerID   int64                `json:"messaging_broker_id" db:"messaging_broker_id"`
	InsertedAt db.Stamp             `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp             `json:"updated_at" db:"updated_at"`
}

// EachRestriction lists the brokers that an exchange is restricted to.
func (s *Registry) EachRestriction(ctx context.Context, p db.Part, fn func(RestrictionRow) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r RestrictionRow) int64 { return r.ID }, fn,
		`SELECT id, messaging_exchange_id, messaging_broker_id, inserted_at, updated_at
		FROM messaging_exchange_brokers
		WHERE messaging_exchange_id = $1`, p.Exchange)
}

// Restrict adds a broker to those that an exchange is restricted to. Conflict: it has it, or its queues are another's
// there; code reference: it is unknown.
func (s *Registry) Restrict(ctx context.Context, id component.ExchangeID, broker int64) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO messaging_exchange_brokers (messaging_exchange_id, messaging_broker_id)
			VALUES ($1, $2)`, id, broker)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(id), Code: "broker_added",
			Inputs: map[string]int64{"messaging_broker_id": broker}})
	})
	if err != nil {
		return fmt.Errorf("restrict exchange %d to broker %d: %w", id, broker, err)
	}
	return nil
}

// Unrestrict removes all restrictions of an exchange; without any it does nothing. Conflict: its queues are another's
// on manager-api's own broker.
func (s *Registry) Unrestrict(ctx context.Context, id component.ExchangeID) error {
	err := s.rearrange(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM messaging_exchange_brokers WHERE messaging_exchange_id = $1`, id)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return nil
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(id), Code: "brokers_removed"})
	})
	if err != nil {
		return fmt.Errorf("lift the restrictions of exchange %d: %w", id, err)
	}
	return nil
}
