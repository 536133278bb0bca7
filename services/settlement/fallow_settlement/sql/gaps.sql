-- name: count_gaps
SELECT count(*) FROM chain_gap WHERE deposit_id = $1;

-- name: insert_gap
INSERT INTO chain_gap (id, deposit_id, state, frozen, create_time) VALUES ($1, $2, 'OPEN', $3, $4);

-- name: has_open_gap
SELECT EXISTS (SELECT 1 FROM chain_gap WHERE state = 'OPEN');

-- name: find_gap
-- The gap that a transaction which is mined again would fill; each such log fills one.
SELECT chain_gap.id
FROM chain_gap
JOIN deposit AS lost ON lost.id = chain_gap.deposit_id
WHERE chain_gap.state <> 'REPAIRED' AND lost.transaction_hash = $1 AND lost.account_id = $2 AND lost.amount = $3
  AND NOT EXISTS (SELECT 1 FROM deposit WHERE deposit.repairs = chain_gap.id AND deposit.state = 'PENDING')
ORDER BY chain_gap.id
LIMIT 1
FOR UPDATE OF chain_gap;

-- name: lock_gap
SELECT chain_gap.*, deposit.account_id, deposit.asset, deposit.amount, deposit.transaction_hash
FROM chain_gap
JOIN deposit ON deposit.id = chain_gap.deposit_id
WHERE chain_gap.id = $1
FOR UPDATE OF chain_gap;

-- name: list_gaps
SELECT chain_gap.*, deposit.account_id, deposit.asset, deposit.amount, deposit.transaction_hash
FROM chain_gap
JOIN deposit ON deposit.id = chain_gap.deposit_id
ORDER BY chain_gap.create_time, chain_gap.id;

-- name: resolve_gap
UPDATE chain_gap SET state = $2, resolve_time = $3 WHERE id = $1;

-- name: reopen_lost_deposit
UPDATE deposit SET state = 'PENDING', repairs = (
    SELECT chain_gap.id FROM chain_gap WHERE chain_gap.deposit_id = deposit.id AND chain_gap.state <> 'REPAIRED'
)
WHERE block_hash = $1 AND log_index = $2 AND state = 'LOST';
