-- +goose Up
-- Whether a new commit behind a ref is an upgrade. NULL: of a branch it is, of a tag it is not.
ALTER TABLE system_component_refs ADD COLUMN follow boolean;
-- Whether a new commit of the deployment repository alone is an upgrade.
ALTER TABLE system_components ADD COLUMN follow_deployment boolean NOT NULL DEFAULT false;
-- The check for which the git hosts were asked last, by its next_check_at.
ALTER TABLE system_components ADD COLUMN refs_asked_for timestamptz;

-- The commits behind the two refs of a version, '' where nobody knows them. The former release leaves them so. The
-- commits of the recorded version are those of the release that was proven last.
ALTER TABLE upgrades
    ADD COLUMN from_source_commit_hash     text NOT NULL DEFAULT '',
    ADD COLUMN from_deployment_commit_hash text NOT NULL DEFAULT '',
    ADD COLUMN to_source_commit_hash       text NOT NULL DEFAULT '',
    ADD COLUMN to_deployment_commit_hash   text NOT NULL DEFAULT '';
-- What a quarantine binds beside its ref; '' binds whatever stands behind the ref.
ALTER TABLE quarantines
    ADD COLUMN source_commit_hash     text NOT NULL DEFAULT '',
    ADD COLUMN deployment_commit_hash text NOT NULL DEFAULT '';

-- What git hosts said last about the refs of an exchange's components.
CREATE TABLE resolved_refs (
    messaging_exchange_id bigint NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    repo                  text NOT NULL,
    ref                   text NOT NULL,
    kind                  text NOT NULL DEFAULT '',   -- branch | tag | commit
    commit_hash           text NOT NULL DEFAULT '',   -- '': never told
    resolved_at           timestamptz,                -- when the host told the commit last
    asked_at              timestamptz NOT NULL DEFAULT now(), -- when an executor was last ordered to ask
    error                 text NOT NULL DEFAULT '',   -- why the last answer was none; commit_hash is then from before
    error_told            boolean NOT NULL DEFAULT false, -- people were told of the error
    told_commit           text NOT NULL DEFAULT '',   -- to which the tag was moved when people were told last
    PRIMARY KEY (messaging_exchange_id, repo, ref)
);

-- Executors as they have announced themselves, by the service token of their exchange.
CREATE TABLE executors (
    messaging_exchange_id bigint NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    hostname              text NOT NULL,
    boot_id               text NOT NULL,
    capabilities          text[] NOT NULL DEFAULT '{}',
    announced_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (messaging_exchange_id, hostname)
);
