-- name: insert_metering
INSERT INTO metering (order_id, group_index, generation, lease_id, tenant_id, provider_id, provider_account_id,
                      provider_public_key, asset, price_micros_per_hour, take_basis_points, pool_basis_points,
                      heartbeat_interval_ms, start_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: has_metering
SELECT EXISTS (SELECT 1 FROM metering WHERE order_id = $1);

-- name: lock_meterings_of_order
SELECT * FROM metering WHERE order_id = $1 ORDER BY lease_id FOR NO KEY UPDATE;

-- name: load_meterings_of_order
SELECT * FROM metering WHERE order_id = $1 ORDER BY lease_id;

-- name: lock_meterings_to_charge
-- What charging needs: without the receipts that a meter keeps, which are most of a row.
SELECT order_id, group_index, generation, lease_id, tenant_id, provider_id, provider_account_id, provider_public_key,
       asset, price_micros_per_hour, take_basis_points, pool_basis_points, heartbeat_interval_ms, start_time, ready,
       ended, proven_ms, slack_ms, charge_through_time, final, charge_sequence, charged_ms, charged_micros,
       early_close_ms, NULL::jsonb AS recent
FROM metering
WHERE order_id = ANY ($1::text[])
ORDER BY lease_id
FOR NO KEY UPDATE;

-- name: lock_meterings
SELECT * FROM metering WHERE lease_id = ANY ($1::text[]) ORDER BY lease_id FOR NO KEY UPDATE;

-- name: update_metering
UPDATE metering
SET ready = $2, ended = $3, proven_ms = $4, slack_ms = $5, charge_through_time = $6, final = $7, recent = $8,
    charge_sequence = $9, charged_ms = $10, charged_micros = $11, early_close_ms = $12
WHERE lease_id = $1;

-- name: update_charged
UPDATE metering
SET charge_sequence = new.charge_sequence, charged_ms = new.charged_ms, charged_micros = new.charged_micros
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
     AS new (lease_id, charge_sequence, charged_ms, charged_micros)
WHERE metering.lease_id = new.lease_id;

-- name: park_proof
INSERT INTO parked_proof (lease_id, sequence, provider_id, receive_time, outage_ms, proof)
SELECT $1, $2, $3, $4, $5, $6
WHERE (SELECT count(*) FROM parked_proof WHERE provider_id = $3) < $7
ON CONFLICT DO NOTHING;

-- name: take_parked_proofs
WITH taken AS (
    DELETE FROM parked_proof WHERE lease_id = $1
    RETURNING lease_id, sequence, provider_id, receive_time, outage_ms, proof
)
SELECT * FROM taken ORDER BY receive_time, sequence;

-- name: drop_old_parked_proofs
DELETE FROM parked_proof WHERE receive_time < $1;

-- name: load_charge
SELECT charge.*, batch_charge.batch_number, batch_charge.leaf_index
FROM charge
LEFT JOIN batch_charge ON batch_charge.charge_id = charge.id
WHERE charge.id = $1;

-- name: list_charges
SELECT charge.*, batch_charge.batch_number, batch_charge.leaf_index
FROM charge
LEFT JOIN batch_charge ON batch_charge.charge_id = charge.id
WHERE (charge.tenant_id = $1 OR charge.provider_account_id = $1)
  AND ($2::text = '' OR charge.order_id = $2)
  AND ($3::timestamptz IS NULL OR (charge.create_time, charge.id) < ($3, $4::text))
ORDER BY charge.create_time DESC, charge.id DESC
LIMIT $5;
