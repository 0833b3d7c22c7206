-- +goose Up
-- A scheduled_start_time before this instant was stored when nothing came of it: such workflows do not start by it.
ALTER TABLE schema_info ADD COLUMN schedules_since timestamptz NOT NULL DEFAULT now();
CREATE INDEX workflows_scheduled ON workflows (scheduled_start_time) WHERE NOT workflow_completed AND upgrade_id IS NULL;
CREATE INDEX workflows_running ON workflows (began_at)
    WHERE NOT workflow_completed AND upgrade_id IS NULL AND began_at IS NOT NULL;
