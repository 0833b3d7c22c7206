-- +goose Up
-- Since when manager-api is there without a gap. Time before that instant counts against no upgrade.
ALTER TABLE ticks ADD COLUMN present_since timestamptz NOT NULL DEFAULT now();
