-- name: insert_lease
INSERT INTO lease (
    lease_id, order_id, group_index, generation, group_id, tenant, provider_id, provider_account, provider_address,
    offer_id, asset, price_micros, placements, self_stop_ms, state, endpoints, create_time, group_revision,
    spot, limit_micros
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'RESERVED', '[]', $15, $16, $17, $18)

-- name: save_lease
UPDATE lease
SET state = $2, endpoints = $3, accept_time = $4, ready_time = $5, end_time = $6, charge_through_time = $7,
    release_time = $8, evidence = $9
WHERE lease_id = $1

-- name: save_proof_mark
UPDATE lease SET proof_sequence = $2, proof_running_ms = $3, proof_final = $4 WHERE lease_id = $1

-- name: load_lease
SELECT * FROM lease WHERE lease_id = $1

-- name: load_leases
SELECT * FROM lease WHERE lease_id = ANY($1::text[])

-- name: load_holding_leases
SELECT * FROM lease WHERE provider_id = $1 AND state <> 'ENDED' ORDER BY lease_id

-- name: load_generation_lease
SELECT * FROM lease WHERE order_id = $1 AND group_index = $2 AND generation = $3

-- name: load_node_uses_of_lease
SELECT node_id, cpu_milli, memory_bytes, storage_bytes_by_class FROM node_use WHERE lease_id = $1

-- name: load_node_uses_of_leases
SELECT lease_id, node_id, cpu_milli, memory_bytes, storage_bytes_by_class FROM node_use
WHERE lease_id = ANY($1::text[])

-- name: save_preemption
UPDATE lease SET preempt_time = $2, preempt_order_id = $3, preempt_group_index = $4 WHERE lease_id = $1

-- name: load_noticed
SELECT lease.* FROM lease
INNER JOIN market_order USING (order_id)
WHERE preempt_time IS NOT NULL AND market = $1
ORDER BY lease_id

-- name: load_preemptible
SELECT lease.* FROM lease
INNER JOIN market_order USING (order_id)
WHERE spot AND lease.state = 'RUNNING' AND preempt_time IS NULL AND lease.ready_time <= $2 AND market = $1
ORDER BY price_micros, lease_id
LIMIT $3

-- name: load_preemptions_due
SELECT * FROM lease
WHERE preempt_time <= $1 AND state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED')
ORDER BY lease_id
LIMIT $2

-- name: load_order_leases
SELECT * FROM lease WHERE order_id = $1 ORDER BY lease_id

-- name: list_leases
SELECT * FROM lease
WHERE ($1 = '' OR tenant = $1 OR provider_account = $1)
    AND ($2 = '' OR order_id = $2)
    AND ($3 = '' OR provider_id = $3)
    AND (cardinality($4::text[]) = 0 OR state = ANY($4::text[]))
    AND ($5 = '' OR lease_id < $5)
ORDER BY lease_id DESC
LIMIT $6

-- name: load_overdue_leases
SELECT lease_id, order_id FROM lease
WHERE (state = 'RESERVED' AND create_time < $1) OR (state = 'STARTING' AND accept_time < $2)
ORDER BY order_id, lease_id
LIMIT $3

-- name: insert_device_use
INSERT INTO device_use (lease_id, provider_id, node_id, device_id, milli) VALUES ($1, $2, $3, $4, $5)

-- name: insert_node_use
INSERT INTO node_use (lease_id, provider_id, node_id, cpu_milli, memory_bytes, storage_bytes_by_class)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: delete_device_uses
DELETE FROM device_use WHERE lease_id = $1

-- name: delete_node_uses
DELETE FROM node_use WHERE lease_id = $1

-- name: load_device_uses
SELECT * FROM device_use WHERE provider_id = ANY($1::text[]) ORDER BY provider_id, device_id, lease_id

-- name: load_node_uses
SELECT * FROM node_use WHERE provider_id = ANY($1::text[])

-- name: load_fixed_ends
-- Live leases of orders whose longest running time counts, the soonest to end first.
SELECT lease.*, market_order.ready_time + market_order.term_ms * interval '1 millisecond' AS fixed_end
FROM market_order
INNER JOIN lease ON lease.order_id = market_order.order_id
WHERE market_order.market = $1 AND market_order.state = 'OPEN' AND market_order.term_ms IS NOT NULL
    AND market_order.ready_time IS NOT NULL AND lease.state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED')
ORDER BY fixed_end, lease.lease_id
LIMIT $2

