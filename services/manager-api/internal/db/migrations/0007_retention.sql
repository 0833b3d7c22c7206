-- +goose Up
-- What pruning reads is indexed: a pass that finds nothing to remove reads next to nothing.
CREATE INDEX upgrades_finished ON upgrades (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX upgrades_release ON upgrades (release_id) WHERE release_id IS NOT NULL;
CREATE INDEX workflows_ended ON workflows (ended_at) WHERE workflow_completed AND upgrade_id IS NULL;
CREATE INDEX workflows_release ON workflows (release_id) WHERE release_id IS NOT NULL;
CREATE INDEX releases_inserted ON releases (inserted_at);
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
-- The journal stays append-only, but for rows that are older than any retention may be (pkg/times: keep_journal).
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'journal is append-only';
END $$;
-- +goose StatementEnd
