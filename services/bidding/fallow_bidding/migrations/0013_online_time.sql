-- How long devices were online and offered, in the hour that runs: counted a minute at a time, told of once the hour is over.
CREATE TABLE online_time (
    provider_id text NOT NULL REFERENCES provider (provider_id),
    model text NOT NULL,
    asset text NOT NULL,
    -- Who vouches for the devices; empty for all of them, whoever vouches.
    auditor text NOT NULL,
    start_time timestamptz(3) NOT NULL,
    online_ms bigint NOT NULL CHECK (online_ms >= 0),
    ask_micros bigint NOT NULL CHECK (ask_micros >= 0),
    PRIMARY KEY (start_time, provider_id, model, asset, auditor)
);

-- When devices were counted last, one row a market: its lock lets one process count.
CREATE TABLE online_count (
    market text PRIMARY KEY,
    count_time timestamptz(3) NOT NULL
);
