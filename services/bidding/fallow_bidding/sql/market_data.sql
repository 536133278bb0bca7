-- name: load_stocks
SELECT
    device.provider_id,
    device.model,
    count(*)::int AS devices,
    (count(*) FILTER (WHERE device.health = 'HEALTHY'))::int AS healthy_devices,
    (count(*) FILTER (
        WHERE device.health IN ('HEALTHY', 'UNKNOWN') AND coalesce(device_capacity.milli_used, 0) = 0
    ))::int AS free_devices,
    coalesce(sum(device_capacity.milli_used), 0)::bigint AS leased_milli
FROM provider
INNER JOIN device ON device.provider_id = provider.provider_id
LEFT JOIN device_capacity
    ON device_capacity.provider_id = device.provider_id AND device_capacity.device_id = device.device_id
WHERE provider.market = $1
GROUP BY device.provider_id, device.model
ORDER BY device.provider_id, device.model

-- name: insert_trade
INSERT INTO trade (market, lease_id, model, asset, devices_milli, price_micros, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: load_newest_trade
SELECT coalesce(max(sequence), 0) FROM trade WHERE market = $1

-- name: load_trades
SELECT sequence, model, asset, devices_milli, price_micros, create_time FROM trade
WHERE market = $1 AND sequence > $2
ORDER BY sequence
LIMIT $3

-- name: load_last_trades
-- From one model and asset to the next by the index, whatever the number of trades.
WITH RECURSIVE newest AS (
    (
        SELECT model, asset, price_micros, create_time FROM trade
        WHERE market = $1
        ORDER BY model, asset, sequence DESC
        LIMIT 1
    )
    UNION ALL
    SELECT later.model, later.asset, later.price_micros, later.create_time
    FROM newest
    CROSS JOIN LATERAL (
        SELECT model, asset, price_micros, create_time FROM trade
        WHERE market = $1 AND (model, asset) > (newest.model, newest.asset)
        ORDER BY model, asset, sequence DESC
        LIMIT 1
    ) AS later
)

SELECT model, asset, price_micros, create_time FROM newest

-- name: load_mean_prices
-- The mean over the time from $2 to $3, each device of a lease weighted by how long it was leased in it, at least 1 ms.
SELECT
    model,
    asset,
    round(sum(price_micros * weight) / sum(weight))::bigint AS mean_micros
FROM (
    SELECT
        trade.model,
        trade.asset,
        trade.price_micros,
        trade.devices_milli * greatest(
            1, extract(epoch FROM coalesce(lease.end_time, $3) - greatest(lease.create_time, $2)) * 1000
        ) AS weight
    FROM trade
    INNER JOIN lease ON lease.lease_id = trade.lease_id
    WHERE trade.market = $1 AND (lease.end_time IS NULL OR lease.end_time > $2)
) AS ran
GROUP BY model, asset

-- name: sweep_trades
DELETE FROM trade USING lease
WHERE trade.create_time < $1 AND lease.lease_id = trade.lease_id AND lease.end_time < $1
