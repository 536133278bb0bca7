-- What every service's database holds for the chassis: events on their way out, events that came in, answers that were
-- given, and the versions that each consumer has seen. `timestamptz(3)` keeps whole milliseconds, as the wire does.

CREATE TABLE outbox (
    -- Taken before commit, so it orders the rows of one key (whose commands wait for each other) and is no cursor.
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    topic text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    type text NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz(3) NOT NULL,
    sent_at timestamptz(3)
);

CREATE INDEX outbox_unsent ON outbox (sequence) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;
-- Two events of one key with one version are a programmer's error; it must not leave the transaction.
CREATE UNIQUE INDEX outbox_version ON outbox (topic, key, version) WHERE version > 0;

CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id text NOT NULL,
    topic text NOT NULL,
    handled_at timestamptz(3) NOT NULL,
    PRIMARY KEY (consumer, event_id)
);

CREATE INDEX inbox_age ON inbox (handled_at);

CREATE TABLE aggregate_version (
    consumer text NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    PRIMARY KEY (consumer, topic, key)
);

CREATE TABLE parked_event (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    event_id text NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    -- GAP: an earlier version has not come yet. POISON: its handler failed. BEHIND: an earlier one of its key is parked.
    reason text NOT NULL CHECK (reason IN ('GAP', 'POISON', 'BEHIND')),
    error text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL,
    parked_at timestamptz(3) NOT NULL,
    UNIQUE (consumer, event_id)
);

CREATE INDEX parked_event_key ON parked_event (consumer, topic, key, version, sequence);

CREATE TABLE idempotency (
    caller text NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    resource text NOT NULL,
    answer bytea,
    created_at timestamptz(3) NOT NULL,
    PRIMARY KEY (caller, method, request_id)
);

CREATE INDEX idempotency_age ON idempotency (created_at);
