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

-- name: lock_escrows
SELECT * FROM escrow WHERE order_id = ANY ($1::text[]) ORDER BY order_id FOR NO KEY UPDATE;

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

-- name: update_escrows
UPDATE escrow
SET state = new.state, deposited = new.deposited, charged = new.charged, refunded = new.refunded,
    end_time = new.end_time, close_time = new.close_time, funds_end_asked = new.funds_end_asked,
    version = new.version, top_up = new.top_up, budget = new.budget, hold = new.hold, resizes = new.resizes,
    grace_end_time = new.grace_end_time, pauses = new.pauses, pauses_told = new.pauses_told
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
            $8::boolean[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
            $14::timestamptz[], $15::bigint[], $16::bigint[])
     AS new (order_id, state, deposited, charged, refunded, end_time, close_time, funds_end_asked, version, top_up,
             budget, hold, resizes, grace_end_time, pauses, pauses_told)
WHERE escrow.order_id = new.order_id;

-- name: list_chargeable_orders
SELECT metering.order_id, count(*) AS charges
FROM metering
JOIN escrow USING (order_id)
WHERE metering.charged_ms < metering.proven_ms
  AND metering.price_micros_per_hour > 0
  AND escrow.state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING')
  AND escrow.deposited > escrow.charged + escrow.refunded
  AND metering.order_id > $1
GROUP BY metering.order_id
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
