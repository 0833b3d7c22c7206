-- +goose Up
-- What the executor that claimed an order can do beside what the former release could, in its own words at the claim.
ALTER TABLE orders ADD COLUMN capabilities text[] NOT NULL DEFAULT '{}';
-- The instances that the deploy left running, by its result. NULL: the executor does not name them.
ALTER TABLE workflows ADD COLUMN deployed jsonb;
