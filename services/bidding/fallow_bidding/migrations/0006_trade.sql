-- Trades: leases as the open market sees them, one row for each model of a lease's devices.

CREATE TABLE trade (
    -- Taken with the market's decisions lock held, so that it grows in the order in which trades commit.
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market text NOT NULL,
    lease_id text NOT NULL REFERENCES lease (lease_id),
    model text NOT NULL,
    asset text NOT NULL,
    devices_milli bigint NOT NULL CHECK (devices_milli > 0),
    price_micros bigint NOT NULL CHECK (price_micros >= 0),
    create_time timestamptz(3) NOT NULL,
    UNIQUE (lease_id, model)
);

CREATE INDEX trade_model ON trade (market, model, asset, sequence DESC);
CREATE INDEX trade_sequence ON trade (market, sequence);
CREATE INDEX trade_create_time ON trade (create_time);
