-- +goose Up
CREATE TABLE freezes (                     -- the emergency stop of an exchange, or of everything
    messaging_exchange_id bigint REFERENCES messaging_exchanges ON DELETE CASCADE, -- null: everything
    created_by            text NOT NULL,
    reason                text NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    until                 timestamptz               -- null: until somebody ends it; past: it has ended
);
CREATE UNIQUE INDEX freezes_scope ON freezes (coalesce(messaging_exchange_id, 0));
