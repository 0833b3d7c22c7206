-- +goose Up
-- Every id and every reference to an id has 64 bits: a sequence of 32 bits ends. Readers of the former release take
-- the ids as 64 bits already.
-- +goose StatementBegin
DO $$
DECLARE c record;
BEGIN
    FOR c IN SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = current_schema() AND data_type = 'integer' AND (column_name = 'id' OR column_name LIKE '%\_id')
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE bigint', c.table_name, c.column_name);
    END LOOP;
    FOR c IN SELECT sequencename FROM pg_sequences
        WHERE schemaname = current_schema() AND data_type = 'integer'::regtype
    LOOP
        EXECUTE format('ALTER SEQUENCE %I AS bigint', c.sequencename);
    END LOOP;
END $$;
-- +goose StatementEnd
