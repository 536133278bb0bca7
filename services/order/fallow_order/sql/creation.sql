-- name: insert_orders
-- New orders with all that belongs to them, in one way there and back: groups, first changes and sealed workloads.
WITH new_orders AS (
    INSERT INTO orders (
        id, account, state, specification, labels, asset, hold_micros, budget_micros, auto_top_up, match_timeout_ms,
        term_ms, created_at, updated_at, close_detail, charged_micros, refunded_micros, held_micros, end_confirmed,
        escrow_closed, due_at, revision, sequence, event_version
    )
    SELECT
        id, account, 'PENDING', specification, labels::jsonb, asset, hold_micros, budget_micros, auto_top_up,
        match_timeout_ms, term_ms, created_at, created_at, '', 0, 0, 0, false, false, due_at, 1, 1, 0
    FROM unnest(
        $1::text [], $2::text [], $3::bytea [], $4::text [], $5::text [], $6::bigint [], $7::bigint [],
        $8::boolean [], $9::bigint [], $10::bigint [], $11::timestamptz [], $12::timestamptz []
    ) AS new (
        id, account, specification, labels, asset, hold_micros, budget_micros, auto_top_up, match_timeout_ms, term_ms,
        created_at, due_at
    )
), new_changes AS (
    INSERT INTO order_transition (order_id, sequence, source_state, target_state, reason, transition_at)
    SELECT order_id, 1, NULL, 'PENDING', reason, transition_at
    FROM unnest($1::text [], $13::text [], $11::timestamptz []) AS new (order_id, reason, transition_at)
), new_groups AS (
    INSERT INTO order_group (
        order_id, index, group_id, state, generation, highest_generation, lease, provider, price_asset,
        price_micros_per_hour, endpoints
    )
    SELECT order_id, index, group_id, 'OPEN', 0, 0, '', '', '', 0, '[]'
    FROM unnest($14::text [], $15::integer [], $16::text []) AS new (order_id, index, group_id)
)
INSERT INTO workload (order_id, group_index, key_id, nonce, ciphertext)
SELECT * FROM unnest($14::text [], $15::integer [], $17::text [], $18::bytea [], $19::bytea []);

-- name: lock_revisions
-- In the order of the ids, so that two groups that share orders never wait for each other.
SELECT id, revision FROM orders WHERE id = ANY ($1::text []) ORDER BY id FOR UPDATE;

-- name: open_orders
-- Marks PENDING orders OPEN, notes the change of each and wakes who watches it; one row for each that was as expected.
WITH opened AS (
    UPDATE orders SET
        state = 'OPEN', held_micros = new.held_micros, opened_at = $6, updated_at = $6, due_at = new.due_at,
        revision = new.revision, sequence = new.sequence, event_version = new.event_version
    FROM unnest(
        $1::text [], $2::bigint [], $3::timestamptz [], $4::bigint [], $5::bigint [], $7::bigint []
    ) AS new (id, held_micros, due_at, revision, sequence, event_version)
    WHERE orders.id = new.id AND orders.state = 'PENDING' AND orders.revision = new.revision - 1
    RETURNING orders.id, orders.sequence
), changed AS (
    INSERT INTO order_transition (order_id, sequence, source_state, target_state, reason, transition_at)
    SELECT id, sequence, 'PENDING', 'OPEN', $8, $6 FROM opened
)
SELECT id, pg_notify($9, id) FROM opened;

-- name: lock_pending
SELECT id FROM orders WHERE id = ANY ($1::text []) AND state = 'PENDING' ORDER BY id FOR UPDATE;

-- name: withdraw_orders
-- Forgets orders whose rows are locked; a job releases their escrows.
WITH gone AS (
    DELETE FROM orders WHERE id = ANY ($1::text []) RETURNING id, account
), noted AS (
    INSERT INTO escrow_release (order_id, created_at, due_at) SELECT id, $2, $2 FROM gone ON CONFLICT DO NOTHING
)
SELECT id, account, pg_notify($3, id) FROM gone;
