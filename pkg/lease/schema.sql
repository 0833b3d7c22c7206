-- Tokens of all leases together only rise.
CREATE SEQUENCE lease_tokens AS bigint;

CREATE TABLE leases (
	name text PRIMARY KEY,
	holder text NOT NULL,
	token bigint NOT NULL,
	expires_at timestamptz NOT NULL,
	data jsonb NOT NULL DEFAULT '{}'
);
