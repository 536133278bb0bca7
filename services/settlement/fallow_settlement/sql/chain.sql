-- name: lock_sealing
SELECT pg_advisory_xact_lock(hashtextextended('fallow-sealing', 0));

-- name: load_unbatched_state
SELECT count(*) AS charges, min(create_time) AS oldest
FROM (SELECT create_time FROM unbatched_charge ORDER BY create_time, charge_id LIMIT $1) AS head;

-- name: take_unbatched_charges
WITH head AS (
    SELECT charge_id FROM unbatched_charge ORDER BY create_time, charge_id LIMIT $1
), taken AS (
    DELETE FROM unbatched_charge USING head WHERE unbatched_charge.charge_id = head.charge_id
    RETURNING unbatched_charge.charge_id
)
SELECT charge.*, NULL::bigint AS batch_number, NULL::bigint AS leaf_index
FROM charge
JOIN taken ON taken.charge_id = charge.id
ORDER BY charge.create_time, charge.id;

-- name: insert_batch
INSERT INTO batch (number, chain_id, anchor_address, parent_commitment, payout_parent, settlement_root, payout_root,
                   charge_count, payout_total, totals_hash, commitment, state, create_time, payouts_through,
                   balances_of)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: insert_batch_charges
INSERT INTO batch_charge (charge_id, batch_number, leaf_index)
SELECT charge_id, $2, ordinality - 1 FROM unnest($1::text[]) WITH ORDINALITY AS listed (charge_id, ordinality);

-- name: load_batch
SELECT * FROM batch WHERE number = $1;

-- name: lock_batch
SELECT * FROM batch WHERE number = $1 FOR NO KEY UPDATE;

-- name: load_last_final_batch
SELECT * FROM batch WHERE state = 'FINAL' ORDER BY number DESC LIMIT 1;

-- name: load_last_batch
SELECT * FROM batch ORDER BY number DESC LIMIT 1;

-- name: list_batches
SELECT * FROM batch WHERE $1::bigint = 0 OR number < $1 ORDER BY number DESC LIMIT $2;

-- name: update_batch
UPDATE batch SET state = $2, transaction_hash = $3, block_number = $4, version = $5 WHERE number = $1;

-- name: load_batch_charges
SELECT charge.*, batch_charge.batch_number, batch_charge.leaf_index
FROM batch_charge
JOIN charge ON charge.id = batch_charge.charge_id
WHERE batch_charge.batch_number = $1
ORDER BY batch_charge.leaf_index;

-- name: load_transaction_in_flight
SELECT * FROM chain_transaction WHERE state IN ('PENDING', 'SIGNED', 'SENT', 'MINED');

-- name: start_transaction
INSERT INTO chain_transaction (batch_number, signer, state, create_time)
SELECT number, $1, 'PENDING', $2
FROM batch
WHERE NOT EXISTS (
    SELECT 1 FROM chain_transaction WHERE batch_number = batch.number AND state <> 'ABANDONED'
)
ORDER BY number
LIMIT 1
ON CONFLICT DO NOTHING;

-- name: load_next_nonce
-- Of those that stand: the nonce of an abandoned one is used up on the chain, or was never used and is free.
SELECT coalesce(max(nonce) + 1, 0)::bigint FROM chain_transaction WHERE signer = $1 AND state <> 'ABANDONED';

-- name: lock_transaction
SELECT * FROM chain_transaction WHERE id = $1 AND state = $2 FOR UPDATE;

-- name: update_transaction
UPDATE chain_transaction SET state = $2, nonce = $3, gas_limit = $4 WHERE id = $1;

-- name: insert_attempt
INSERT INTO chain_attempt (transaction_hash, transaction_id, number, raw, max_fee, max_priority_fee, create_time)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6::text::numeric, $7)
-- The very bytes of an abandoned transaction of this batch belong to the one that takes its place.
ON CONFLICT (transaction_hash) DO UPDATE SET transaction_id = EXCLUDED.transaction_id, number = EXCLUDED.number;

-- name: mark_attempt_sent
UPDATE chain_attempt SET send_time = $2 WHERE transaction_hash = $1 AND send_time IS NULL;

-- name: load_attempts
SELECT transaction_hash, number, raw, max_fee::text AS max_fee, max_priority_fee::text AS max_priority_fee, create_time,
       send_time
FROM chain_attempt
WHERE transaction_id = $1
ORDER BY number;

-- name: load_last_scanned_block
SELECT number, hash FROM scanned_block ORDER BY number DESC LIMIT 1;

-- name: list_scanned_blocks
SELECT number, hash FROM scanned_block ORDER BY number DESC LIMIT $1;

-- name: insert_scanned_block
INSERT INTO scanned_block (number, hash) VALUES ($1, $2);

-- name: delete_scanned_blocks_from
DELETE FROM scanned_block WHERE number >= $1;

-- name: delete_scanned_blocks_before
DELETE FROM scanned_block WHERE number < $1;

-- name: count_sightings
SELECT count(*) AS sightings, count(*) FILTER (WHERE state <> 'VOIDED') AS standing
FROM deposit
WHERE block_hash = $1 AND log_index = $2;

-- name: insert_deposit
INSERT INTO deposit (id, account_id, asset, amount, sender, state, transaction_hash, log_index, block_number,
                     block_hash, create_time, repairs)
VALUES ($1, $2, $3, $4, $5, $12, $6, $7, $8, $9, $10, $11);

-- name: void_stray_deposits_from
UPDATE deposit SET state = 'VOIDED' WHERE state = 'STRAY' AND block_number >= $1;

-- name: list_stray_deposits
SELECT * FROM deposit WHERE state = 'STRAY' ORDER BY block_number, log_index;

-- name: lock_stray_deposit
SELECT * FROM deposit WHERE state = 'STRAY' AND id = $1 FOR UPDATE;

-- name: assign_deposit
UPDATE deposit SET state = 'POSTED', account_id = $2 WHERE id = $1;

-- name: lock_pending_deposits_from
SELECT * FROM deposit WHERE state = 'PENDING' AND block_number >= $1 ORDER BY id FOR UPDATE;

-- name: lock_pending_deposits_to
SELECT * FROM deposit WHERE state = 'PENDING' AND block_number <= $1 ORDER BY id FOR UPDATE;

-- name: list_posted_deposits_from
SELECT * FROM deposit WHERE state = 'POSTED' AND block_number >= $1 ORDER BY id;

-- name: update_deposit
UPDATE deposit SET state = $2 WHERE id = $1;

-- name: list_deposits
SELECT *
FROM deposit
WHERE account_id = $1 AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;
