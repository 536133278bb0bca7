-- name: insert_veto
INSERT INTO payout_veto (block_hash, log_index, batch_number, next_batch, transaction_hash, block_number, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING;

-- name: delete_vetoes_from
DELETE FROM payout_veto WHERE block_number >= $1 RETURNING batch_number;

-- name: mark_payable
-- What was vetoed, and what names a vetoed batch as its payout parent, does not count.
WITH RECURSIVE vetoed AS (
    SELECT batch.number
    FROM batch
    JOIN payout_veto ON batch.number >= payout_veto.batch_number AND batch.number < payout_veto.next_batch
    UNION
    SELECT batch.number FROM batch JOIN vetoed ON batch.payout_parent = vetoed.number
)
UPDATE batch
SET payable = NOT payable
WHERE payable = EXISTS (SELECT 1 FROM vetoed WHERE vetoed.number = batch.number);

-- name: has_open_veto
SELECT EXISTS (SELECT 1 FROM payout_veto WHERE release_time IS NULL);

-- name: list_vetoes
SELECT * FROM payout_veto ORDER BY block_number, log_index;

-- name: release_vetoes
UPDATE payout_veto SET release_time = $1 WHERE release_time IS NULL;

-- name: load_last_payable
SELECT * FROM batch WHERE payable ORDER BY number DESC LIMIT 1;
