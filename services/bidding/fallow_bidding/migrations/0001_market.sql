-- The market's facts: providers with their inventory and offers, orders as bidding knows them, leases with the devices
-- that they hold, commands to providers, and the market's own outages. Ids stand without their collections.

CREATE TABLE provider (
    provider_id text PRIMARY KEY,
    account text NOT NULL,
    display_name text NOT NULL,
    public_key bytea NOT NULL UNIQUE CHECK (octet_length(public_key) = 32),
    region text NOT NULL,
    attributes jsonb NOT NULL,
    auditor_signatures jsonb NOT NULL,
    address text NOT NULL,
    market text NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    -- False from the end of the shorter silence until the next heartbeat.
    reachable boolean NOT NULL DEFAULT false,
    reputation_milli integer NOT NULL DEFAULT 0 CHECK (reputation_milli BETWEEN 0 AND 1000),
    heartbeat_time timestamptz(3),
    boot_id text NOT NULL DEFAULT '',
    inventory_sequence bigint NOT NULL DEFAULT 0 CHECK (inventory_sequence >= 0),
    inventory_time timestamptz(3),
    -- Number of the last event of this provider on the market's topic.
    market_version bigint NOT NULL DEFAULT 0 CHECK (market_version >= 0),
    create_time timestamptz(3) NOT NULL
);

CREATE INDEX provider_account ON provider (account, provider_id);
CREATE INDEX provider_market ON provider (market);

CREATE TABLE node (
    provider_id text NOT NULL REFERENCES provider (provider_id),
    node_id text NOT NULL,
    cpu_milli bigint NOT NULL CHECK (cpu_milli >= 0),
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    storage_bytes_by_class jsonb NOT NULL,
    drivers text[] NOT NULL,
    PRIMARY KEY (provider_id, node_id)
);

CREATE TABLE device (
    provider_id text NOT NULL,
    device_id text NOT NULL,
    node_id text NOT NULL,
    vendor text NOT NULL,
    model text NOT NULL,
    vram_bytes bigint NOT NULL CHECK (vram_bytes >= 0),
    interface text NOT NULL,
    health text NOT NULL CHECK (health IN ('UNKNOWN', 'HEALTHY', 'DEGRADED', 'FAILED')),
    source text NOT NULL,
    PRIMARY KEY (provider_id, device_id),
    FOREIGN KEY (provider_id, node_id) REFERENCES node (provider_id, node_id) ON DELETE CASCADE
);

CREATE TABLE offer (
    offer_id text PRIMARY KEY,
    provider_id text NOT NULL REFERENCES provider (provider_id),
    asset text NOT NULL,
    prices jsonb NOT NULL,
    term_ms_max bigint CHECK (term_ms_max > 0),
    expire_time timestamptz(3),
    state text NOT NULL CHECK (state IN ('ACTIVE', 'WITHDRAWN')),
    create_time timestamptz(3) NOT NULL
);

CREATE UNIQUE INDEX offer_active ON offer (provider_id, asset) WHERE state = 'ACTIVE';

CREATE TABLE market_order (
    order_id text PRIMARY KEY,
    tenant text NOT NULL,
    market text NOT NULL,
    -- The order as its last event carried it, a serialized fallow.order.v1.Order; null for one that was ended unheard.
    body bytea,
    state text NOT NULL CHECK (state IN ('OPEN', 'ENDED')),
    -- Number of the last event of this order on the leases' topic.
    lease_version bigint NOT NULL DEFAULT 0 CHECK (lease_version >= 0),
    term_ms bigint CHECK (term_ms > 0),
    forbids_overlap boolean NOT NULL DEFAULT false,
    ready_time timestamptz(3),
    end_reason text NOT NULL DEFAULT '',
    end_detail text NOT NULL DEFAULT '',
    end_time timestamptz(3),
    create_time timestamptz(3) NOT NULL,
    CHECK (state = 'ENDED' OR body IS NOT NULL)
);

CREATE INDEX market_order_open ON market_order (market, create_time) WHERE state = 'OPEN';

CREATE TABLE order_group (
    order_id text NOT NULL REFERENCES market_order (order_id),
    group_index integer NOT NULL CHECK (group_index >= 0),
    group_id text NOT NULL,
    -- OPEN looks for a provider; LEASED has a live lease; ENDED will have none again.
    state text NOT NULL CHECK (state IN ('OPEN', 'LEASED', 'ENDED')),
    generation bigint NOT NULL DEFAULT 0 CHECK (generation >= 0),
    -- Providers that failed this group and do not get it again.
    excluded_providers text[] NOT NULL DEFAULT '{}',
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    -- Not leased again before this instant, where the order forbids that generations overlap.
    hold_until timestamptz(3),
    -- The last decision, for ExplainMatch.
    decision jsonb,
    PRIMARY KEY (order_id, group_index)
);

CREATE INDEX order_group_open ON order_group (order_id) WHERE state = 'OPEN';

