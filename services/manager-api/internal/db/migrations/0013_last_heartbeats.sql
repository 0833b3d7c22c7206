-- +goose Up
-- The last heartbeat of any instance of a component whose modules were deleted because they were silent: the component is
-- missed nevertheless (pkg/eligibility, Absent).
CREATE TABLE last_heartbeats (
    component_id   bigint  PRIMARY KEY REFERENCES system_components ON DELETE CASCADE,
    last_at        timestamptz NOT NULL
);
