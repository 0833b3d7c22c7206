-- +goose Up
-- The other boot that was heard last under a module's hostname: pkg/module, Presence.Other. NULL: none is known.
ALTER TABLE messaging_exchange_modules
    ADD COLUMN rival_boot_id    text,
    ADD COLUMN rival_seq        bigint,
    ADD COLUMN rival_started_at timestamptz,
    ADD COLUMN rival_since      timestamptz,
    ADD COLUMN rival_seen       timestamptz,
    ADD COLUMN rival_again      timestamptz,   -- when it was last heard after the boot that counts had come
    ADD COLUMN rival_told       text NOT NULL DEFAULT '';   -- the pair of boots that people were told of
CREATE INDEX messaging_exchange_modules_rivals ON messaging_exchange_modules (messaging_exchange_id)
    WHERE rival_again IS NOT NULL;
