-- +goose Up
-- When somebody last asked for a requested upgrade: a request that was taken over or forced a moment ago does not
-- expire. NULL, as the former release leaves it: when the upgrade was created.
ALTER TABLE upgrades ADD COLUMN asked_at timestamptz;
-- Every snapshot asks for the last upgrades of each component that were started and have ended.
CREATE INDEX upgrades_ended ON upgrades (component_id, finished_at)
    WHERE started_at IS NOT NULL AND finished_at IS NOT NULL;
