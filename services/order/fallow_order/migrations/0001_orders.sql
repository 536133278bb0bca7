-- Accounts with their ways in, orders with their groups, changes and workloads.
-- Ids are UUIDv7 as text, so the primary keys sort by age. Money is micros of one asset in bigint.

CREATE TABLE account (
    id text PRIMARY KEY,
    address text NOT NULL UNIQUE CHECK (address ~ '^0x[0-9a-fA-F]{40}$'),
    created_at timestamptz(3) NOT NULL
);

CREATE TABLE sign_in_nonce (
    nonce text PRIMARY KEY,
    address text NOT NULL,
    created_at timestamptz(3) NOT NULL,
    expires_at timestamptz(3) NOT NULL
);

CREATE INDEX sign_in_nonce_age ON sign_in_nonce (expires_at);

CREATE TABLE api_key (
    id text PRIMARY KEY,
    account text NOT NULL REFERENCES account (id),
    display_name text NOT NULL,
    scopes text [] NOT NULL,
    -- SHA-256 of a secret of 256 random bits; the secret itself is nowhere.
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz(3) NOT NULL,
    last_used_at timestamptz(3),
    expires_at timestamptz(3)
);

CREATE INDEX api_key_account ON api_key (account, id);

CREATE TABLE orders (
    id text PRIMARY KEY,
    account text NOT NULL,
    state text NOT NULL CHECK (
        state IN ('PENDING', 'OPEN', 'MATCHED', 'RUNNING', 'DEGRADED', 'SUSPENDED', 'CLOSING', 'CLOSED')
    ),
    -- fallow.order.v1.Order without workloads, states and totals.
    specification bytea NOT NULL,
    labels jsonb NOT NULL,
    asset text NOT NULL,
    hold_micros bigint NOT NULL CHECK (hold_micros > 0),
    budget_micros bigint CHECK (budget_micros > 0),
    auto_top_up boolean NOT NULL,
    match_timeout_ms bigint NOT NULL CHECK (match_timeout_ms > 0),
    term_ms bigint CHECK (term_ms > 0),
    created_at timestamptz(3) NOT NULL,
    updated_at timestamptz(3) NOT NULL,
    opened_at timestamptz(3),
    ready_at timestamptz(3),
    closed_at timestamptz(3),
    close_reason text,
    close_detail text NOT NULL,
    charged_micros bigint NOT NULL CHECK (charged_micros >= 0),
    refunded_micros bigint NOT NULL CHECK (refunded_micros >= 0),
    held_micros bigint NOT NULL CHECK (held_micros >= 0),
    end_confirmed boolean NOT NULL,
    escrow_closed boolean NOT NULL,
    -- Due for the next look of a job, whatever that job is for the order's state; null when nothing is due.
    due_at timestamptz(3),
    revision bigint NOT NULL CHECK (revision > 0),
    sequence bigint NOT NULL CHECK (sequence > 0),
    event_version bigint NOT NULL CHECK (event_version >= 0),
    CHECK (state <> 'CLOSED' OR (close_reason IS NOT NULL AND closed_at IS NOT NULL))
);

CREATE INDEX orders_account ON orders (account, id DESC);
CREATE INDEX orders_labels ON orders USING gin (labels jsonb_path_ops);
CREATE INDEX orders_due ON orders (state, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE order_group (
    order_id text NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    group_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('OPEN', 'LEASED', 'RUNNING', 'LOST', 'ENDED')),
    generation bigint NOT NULL CHECK (generation >= 0),
    highest_generation bigint NOT NULL CHECK (highest_generation >= generation),
    lease text NOT NULL,
    provider text NOT NULL,
    price_asset text NOT NULL,
    price_micros_per_hour bigint NOT NULL CHECK (price_micros_per_hour >= 0),
    endpoints jsonb NOT NULL,
    PRIMARY KEY (order_id, index)
);

CREATE TABLE order_transition (
    order_id text NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    sequence bigint NOT NULL CHECK (sequence > 0),
    source_state text,
    target_state text NOT NULL,
    reason text NOT NULL,
    transition_at timestamptz(3) NOT NULL,
    PRIMARY KEY (order_id, sequence)
);

CREATE TABLE workload (
    order_id text NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    group_index integer NOT NULL,
    -- AES-256-GCM of fallow.type.v1.Workload; the order and the group are its associated data.
    key_id text NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL,
    PRIMARY KEY (order_id, group_index)
);

-- Orders that were withdrawn before they opened and whose escrow may have been opened all the same.
CREATE TABLE escrow_release (
    order_id text PRIMARY KEY,
    created_at timestamptz(3) NOT NULL,
    due_at timestamptz(3) NOT NULL
);

CREATE INDEX escrow_release_due ON escrow_release (due_at);
