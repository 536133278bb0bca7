-- name: update_order
UPDATE orders SET
    state = $2, labels = $3, updated_at = $4, opened_at = $5, ready_at = $6, closed_at = $7, close_reason = $8,
    close_detail = $9, charged_micros = $10, refunded_micros = $11, held_micros = $12, end_confirmed = $13,
    escrow_closed = $14, due_at = $15, revision = $16, sequence = $17, event_version = $18
WHERE id = $1 AND revision = $16 - 1;

-- name: load_orders
SELECT * FROM orders WHERE id = ANY ($1::text []);

-- name: load_order
SELECT * FROM orders WHERE id = $1;

-- name: lock_order
SELECT * FROM orders WHERE id = $1 FOR UPDATE;

-- name: list_orders
SELECT * FROM orders
WHERE
    account = $1
    AND id < $2
    AND state = ANY ($3::text [])
    AND labels @> $4::jsonb
    AND created_at >= coalesce($5::timestamptz, '-infinity')
    AND created_at < coalesce($6::timestamptz, 'infinity')
ORDER BY id DESC
LIMIT $7;

-- name: lock_quotas
-- One advisory lock for each key, in the order of the keys, so that two transactions never wait for each other.
SELECT pg_advisory_xact_lock(locks.key)
FROM (
    SELECT DISTINCT hashtextextended(wanted.name, 0) AS key
    FROM unnest($1::text []) AS wanted (name)
    ORDER BY key
) AS locks;

-- name: count_live_orders
-- Each account by its own part of the index, however many are asked for.
SELECT
    wanted.account,
    (SELECT count(*) FROM orders WHERE orders.account = wanted.account AND orders.state <> 'CLOSED') AS live
FROM unnest($1::text []) AS wanted (account);

-- name: list_due
SELECT id FROM orders
WHERE state = $1 AND due_at <= $2
ORDER BY due_at
LIMIT $3;

-- name: postpone_order
UPDATE orders SET due_at = $2 WHERE id = $1 AND due_at IS NOT NULL;

-- name: update_group
UPDATE order_group SET
    state = $3, generation = $4, highest_generation = greatest(highest_generation, $5), lease = $6, provider = $7,
    price_asset = $8, price_micros_per_hour = $9, endpoints = $10
WHERE order_id = $1 AND index = $2;

-- name: load_groups
SELECT * FROM order_group WHERE order_id = ANY ($1::text []) ORDER BY order_id, index;

-- name: raise_generation
UPDATE order_group SET highest_generation = greatest(highest_generation, $3)
WHERE order_id = $1 AND index = $2
RETURNING highest_generation;

-- name: insert_transitions
INSERT INTO order_transition (
    order_id, sequence, source_state, target_state, reason, transition_at, group_id, source_group_state,
    target_group_state, lease, provider, generation
)
SELECT * FROM unnest(
    $1::text [], $2::bigint [], $3::text [], $4::text [], $5::text [], $6::timestamptz [], $7::text [], $8::text [],
    $9::text [], $10::text [], $11::text [], $12::bigint []
);

-- name: load_transitions
SELECT
    sequence, source_state, target_state, reason, transition_at, group_id, source_group_state, target_group_state,
    lease, provider, generation
FROM order_transition
WHERE order_id = $1 AND sequence > $2
ORDER BY sequence
LIMIT $3;

-- name: load_workload
SELECT key_id, nonce, ciphertext FROM workload WHERE order_id = $1 AND group_index = $2 AND revision = $3;

-- name: count_workload_keys
SELECT key_id, count(*) AS workloads FROM workload GROUP BY key_id ORDER BY key_id;

-- name: lock_workloads_of_keys
SELECT order_id, group_index, revision, key_id, nonce, ciphertext
FROM workload
WHERE key_id = ANY ($1::text [])
LIMIT $2
FOR UPDATE SKIP LOCKED;

-- name: reseal_workload
UPDATE workload SET key_id = $4, nonce = $5, ciphertext = $6
WHERE order_id = $1 AND group_index = $2 AND revision = $3;

-- name: delete_workloads
DELETE FROM workload WHERE order_id = $1;

-- name: insert_escrow_release
INSERT INTO escrow_release (order_id, created_at, due_at) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING;

-- name: list_escrow_releases
SELECT order_id FROM escrow_release WHERE due_at <= $1 ORDER BY due_at LIMIT $2;

-- name: postpone_escrow_release
UPDATE escrow_release SET due_at = $2 WHERE order_id = $1;

-- name: delete_escrow_release
DELETE FROM escrow_release WHERE order_id = $1;
