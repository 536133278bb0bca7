-- name: insert_order
INSERT INTO market_order (
    order_id, tenant, market, body, state, term_ms, forbids_overlap, end_reason, end_detail, end_time, create_time,
    open_time, match_timeout_ms, match_due_time, together, gpu_models, auction_mode
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (order_id) DO NOTHING
RETURNING order_id

-- name: update_order_body
UPDATE market_order SET body = $2, term_ms = $3, forbids_overlap = $4, gpu_models = $5 WHERE order_id = $1

-- name: insert_group
INSERT INTO order_group (order_id, group_index, group_id, state, revision) VALUES ($1, $2, $3, 'OPEN', $4)

-- name: load_order
SELECT * FROM market_order WHERE order_id = $1

-- name: lock_orders
SELECT * FROM market_order WHERE order_id = ANY($1::text[]) ORDER BY order_id FOR NO KEY UPDATE

-- name: list_looking_orders
SELECT looking.order_id FROM (
    SELECT order_id FROM order_group
    WHERE order_id > $2 AND state = 'OPEN' AND NOT EXISTS (
        SELECT 1 FROM auction
        WHERE auction.order_id = order_group.order_id AND auction.group_index = order_group.group_index
            AND auction.state = 'OPEN' AND (auction.mode = 'MANUAL' OR auction.close_time > $4)
    )
    UNION
    SELECT order_id FROM order_group WHERE order_id > $2 AND state = 'LEASED' AND leased_revision < revision
) AS looking
INNER JOIN market_order AS open_order USING (order_id)
WHERE open_order.market = $1 AND open_order.state = 'OPEN' AND NOT open_order.suspended
ORDER BY looking.order_id
LIMIT $3

-- name: lock_open_orders
SELECT * FROM market_order
WHERE market = $1 AND state = 'OPEN' AND (
    (order_id = ANY($2::text[]) AND NOT suspended)
    OR order_id IN (SELECT order_id FROM lease WHERE preempt_time IS NOT NULL)
    OR order_id IN (SELECT preempt_order_id FROM lease WHERE preempt_time IS NOT NULL)
)
ORDER BY order_id
FOR NO KEY UPDATE

-- name: load_recent_bodies
SELECT order_id, body FROM market_order WHERE market = $1 AND body IS NOT NULL ORDER BY order_id DESC LIMIT $2

-- name: load_groups
SELECT * FROM order_group WHERE order_id = ANY($1::text[]) ORDER BY order_id, group_index

-- name: save_group
UPDATE order_group
SET state = $3, generation = $4, excluded_providers = $5, failures = $6, hold_until = $7, return_time = $8
WHERE order_id = $1 AND group_index = $2

-- name: set_leased_revision
UPDATE order_group SET leased_revision = $3 WHERE order_id = $1 AND group_index = $2

-- name: raise_revision
-- Who failed an older workload, and how often it failed, says nothing about the new one.
UPDATE order_group SET revision = $3, excluded_providers = '{}', failures = 0, return_time = NULL
WHERE order_id = $1 AND group_index = $2 AND revision < $3

-- name: clear_hold
UPDATE order_group SET hold_until = NULL WHERE order_id = $1 AND group_index = $2 AND generation = $3

-- name: save_decision
UPDATE order_group SET decision = $3
WHERE order_id = $1 AND group_index = $2 AND decision IS DISTINCT FROM $3

-- name: next_lease_version
UPDATE market_order SET lease_version = lease_version + 1 WHERE order_id = $1 RETURNING lease_version

-- name: set_order_ready
UPDATE market_order SET ready_time = $2 WHERE order_id = $1 AND ready_time IS NULL

-- name: end_order
UPDATE market_order SET state = 'ENDED', end_reason = $2, end_detail = $3, end_time = $4
WHERE order_id = $1 AND state = 'OPEN'

-- name: set_suspended
UPDATE market_order SET suspended = $2, suspension_number = $3 WHERE order_id = $1

-- name: end_groups
UPDATE order_group SET state = 'ENDED' WHERE order_id = $1

-- name: load_match_due
SELECT order_id FROM market_order
WHERE state = 'OPEN' AND match_due_time <= $1
ORDER BY match_due_time
LIMIT $2

-- name: set_match_due
UPDATE market_order SET match_due_time = $2 WHERE order_id = $1

-- name: set_match_time
UPDATE market_order SET match_time = $2 WHERE order_id = $1 AND match_time IS NULL

-- name: load_match_wait_of_models
SELECT count(*)::int AS samples, percentile_disc(0.5) WITHIN GROUP (ORDER BY wait_ms) AS median_ms
FROM (
    SELECT (extract(epoch FROM match_time - open_time) * 1000)::bigint AS wait_ms FROM market_order
    WHERE market = $1 AND match_time >= $2 AND gpu_models = $3::text[]
    ORDER BY match_time DESC
    LIMIT $4
) AS newest

-- name: load_match_wait
SELECT count(*)::int AS samples, percentile_disc(0.5) WITHIN GROUP (ORDER BY wait_ms) AS median_ms
FROM (
    SELECT (extract(epoch FROM match_time - open_time) * 1000)::bigint AS wait_ms FROM market_order
    WHERE market = $1 AND match_time >= $2
    ORDER BY match_time DESC
    LIMIT $3
) AS newest

-- name: load_expired_terms
SELECT order_id FROM market_order
WHERE state = 'OPEN' AND term_ms IS NOT NULL AND ready_time + term_ms * interval '1 millisecond' <= $1
ORDER BY order_id
LIMIT $2
