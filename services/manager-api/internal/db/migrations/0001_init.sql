-- +goose Up
-- One release of the schema. Migrations are forward-only and expand: a contraction comes one release after its last reader.

CREATE TABLE schema_info (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    release     integer NOT NULL,             -- the schema's own number
    min_release integer NOT NULL              -- the lowest release of a binary that may run on it
);
INSERT INTO schema_info (release, min_release) VALUES (1, 1);

-- The predecessor's families ------------------------------------------------------------------------------------

CREATE TABLE system_component_refs (
    id                   serial PRIMARY KEY,
    type                 text NOT NULL CONSTRAINT system_component_refs_type_key UNIQUE,
    source_repo          text NOT NULL,
    source_repo_git_ref  text NOT NULL,
    auto_upgrade_enabled boolean NOT NULL,
    inserted_at          timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE messaging_brokers (
    id                 serial PRIMARY KEY,
    name               text NOT NULL CONSTRAINT messaging_brokers_name_key UNIQUE,
    failover_broker_id integer REFERENCES messaging_brokers,
    inserted_at        timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE messaging_broker_connections (
    id                  serial PRIMARY KEY,
    messaging_broker_id integer NOT NULL REFERENCES messaging_brokers ON DELETE CASCADE,
    username            text NOT NULL,
    password_sealed     bytea NOT NULL,       -- AES-256-GCM, associated data = table, row and column
    password_key_id     text NOT NULL,
    host                text NOT NULL,
    port                integer,
    virtual_host        text NOT NULL,
    inserted_at         timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messaging_broker_connections_broker ON messaging_broker_connections (messaging_broker_id);

CREATE TABLE messaging_exchanges (
    id                   serial PRIMARY KEY,
    name                 text NOT NULL CONSTRAINT messaging_exchanges_name_key UNIQUE,
    parent_exchange_id   integer REFERENCES messaging_exchanges,
    failover_exchange_id integer REFERENCES messaging_exchanges,
    routing_key_fragment text,
    routing_key          text NOT NULL DEFAULT '',   -- computed from the ancestors whenever one of them changes
    root_exchange_name   text NOT NULL DEFAULT '',
    inserted_at          timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT messaging_exchanges_address_key UNIQUE (root_exchange_name, routing_key) DEFERRABLE -- checked per statement: a subtree moves in one
);
CREATE INDEX messaging_exchanges_parent ON messaging_exchanges (parent_exchange_id);

CREATE TABLE messaging_exchange_brokers (
    id                    serial PRIMARY KEY,
    messaging_exchange_id integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    messaging_broker_id   integer NOT NULL REFERENCES messaging_brokers,
    inserted_at           timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT messaging_exchange_brokers_pair_key UNIQUE (messaging_exchange_id, messaging_broker_id)
);

CREATE TABLE etcd_clusters (
    id                    serial PRIMARY KEY,
    etcd_token            text NOT NULL,
    name                  text,
    hosting_provider_id   integer,
    allow_docker_builds   boolean,
    messaging_exchange_id integer REFERENCES messaging_exchanges,
    runtime               text NOT NULL DEFAULT 'fleet',
    endpoint              text NOT NULL DEFAULT '',
    inserted_at           timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX etcd_clusters_token_key ON etcd_clusters (lower(etcd_token));

CREATE TABLE system_components (
    id                      serial PRIMARY KEY,
    messaging_exchange_id   integer NOT NULL REFERENCES messaging_exchanges,
    type                    text NOT NULL,
    source_repo             text NOT NULL DEFAULT '',  -- the recorded, proven version
    source_repo_git_ref     text NOT NULL DEFAULT '',
    deployment_repo         text NOT NULL DEFAULT '',
    deployment_repo_git_ref text NOT NULL DEFAULT '',
    upgrade_strategy        text NOT NULL CHECK (upgrade_strategy IN ('manual', 'hourly')),
    proof                   text NOT NULL CHECK (proof IN ('modules', 'units')),
    status                  text,
    upgrade_status          jsonb,
    next_check_at           timestamptz,
    last_check_at           timestamptz,
    last_verdict            text NOT NULL DEFAULT '',   -- code of the last automatic check
    last_verdict_message    text NOT NULL DEFAULT '',
    inserted_at             timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT system_components_type_key UNIQUE (messaging_exchange_id, type)
);
CREATE INDEX system_components_type ON system_components (type);

CREATE TABLE messaging_exchange_modules (
    id                      serial PRIMARY KEY,
    messaging_exchange_id   integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    hostname                text NOT NULL,
    type                    text NOT NULL,
    service                 text NOT NULL DEFAULT '',
    status                  text NOT NULL,
    boot_id                 text NOT NULL DEFAULT '',
    seq                     bigint NOT NULL DEFAULT 0,
    workload                jsonb NOT NULL DEFAULT '[]',
    source_repo             text NOT NULL DEFAULT '',
    source_repo_git_ref     text NOT NULL DEFAULT '',
    deployment_repo         text NOT NULL DEFAULT '',
    deployment_repo_git_ref text NOT NULL DEFAULT '',
    started_at              timestamptz,
    boot_since              timestamptz NOT NULL DEFAULT now(),
    steady_since            timestamptz NOT NULL DEFAULT now(),
    inserted_at             timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),  -- receipt of the last beat
    CONSTRAINT messaging_exchange_modules_hostname_key UNIQUE (messaging_exchange_id, hostname)
) WITH (fillfactor = 50); -- every row changes with every beat: room in its page spares the indexes

CREATE TABLE workflows (
    id                      uuid PRIMARY KEY,
    deployment_repo         text,
    deployment_repo_git_ref text,
    source_repo             text,
    source_repo_git_ref     text,
    source_commit_hash      text,
    milestones              jsonb,
    current_step            text,
    elapsed_step_time       text,
    elapsed_workflow_time   text,
    workflow_duration       text,
    workflow_step_durations jsonb,
    workflow_error          boolean,
    workflow_completed      boolean NOT NULL DEFAULT false,
    event_log               jsonb,
    scheduled_start_time    timestamptz,
    execute_options         jsonb,
    -- ours
    upgrade_id              uuid,
    messaging_exchange_id   integer REFERENCES messaging_exchanges ON DELETE SET NULL, -- where its executor runs; before that, of a bound caller
    component_type          text NOT NULL DEFAULT '',
    phase                   integer NOT NULL DEFAULT 0,
    restoring               boolean NOT NULL DEFAULT false,
    executor                text NOT NULL DEFAULT '',       -- deploy_oa | deploy: who gets every milestone
    release_id              uuid,                           -- what config produced, or what a rollback deploys
    instances               integer NOT NULL DEFAULT 0,     -- after the deploy
    failure_cause           text NOT NULL DEFAULT '',
    failure_reason          text NOT NULL DEFAULT '',
    began_at                timestamptz,                    -- set once, by execute
    step_began_at           timestamptz,
    ended_at                timestamptz,
    inserted_at             timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workflows_deployment_repo ON workflows (deployment_repo);
CREATE INDEX workflows_inserted ON workflows (inserted_at);
CREATE UNIQUE INDEX workflows_upgrade ON workflows (upgrade_id, phase, restoring) WHERE upgrade_id IS NOT NULL;

CREATE TABLE users (
    id          serial PRIMARY KEY,
    first_name  text NOT NULL,
    last_name   text NOT NULL,
    email       text NOT NULL CONSTRAINT users_email_key UNIQUE,
    inserted_at timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE system_events (
    id               serial PRIMARY KEY,
    type             text NOT NULL,
    message          text,
    severity         text NOT NULL,
    data             jsonb,
    dismissed_at     timestamptz,
    dismissed_by_id  integer REFERENCES users,
    dismissed_reason text,
    assigned_at      timestamptz,
    assignee_id      integer REFERENCES users,
    assigned_by_id   integer REFERENCES users,
    messaging_exchange_id integer REFERENCES messaging_exchanges ON DELETE SET NULL, -- null: of the whole platform
    inserted_at      timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX system_events_inserted ON system_events (inserted_at);

-- Upgrades ------------------------------------------------------------------------------------------------------

CREATE TABLE releases (                    -- immutable, but for the instants of its proofs
    id                      uuid PRIMARY KEY,
    component_id            integer REFERENCES system_components ON DELETE CASCADE, -- null: of a workflow without upgrade
    phase                   integer NOT NULL DEFAULT 1,     -- type deployer has one release per phase
    adopted                 boolean NOT NULL DEFAULT false, -- found running, not rendered by config
    source_repo             text NOT NULL,
    source_repo_git_ref     text NOT NULL,
    source_commit_hash      text NOT NULL DEFAULT '',
    deployment_repo         text NOT NULL,
    deployment_repo_git_ref text NOT NULL,
    deployment_commit_hash  text NOT NULL DEFAULT '',
    etcd_token              text NOT NULL,
    units                   jsonb NOT NULL,
    instances               integer,                        -- null: one per machine of the cluster
    proven_at               timestamptz,                    -- the proven release of a phase is the one proven last
    first_proven_at         timestamptz,                    -- null: proven_at is the first as well
    inserted_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX releases_component ON releases (component_id, id);
CREATE INDEX releases_proven ON releases (component_id, phase, source_repo, source_repo_git_ref, proven_at DESC, adopted, id DESC) WHERE proven_at IS NOT NULL;

CREATE TABLE upgrades (
    id                           uuid PRIMARY KEY,
    component_id                 integer NOT NULL REFERENCES system_components ON DELETE CASCADE,
    component_type               text NOT NULL,
    messaging_exchange_id        integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    proof                        text NOT NULL,
    trigger                      text NOT NULL,
    requested_by                 text NOT NULL DEFAULT '',
    reason                       text NOT NULL DEFAULT '',   -- the requester's words
    force                        boolean NOT NULL DEFAULT false,
    release_id                   uuid,                       -- trigger rollback: the release to return to
    state                        text NOT NULL,
    phase                        integer NOT NULL DEFAULT 0,
    step                         text NOT NULL DEFAULT '',
    verdict_code                 text NOT NULL DEFAULT '',
    verdict_message              text NOT NULL DEFAULT '',
    cause                        text,
    touched                      boolean NOT NULL DEFAULT false,
    from_source_repo             text NOT NULL DEFAULT '',
    from_source_repo_git_ref     text NOT NULL DEFAULT '',
    to_source_repo               text NOT NULL DEFAULT '',
    to_source_repo_git_ref       text NOT NULL DEFAULT '',
    slot                         integer NOT NULL DEFAULT 1,
    clock_left                   bigint NOT NULL DEFAULT 0,  -- milliseconds
    clock_stalled                bigint NOT NULL DEFAULT 0,
    clock_ticked_at              timestamptz,
    created_at                   timestamptz NOT NULL DEFAULT now(),
    started_at                   timestamptz,
    finished_at                  timestamptz
);
CREATE UNIQUE INDEX upgrades_one_open ON upgrades (component_id)
    WHERE state IN ('requested', 'in_progress', 'verifying', 'rolling_back');
CREATE UNIQUE INDEX upgrades_one_running ON upgrades (messaging_exchange_id, slot)
    WHERE state IN ('in_progress', 'verifying', 'rolling_back');
CREATE INDEX upgrades_component ON upgrades (component_id, id); -- ids rise with age
CREATE INDEX upgrades_tried ON upgrades (component_id, to_source_repo, to_source_repo_git_ref, finished_at)
    WHERE state = 'completed' OR verdict_code = 'not_proven'; -- every snapshot asks when a component's version was tried last

ALTER TABLE workflows ADD CONSTRAINT workflows_upgrade_fk FOREIGN KEY (upgrade_id) REFERENCES upgrades ON DELETE SET NULL;

CREATE TABLE quarantines (
    id                    uuid PRIMARY KEY,
    messaging_exchange_id integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    component_type        text NOT NULL,
    source_repo           text NOT NULL,
    source_repo_git_ref   text NOT NULL,
    upgrade_id            uuid,
    reason                text NOT NULL,
    message               text NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    expires_at            timestamptz,
    CONSTRAINT quarantines_target_key UNIQUE (messaging_exchange_id, component_type, source_repo, source_repo_git_ref)
);

CREATE TABLE orders (
    id                    uuid PRIMARY KEY,
    workflow_id           uuid NOT NULL REFERENCES workflows ON DELETE CASCADE,
    messaging_exchange_id integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    queue                 text NOT NULL,               -- deployer | deploy_oa
    milestone             text NOT NULL,
    state                 text NOT NULL,               -- open | claimed | completed | failed | closed
    attempt               integer NOT NULL DEFAULT 1,
    token                 bigint NOT NULL DEFAULT 0,   -- the highest ever given for it; 0: never claimed
    host                  text NOT NULL DEFAULT '',    -- who claimed it last, also after a release
    taken_over            boolean NOT NULL DEFAULT false, -- another host had it before: what that did is not known to who has it now
    body                  jsonb NOT NULL,              -- the order as it is sent, but for attempt and deadline
    deadline              timestamptz NOT NULL,
    confirmed_at          timestamptz,                 -- when the broker last confirmed the message
    result                jsonb,
    created_at            timestamptz NOT NULL DEFAULT now(),
    ended_at              timestamptz
);
CREATE INDEX orders_workflow ON orders (workflow_id);
CREATE INDEX orders_open ON orders (state) WHERE state IN ('open', 'claimed');

-- Plumbing ------------------------------------------------------------------------------------------------------

CREATE SEQUENCE lease_tokens;

CREATE TABLE leases (                      -- leadership `overseer/<exchange id>` and claims `order/<order id>`
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    token      bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    data       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX leases_holder ON leases (holder);

CREATE TABLE coverage (                    -- what the leader of an exchange has listened to without a break
    messaging_exchange_id integer PRIMARY KEY REFERENCES messaging_exchanges ON DELETE CASCADE,
    term                  bigint NOT NULL,
    covered_since         timestamptz,
    covered_until         timestamptz
);

CREATE TABLE deletion_holds (
    messaging_exchange_id integer PRIMARY KEY REFERENCES messaging_exchanges ON DELETE CASCADE,
    since                 timestamptz NOT NULL DEFAULT now(),
    covered_ms            bigint NOT NULL DEFAULT 0,
    ticked_at             timestamptz NOT NULL DEFAULT now(),
    released              boolean NOT NULL DEFAULT false,
    silent                integer NOT NULL,
    total                 integer NOT NULL
);

CREATE TABLE outbox (
    id                    uuid PRIMARY KEY,            -- the message_id
    messaging_exchange_id integer NOT NULL REFERENCES messaging_exchanges ON DELETE CASCADE,
    queue                 text NOT NULL,
    type                  text NOT NULL,
    correlation_id        text NOT NULL DEFAULT '',
    traceparent           text NOT NULL DEFAULT '',
    order_id              uuid,
    body                  jsonb NOT NULL,
    expendable            boolean NOT NULL DEFAULT false, -- a doorbell: dropped instead of waiting when it cannot be sent for long
    attempts              integer NOT NULL DEFAULT 0,
    outcome               text NOT NULL DEFAULT '',    -- of the last attempt: returned | nacked | unknown | unavailable
    next_attempt_at       timestamptz NOT NULL DEFAULT now(),
    created_at            timestamptz NOT NULL DEFAULT now(),
    published_at          timestamptz
);
CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE published_at IS NULL;

CREATE TABLE inbox (
    message_id  text PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inbox_received ON inbox (received_at);

CREATE TABLE journal (                     -- append-only
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text NOT NULL,
    subject    text NOT NULL,              -- upgrade/<id>, component/<id>, exchange/<id> …
    code       text NOT NULL,
    message    text NOT NULL DEFAULT '',
    inputs     jsonb,
    request_id text NOT NULL DEFAULT ''
);
CREATE INDEX journal_subject ON journal (subject, seq);
CREATE INDEX journal_actor ON journal (actor, seq);
-- +goose StatementBegin
CREATE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'journal is append-only'; END $$;
-- +goose StatementEnd
CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE ON journal
    FOR EACH ROW EXECUTE FUNCTION journal_is_append_only();

CREATE TABLE ticks (                       -- the last tick of each periodic judgement of manager-api, shared by its replicas
    name      text PRIMARY KEY,
    ticked_at timestamptz NOT NULL
);

CREATE TABLE idempotency_keys (
    caller       text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    status       integer,                  -- null while the first request runs, or where nobody knows what became of it
    headers      jsonb,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
