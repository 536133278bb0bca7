-- name: lock_escrow_names
-- One advisory lock for each name, in the order of the keys, so that two transactions never wait for each other.
SELECT pg_advisory_xact_lock(keys.key)
FROM (
    SELECT DISTINCT hashtextextended('fallow-escrow-' || names.order_id, 0) AS key
    FROM unnest($1::text[]) AS names (order_id)
    ORDER BY key
) AS keys;

-- name: load_escrow
SELECT * FROM escrow WHERE order_id = $1;

-- name: lock_escrow
SELECT * FROM escrow WHERE order_id = $1 FOR NO KEY UPDATE;

-- name: load_escrows
SELECT * FROM escrow WHERE order_id = ANY ($1::text[]);

-- name: insert_escrows
INSERT INTO escrow (order_id, account_id, asset, state, deposited, charged, refunded, top_up, budget, create_time,
                    close_time, version, opening, hold)
SELECT order_id, account_id, asset, state, deposited, 0, 0, top_up, budget, create_time, close_time, version,
       opening::jsonb, hold
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::timestamptz[], $9::timestamptz[], $10::bigint[], $11::text[], $12::bigint[])
     AS new (order_id, account_id, asset, state, deposited, top_up, budget, create_time, close_time, version, opening,
             hold);

-- name: update_escrow
UPDATE escrow
SET state = $2, deposited = $3, charged = $4, refunded = $5, end_time = $6, close_time = $7, funds_end_asked = $8,
    version = $9, top_up = $10, budget = $11, hold = $12, resizes = $13, grace_end_time = $14, pauses = $15,
    pauses_told = $16
WHERE order_id = $1;

-- name: list_chargeable_orders
SELECT DISTINCT metering.order_id
FROM metering
JOIN escrow USING (order_id)
WHERE metering.charged_ms < metering.proven_ms
  AND metering.price_micros_per_hour > 0
  AND escrow.state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING')
  AND escrow.deposited > escrow.charged + escrow.refunded
  AND metering.order_id > $1
ORDER BY metering.order_id
LIMIT $2;

-- name: list_closing_orders
SELECT order_id FROM escrow WHERE state = 'CLOSING' AND order_id > $1 ORDER BY order_id LIMIT $2;

-- name: list_suspended_orders
SELECT order_id FROM escrow WHERE state = 'SUSPENDED' AND order_id > $1 ORDER BY order_id LIMIT $2;

-- name: list_untold_orders
SELECT order_id, state, pauses FROM escrow
WHERE pauses_told < pauses AND state IN ('OPEN', 'LOW', 'SUSPENDED') AND order_id > $1
ORDER BY order_id
LIMIT $2;

-- name: load_suspended
SELECT order_id FROM escrow WHERE state = 'SUSPENDED' AND order_id = ANY ($1::text[]);

-- name: sum_held
SELECT coalesce(sum(deposited - charged - refunded), 0)::bigint
FROM escrow
WHERE account_id = $1 AND asset = $2 AND state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING');

-- name: drop_old_tombstones
DELETE FROM escrow WHERE state = 'TOMBSTONE' AND close_time < $1;
