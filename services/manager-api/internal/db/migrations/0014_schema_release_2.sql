-- +goose Up
-- The last migration of a release of the schema states its number: a start that was killed between two migrations of the
-- release finds the former number, and goes on.
UPDATE schema_info SET release = 2;