CREATE TABLE lease (
    lease_id text PRIMARY KEY,
    order_id text NOT NULL,
    group_index integer NOT NULL,
    generation bigint NOT NULL CHECK (generation >= 1),
    group_id text NOT NULL,
    tenant text NOT NULL,
    provider_id text NOT NULL REFERENCES provider (provider_id),
    provider_account text NOT NULL,
    provider_address text NOT NULL,
    offer_id text NOT NULL REFERENCES offer (offer_id),
    asset text NOT NULL,
    price_micros bigint NOT NULL CHECK (price_micros >= 0),
    placements jsonb NOT NULL,
    self_stop_ms bigint NOT NULL CHECK (self_stop_ms > 0),
    state text NOT NULL CHECK (
        state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED', 'STOPPING', 'LOST', 'ENDED')
    ),
    endpoints jsonb NOT NULL,
    create_time timestamptz(3) NOT NULL,
    accept_time timestamptz(3),
    ready_time timestamptz(3),
    end_time timestamptz(3),
    charge_through_time timestamptz(3),
    release_time timestamptz(3),
    evidence jsonb,
    proof_sequence bigint NOT NULL DEFAULT 0,
    proof_running_ms bigint NOT NULL DEFAULT 0,
    proof_final boolean NOT NULL DEFAULT false,
    -- Grows with each change; watches compare it.
    revision bigint NOT NULL DEFAULT 1,
    UNIQUE (order_id, group_index, generation),
    FOREIGN KEY (order_id, group_index) REFERENCES order_group (order_id, group_index),
    CHECK ((end_time IS NULL) = (state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED'))),
    CHECK ((end_time IS NULL) = (charge_through_time IS NULL)),
    CHECK ((release_time IS NULL) = (state <> 'ENDED'))
);

-- A group has at most one lease that the tenant still has.
CREATE UNIQUE INDEX lease_live ON lease (order_id, group_index)
WHERE state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED');
CREATE INDEX lease_holding ON lease (provider_id) WHERE state <> 'ENDED';
CREATE INDEX lease_tenant ON lease (tenant, lease_id);
CREATE INDEX lease_provider ON lease (provider_id, lease_id);

-- What leases hold of devices and nodes; rows go when the provider has said that nothing of the lease runs.
CREATE TABLE device_use (
    lease_id text NOT NULL REFERENCES lease (lease_id),
    provider_id text NOT NULL,
    node_id text NOT NULL,
    device_id text NOT NULL,
    milli integer NOT NULL CHECK (milli BETWEEN 1 AND 1000)
);

CREATE INDEX device_use_lease ON device_use (lease_id);
CREATE INDEX device_use_provider ON device_use (provider_id);

CREATE TABLE node_use (
    lease_id text NOT NULL REFERENCES lease (lease_id),
    provider_id text NOT NULL,
    node_id text NOT NULL,
    cpu_milli bigint NOT NULL CHECK (cpu_milli >= 0),
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    storage_bytes_by_class jsonb NOT NULL,
    PRIMARY KEY (lease_id, node_id)
);

CREATE INDEX node_use_provider ON node_use (provider_id);

-- The sum of device_use by device. The CHECK is what forbids that a device is sold twice, whoever writes.
CREATE TABLE device_capacity (
    provider_id text NOT NULL,
    device_id text NOT NULL,
    milli_used integer NOT NULL CONSTRAINT device_not_oversold CHECK (milli_used BETWEEN 0 AND 1000),
    PRIMARY KEY (provider_id, device_id)
);

CREATE FUNCTION count_device_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO device_capacity (provider_id, device_id, milli_used)
        VALUES (NEW.provider_id, NEW.device_id, NEW.milli)
        ON CONFLICT (provider_id, device_id)
        DO UPDATE SET milli_used = device_capacity.milli_used + EXCLUDED.milli_used;
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE device_capacity SET milli_used = milli_used - OLD.milli
        WHERE provider_id = OLD.provider_id AND device_id = OLD.device_id;
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'a use of a device is made and dropped, never changed';
END;
$$;

CREATE TRIGGER device_use_counts BEFORE INSERT OR UPDATE OR DELETE ON device_use
FOR EACH ROW EXECUTE FUNCTION count_device_use();

CREATE TABLE command (
    command_id text PRIMARY KEY,
    lease_id text NOT NULL REFERENCES lease (lease_id),
    provider_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('RUN', 'STOP')),
    -- Why a lease is stopped; empty for RUN.
    stop_reason text NOT NULL,
    create_time timestamptz(3) NOT NULL,
    next_send_time timestamptz(3) NOT NULL,
    sends integer NOT NULL DEFAULT 0,
    -- ACCEPTED or REFUSED by the agent; DROPPED when a later command made this one moot.
    outcome text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'ACCEPTED', 'REFUSED', 'DROPPED')),
    outcome_time timestamptz(3),
    reason text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    UNIQUE (lease_id, kind)
);

CREATE INDEX command_due ON command (next_send_time) WHERE outcome = '';

-- One row: when the market was last surely there.
CREATE TABLE market_pulse (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    pulse_time timestamptz(3) NOT NULL
);

CREATE TABLE market_outage (
    start_time timestamptz(3) PRIMARY KEY,
    end_time timestamptz(3) NOT NULL,
    CHECK (start_time <= end_time)
);

CREATE INDEX market_outage_end ON market_outage (end_time);
