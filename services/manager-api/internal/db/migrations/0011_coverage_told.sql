-- +goose Up
-- Since when nobody covers an exchange, and whether people were told. covered_until is NULL while nobody covers.
ALTER TABLE coverage ADD COLUMN last_covered timestamptz;
ALTER TABLE coverage ADD COLUMN uncovered_told boolean NOT NULL DEFAULT false;
UPDATE coverage SET last_covered = covered_until;
