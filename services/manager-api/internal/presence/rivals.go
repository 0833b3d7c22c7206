package presence

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// TellRivals tells people of the hostnames under which two boots are alive: a SystemEvent and a journal row per
// exchange, once for each pair of boots. Beats that the queue keeps may be live_within late. So a pair is told of only
// when the other boot was heard live_within after the boot that counts had come.
func (s *Presence) TellRivals(ctx context.Context) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		var rows []rivals
		err := tx.SelectContext(ctx, &rows, rivalsSQL, s.times.LiveWithin.Milliseconds())
		if err != nil {
			return fmt.Errorf("look for hostnames of two hosts: %w", err)
		}
		for len(rows) > 0 {
			n := 1
			for n < len(rows) && rows[n].ExchangeID == rows[0].ExchangeID {
				n++
			}
			if err := tellRivals(ctx, tx, rows[:n]); err != nil {
				return err
			}
			rows = rows[n:]
		}
		return nil
	})
}

// rivalsSQL marks the pairs that are to be told of and returns them by exchange. A row that somebody keeps locked has
// its turn at the next pass.
const rivalsSQL = `
WITH due AS (
	SELECT id, least(boot_id, rival_boot_id) || ' ' || greatest(boot_id, rival_boot_id) AS pair
	FROM messaging_exchange_modules
	WHERE rival_again >= now() - $1 * interval '1 millisecond'
		AND rival_again >= boot_since + $1 * interval '1 millisecond'
		AND updated_at >= now() - $1 * interval '1 millisecond'
		AND rival_boot_id <> boot_id
		AND rival_told <> least(boot_id, rival_boot_id) || ' ' || greatest(boot_id, rival_boot_id)
	ORDER BY hostname COLLATE "C" FOR UPDATE SKIP LOCKED
), told AS (
	UPDATE messaging_exchange_modules m SET rival_told = due.pair FROM due WHERE m.id = due.id
	RETURNING m.messaging_exchange_id, m.hostname, m.type, m.boot_id, m.rival_boot_id
)
SELECT * FROM told ORDER BY messaging_exchange_id, hostname`

// rivals are two boots under one hostname.
type rivals struct {
	ExchangeID  component.ExchangeID `json:"-" db:"messaging_exchange_id"`
	Hostname    string               `json:"hostname" db:"hostname"`
	Type        string               `json:"type" db:"type"`
	BootID      string               `json:"boot_id" db:"boot_id"`
	RivalBootID string               `json:"rival_boot_id" db:"rival_boot_id"`
}

// tellRivals tells of the pairs of one exchange.
func tellRivals(ctx context.Context, tx *sqlx.Tx, list []rivals) error {
	first := list[0]
	message := fmt.Sprintf("two hosts beat as %s (type %s, boots %s and %s): neither proves a version; give each host a "+
		"HOSTNAME of its own, or stop one of them", first.Hostname, first.Type, first.BootID, first.RivalBootID)
	if len(list) > 1 {
		message += fmt.Sprintf("; so do two hosts under %d more hostname(s)", len(list)-1)
	}
	data := map[string]any{"messaging_exchange_id": first.ExchangeID, "count": len(list),
		"hostnames": list[:min(len(list), maxNamed)]}
	err := db.RaiseEvent(ctx, tx, &first.ExchangeID, "hostname_taken", db.SeverityError, message, data)
	if err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(first.ExchangeID), Code: "hostname_taken",
		Message: message, Inputs: data})
}
