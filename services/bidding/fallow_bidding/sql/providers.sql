-- name: insert_provider
INSERT INTO provider (
    provider_id, account, display_name, public_key, region, attributes, auditor_signatures, address, market, create_time
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (public_key) DO NOTHING
RETURNING provider_id

-- name: load_provider
SELECT * FROM provider WHERE provider_id = $1

-- name: lock_provider
SELECT * FROM provider WHERE provider_id = $1 FOR NO KEY UPDATE

-- name: load_provider_by_key
SELECT * FROM provider WHERE public_key = $1

-- name: list_providers
SELECT * FROM provider
WHERE ($1 = '' OR account = $1)
    AND ($2 = '' OR provider_id < $2)
    AND (cardinality($4::text[]) = 0 OR CASE
        WHEN heartbeat_time IS NULL THEN CASE WHEN draining THEN 'DRAINING' ELSE 'REGISTERED' END
        WHEN NOT reachable THEN 'UNREACHABLE'
        WHEN draining THEN 'DRAINING'
        ELSE 'ONLINE'
    END = ANY($4::text[]))
    AND (cardinality($5::text[]) = 0 OR region = ANY($5::text[]))
    AND (cardinality($6::text[]) = 0 OR EXISTS (
        SELECT 1 FROM device WHERE device.provider_id = provider.provider_id AND device.model = ANY($6::text[])
    ))
    AND reputation_milli >= $7
    AND ($8 = '' OR EXISTS (
        SELECT 1 FROM jsonb_array_elements(auditor_signatures) AS signature, jsonb_each_text(signature -> 1) AS signed
        WHERE signature ->> 0 = $8 AND attributes ->> signed.key = signed.value
    ))
ORDER BY provider_id DESC
LIMIT $3

-- name: load_market_providers
SELECT * FROM provider WHERE market = $1

-- name: update_provider_profile
UPDATE provider SET display_name = $2, attributes = $3, auditor_signatures = $4, address = $5
WHERE provider_id = $1

-- name: set_provider_draining
UPDATE provider SET draining = $2 WHERE provider_id = $1

-- name: next_market_version
UPDATE provider SET market_version = market_version + 1 WHERE provider_id = $1 RETURNING market_version

-- name: take_heartbeat_number
-- Heartbeats may come late, through a process that was stopped or a connection that hung. The last lives are remembered.
WITH held AS (
    SELECT provider_id, boot_id, heartbeat_sequence, past_boot_ids FROM provider WHERE provider_id = $1 FOR NO KEY UPDATE
),

judged AS (
    SELECT held.*, CASE WHEN boot_id = $2 THEN $3 >= heartbeat_sequence ELSE NOT $2 = ANY(past_boot_ids) END AS is_new
    FROM held
),

taken AS (
    UPDATE provider SET
        heartbeat_sequence = $3::bigint,
        past_boot_ids = CASE
            WHEN judged.boot_id IN ($2, '') THEN judged.past_boot_ids
            ELSE (ARRAY[judged.boot_id] || judged.past_boot_ids)[1:16]
        END,
        boot_id = $2
    FROM judged
    WHERE provider.provider_id = judged.provider_id AND judged.is_new
)

SELECT is_new FROM judged

-- name: record_heartbeat
UPDATE provider SET heartbeat_time = $2, boot_id = $3, reachable = true WHERE provider_id = $1

-- name: set_provider_unreachable
UPDATE provider SET reachable = false WHERE provider_id = $1 AND reachable

-- name: load_silent_providers
SELECT provider_id, heartbeat_time, reachable FROM provider
WHERE heartbeat_time < $1
    AND (reachable OR EXISTS (
        SELECT 1 FROM lease
        WHERE lease.provider_id = provider.provider_id
            AND lease.state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED')
    ))
ORDER BY provider_id
LIMIT $2

-- name: record_inventory
UPDATE provider SET inventory_sequence = $2, inventory_time = $3 WHERE provider_id = $1

-- name: delete_nodes
DELETE FROM node WHERE provider_id = $1

-- name: delete_some_nodes
DELETE FROM node WHERE provider_id = $1 AND node_id = ANY($2::text[])

-- name: insert_node
INSERT INTO node (provider_id, node_id, cpu_milli, memory_bytes, storage_bytes_by_class, drivers)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: insert_device
INSERT INTO device (provider_id, device_id, node_id, vendor, model, vram_bytes, interface, health, source)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: load_nodes
SELECT * FROM node WHERE provider_id = ANY($1::text[]) ORDER BY provider_id, node_id

-- name: load_devices
SELECT * FROM device WHERE provider_id = ANY($1::text[]) ORDER BY provider_id, device_id

-- name: insert_offer
INSERT INTO offer (offer_id, provider_id, asset, prices, term_ms_max, expire_time, state, create_time)
VALUES ($1, $2, $3, $4, $5, $6, 'ACTIVE', $7)

-- name: load_offer
SELECT * FROM offer WHERE offer_id = $1

-- name: list_offers
SELECT * FROM offer
WHERE ($1 = '' OR provider_id = $1) AND ($2 = '' OR offer_id < $2)
ORDER BY offer_id DESC
LIMIT $3

-- name: load_active_offers
SELECT * FROM offer WHERE state = 'ACTIVE' AND provider_id = ANY($1::text[])

-- name: withdraw_offer
UPDATE offer SET state = 'WITHDRAWN' WHERE offer_id = $1 AND state = 'ACTIVE' RETURNING offer_id

-- name: withdraw_active_offer
UPDATE offer SET state = 'WITHDRAWN' WHERE provider_id = $1 AND asset = $2 AND state = 'ACTIVE' RETURNING offer_id
