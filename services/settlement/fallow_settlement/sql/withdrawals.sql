-- name: insert_withdrawal
INSERT INTO withdrawal (id, account_id, asset, amount, payee, create_time, overpaid) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: is_claim_owed
-- Whether an account was to be paid so much in all by our roots, at an address that it named.
SELECT coalesce(sum(amount), 0) >= $2::bigint AND coalesce(bool_or(payee = $3 AND NOT overpaid), false)
FROM withdrawal
WHERE account_id = $1 AND batch_number IS NOT NULL;

-- name: load_withdrawal
SELECT withdrawal.*, batch.state AS batch_state, 0::bigint AS through
FROM withdrawal
LEFT JOIN batch ON batch.number = withdrawal.batch_number
WHERE withdrawal.id = $1;

-- name: list_withdrawals
-- Newest first, each with the first batch that counts and covers it; `through` is the sum of the account's withdrawals up to each, in the order in which batches took them,
-- and of all that was paid without being owed.
SELECT *
FROM (
    SELECT withdrawal.id, withdrawal.account_id, withdrawal.asset, withdrawal.amount, withdrawal.payee,
           withdrawal.create_time, batch.number AS batch_number, batch.state AS batch_state,
           (sum(withdrawal.amount) OVER (
               ORDER BY withdrawal.overpaid DESC, withdrawal.batch_number, withdrawal.create_time, withdrawal.id
           ))::bigint AS through, withdrawal.overpaid
    FROM withdrawal
    LEFT JOIN batch ON batch.number = (
        SELECT min(covering.number)
        FROM batch AS covering
        WHERE covering.payable AND covering.payouts_through >= withdrawal.batch_number
    )
    WHERE withdrawal.account_id = $1
) AS listed
WHERE NOT overpaid AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;

-- name: load_unbatched_withdrawals
-- Those that no batch took, and those whose batch does not count any more while no later one covers them.
SELECT min(create_time)
FROM withdrawal
WHERE batch_number IS NULL
   OR batch_number > coalesce((SELECT payouts_through FROM batch WHERE payable ORDER BY number DESC LIMIT 1), 0);

-- name: batch_withdrawals
UPDATE withdrawal SET batch_number = $1 WHERE batch_number IS NULL;

-- name: load_payouts
-- What each account was ever owed under a payout root that goes up to a batch, and the address that it named last.
SELECT account_id, sum(amount)::bigint AS total, (array_agg(payee ORDER BY overpaid, create_time DESC, id DESC))[1] AS payee
FROM withdrawal
WHERE batch_number <= $1 AND account_id <> ''
GROUP BY account_id
ORDER BY account_id;

-- name: load_payout_total
-- The sum of all that was ever owed, and of what was paid without being owed, to nobody's account too.
SELECT coalesce(sum(amount), 0)::bigint FROM withdrawal WHERE batch_number <= $1;

-- name: list_claimable_batches
-- Anchored batches that count and were the first to cover a withdrawal of the account, newest first.
SELECT DISTINCT batch.number
FROM withdrawal
JOIN batch ON batch.number = (
    SELECT min(covering.number)
    FROM batch AS covering
    WHERE covering.payable AND covering.payouts_through >= withdrawal.batch_number
)
WHERE withdrawal.account_id = $1 AND batch.state IN ('MINED', 'FINAL')
ORDER BY batch.number DESC
LIMIT $2;

-- name: insert_claim
INSERT INTO vault_claim (block_hash, log_index, account_id, payee, amount, total, state, transaction_hash, block_number)
VALUES ($1, $2, $3, $4, $5, $6, 'PENDING', $7, $8)
ON CONFLICT DO NOTHING;

-- name: delete_pending_claims_from
DELETE FROM vault_claim WHERE state = 'PENDING' AND block_number >= $1;

-- name: lose_posted_claims_from
DELETE FROM vault_claim WHERE state = 'POSTED' AND block_number >= $1 RETURNING *;

-- name: post_claims_to
UPDATE vault_claim SET state = 'POSTED' WHERE state = 'PENDING' AND block_number <= $1
RETURNING *;
