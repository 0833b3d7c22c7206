-- +goose Up
-- A UUIDv7 by the database's clock, to the microsecond. Ids decide an order, so all of them come from one clock: the hosts
-- of manager-api's replicas may differ.
-- +goose StatementBegin
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    micros  bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    part    integer := ((micros % 1000) * 4096 / 1000)::integer;  -- of the millisecond, in 12 bits
    raw     bytea := overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send(micros / 1000) FROM 3) FROM 1 FOR 6);
BEGIN
    raw := set_byte(raw, 6, 112 | (part >> 8));                   -- version 7
    raw := set_byte(raw, 7, part & 255);
    RETURN encode(raw, 'hex')::uuid;
END
$$;
-- +goose StatementEnd
