-- name: lock_online_count
INSERT INTO online_count (market, count_time) VALUES ($1, $2)
ON CONFLICT (market) DO UPDATE SET count_time = online_count.count_time
RETURNING count_time

-- name: save_online_count
UPDATE online_count SET count_time = $2 WHERE market = $1

-- name: load_online_devices
-- Healthy devices of providers that were heard since an instant and take leases, by model and asset in which it is offered.
SELECT provider.provider_id, device.model, offer.asset, count(*)::bigint AS devices,
    (offer.prices -> 'gpu_micros_by_model' ->> device.model)::bigint AS ask_micros,
    provider.attributes, provider.auditor_signatures
FROM provider
INNER JOIN device ON device.provider_id = provider.provider_id AND device.health = 'HEALTHY'
INNER JOIN offer ON offer.provider_id = provider.provider_id AND offer.state = 'ACTIVE'
WHERE provider.market = $1 AND provider.reachable AND NOT provider.draining AND provider.heartbeat_time >= $2
    AND (offer.expire_time IS NULL OR offer.expire_time > $3)
    AND offer.prices -> 'gpu_micros_by_model' ? device.model
GROUP BY provider.provider_id, device.model, offer.offer_id

-- name: add_online_time
INSERT INTO online_time (provider_id, model, asset, auditor, start_time, online_ms, ask_micros)
SELECT provider_id, model, asset, auditor, $7, online_ms, ask_micros
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
    AS counted (provider_id, model, asset, auditor, online_ms, ask_micros)
ON CONFLICT (start_time, provider_id, model, asset, auditor) DO UPDATE SET
online_ms = online_time.online_ms + EXCLUDED.online_ms,
ask_micros = GREATEST(online_time.ask_micros, EXCLUDED.ask_micros)

-- name: take_online_hours
-- The oldest hours that are over, of some providers, and no longer kept; of other markets those that nobody took in time.
WITH due AS (
    SELECT DISTINCT online_time.start_time, online_time.provider_id
    FROM online_time
    INNER JOIN provider USING (provider_id)
    WHERE start_time < $2 AND (market = $1 OR start_time < $3)
    ORDER BY start_time, provider_id
    LIMIT $4
)

DELETE FROM online_time USING due
WHERE online_time.start_time = due.start_time AND online_time.provider_id = due.provider_id
RETURNING online_time.*
