-- name: load_reputation_due
SELECT provider_id FROM provider
WHERE market = $1 AND (reputation_time IS NULL OR reputation_time < $2)
ORDER BY reputation_time NULLS FIRST
LIMIT $3

-- name: load_lease_facts
SELECT
    lease.create_time, lease.accept_time, lease.ready_time, lease.end_time, lease.evidence, lease.proof_running_ms,
    lease.price_micros,
    EXISTS (
        SELECT 1 FROM lease AS later
        WHERE later.order_id = lease.order_id AND later.group_index = lease.group_index
            AND later.generation > lease.generation AND later.provider_id <> lease.provider_id
            AND later.ready_time <= lease.end_time + $3
    ) AS ran_elsewhere
FROM lease
WHERE lease.provider_id = $1 AND lease.tenant <> lease.provider_account
    AND (lease.end_time IS NULL OR lease.end_time >= $2)

-- name: load_tallies
SELECT * FROM reputation_day WHERE provider_id = $1 AND day > $2

-- name: save_tally
INSERT INTO reputation_day (provider_id, day, leases, early_closes, starts_milli, starts_failed, paid_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (provider_id, day) DO UPDATE
SET leases = EXCLUDED.leases, early_closes = EXCLUDED.early_closes, starts_milli = EXCLUDED.starts_milli,
    starts_failed = EXCLUDED.starts_failed, paid_ms = EXCLUDED.paid_ms

-- name: delete_tallies
DELETE FROM reputation_day WHERE provider_id = $1 AND day <= $2

-- name: load_tallied_day
SELECT tallied_day FROM provider WHERE provider_id = $1

-- name: reopen_day
UPDATE provider SET tallied_day = $2::date - 1 WHERE provider_id = $1 AND tallied_day >= $2::date

-- name: save_reputation
UPDATE provider
SET reputation_milli = $2, reliability_milli = $3, uptime_week_milli = $4, uptime_month_milli = $5,
    start_success_milli = $6, time_to_start_ms = $7, early_closes = $8, lease_count = $9, reputation_time = $10,
    tallied_day = $11
WHERE provider_id = $1

-- name: insert_silence
INSERT INTO provider_silence (provider_id, start_time, end_time) VALUES ($1, $2, $3)
ON CONFLICT (provider_id, start_time) DO NOTHING

-- name: load_silences
SELECT start_time, end_time FROM provider_silence WHERE provider_id = $1 AND end_time > $2 ORDER BY start_time

-- name: delete_silences
DELETE FROM provider_silence WHERE provider_id = $1 AND end_time <= $2
