-- name: insert_orders
INSERT INTO orders (
    id, account, state, specification, labels, asset, hold_micros, budget_micros, auto_top_up, match_timeout_ms,
    term_ms, created_at, updated_at, close_detail, charged_micros, refunded_micros, held_micros, end_confirmed,
    escrow_closed, due_at, revision, sequence, event_version
)
SELECT
    id, account, 'PENDING', specification, labels::jsonb, asset, hold_micros, budget_micros, auto_top_up,
    match_timeout_ms, term_ms, created_at, created_at, '', 0, 0, 0, false, false, due_at, 1, sequence, 0
FROM unnest(
    $1::text [], $2::text [], $3::bytea [], $4::text [], $5::text [], $6::bigint [], $7::bigint [], $8::boolean [],
    $9::bigint [], $10::bigint [], $11::timestamptz [], $12::timestamptz [], $13::bigint []
) AS new (
    id, account, specification, labels, asset, hold_micros, budget_micros, auto_top_up, match_timeout_ms, term_ms,
    created_at, due_at, sequence
);

-- name: insert_groups
INSERT INTO order_group (
    order_id, index, group_id, state, generation, highest_generation, lease, provider, price_asset,
    price_micros_per_hour, endpoints
)
SELECT order_id, index, group_id, 'OPEN', 0, 0, '', '', '', 0, '[]'
FROM unnest($1::text [], $2::integer [], $3::text []) AS new (order_id, index, group_id);

-- name: insert_workloads
INSERT INTO workload (order_id, group_index, key_id, nonce, ciphertext)
SELECT * FROM unnest($1::text [], $2::integer [], $3::text [], $4::bytea [], $5::bytea []);

-- name: lock_revisions
-- In the order of the ids, so that two groups that share orders never wait for each other.
SELECT id, revision FROM orders WHERE id = ANY ($1::text []) ORDER BY id FOR UPDATE;

-- name: open_orders
UPDATE orders SET
    state = 'OPEN', held_micros = new.held_micros, opened_at = new.opened_at, due_at = new.due_at,
    revision = new.revision, sequence = new.sequence, event_version = new.event_version, updated_at = $8
FROM unnest(
    $1::text [], $2::bigint [], $3::timestamptz [], $4::timestamptz [], $5::bigint [], $6::bigint [], $7::bigint []
) AS new (id, held_micros, opened_at, due_at, revision, sequence, event_version)
WHERE orders.id = new.id AND orders.state = 'PENDING' AND orders.revision = new.revision - 1;
