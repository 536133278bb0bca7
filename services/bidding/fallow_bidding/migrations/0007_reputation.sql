-- What reputation is made of: silences of providers, tallies of the leases of settled days, and each provider's parts.

ALTER TABLE provider
ALTER COLUMN reputation_milli SET DEFAULT 500,
ADD COLUMN reliability_milli integer NOT NULL DEFAULT 500 CHECK (reliability_milli BETWEEN 0 AND 1000),
ADD COLUMN uptime_week_milli integer NOT NULL DEFAULT 500 CHECK (uptime_week_milli BETWEEN 0 AND 1000),
ADD COLUMN uptime_month_milli integer NOT NULL DEFAULT 500 CHECK (uptime_month_milli BETWEEN 0 AND 1000),
ADD COLUMN start_success_milli integer NOT NULL DEFAULT 500 CHECK (start_success_milli BETWEEN 0 AND 1000),
-- Null where no start was timed.
ADD COLUMN time_to_start_ms bigint CHECK (time_to_start_ms >= 0),
ADD COLUMN early_closes bigint NOT NULL DEFAULT 0 CHECK (early_closes >= 0),
ADD COLUMN lease_count bigint NOT NULL DEFAULT 0 CHECK (lease_count >= 0),
-- When all of these were computed; null before the first time.
ADD COLUMN reputation_time timestamptz(3),
-- The last day of which the leases are tallied; null where none is.
ADD COLUMN tallied_day date;

UPDATE provider SET reputation_milli = 500;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX provider_reputation_time ON provider (market, reputation_time NULLS FIRST);

-- From one heartbeat to the next, where that took longer than a provider may be silent.
CREATE TABLE provider_silence (
    provider_id text NOT NULL REFERENCES provider (provider_id),
    start_time timestamptz(3) NOT NULL,
    end_time timestamptz(3) NOT NULL,
    PRIMARY KEY (provider_id, start_time),
    CHECK (start_time < end_time)
);

-- The leases that ended at a provider on one day (UTC), but those of its own account.
CREATE TABLE reputation_day (
    provider_id text NOT NULL REFERENCES provider (provider_id),
    day date NOT NULL,
    leases bigint NOT NULL CHECK (leases >= 0),
    early_closes bigint NOT NULL CHECK (early_closes >= 0),
    starts_milli bigint NOT NULL CHECK (starts_milli >= 0),
    starts_failed bigint NOT NULL CHECK (starts_failed >= 0),
    paid_ms bigint NOT NULL CHECK (paid_ms >= 0),
    PRIMARY KEY (provider_id, day)
);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX lease_provider_end ON lease (provider_id, end_time);
