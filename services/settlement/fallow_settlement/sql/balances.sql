-- name: set_balance_payee
-- With $4 true a payee that was named before stays.
INSERT INTO balance_payee (account_id, payee, update_time) VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE SET
    payee = CASE WHEN $4 THEN balance_payee.payee ELSE excluded.payee END,
    update_time = CASE WHEN $4 THEN balance_payee.update_time ELSE excluded.update_time END
RETURNING payee;

-- name: take_balances
-- What each account that named a payee has: free, earned and held for its orders.
INSERT INTO balance_leaf (taken_by, account_id, payee, amount)
SELECT $1, account_id, payee, amount
FROM (
    SELECT balance_payee.account_id, payee,
           (
               SELECT coalesce(sum(credits_posted - debits_posted - debits_pending), 0)
               FROM ledger_account
               WHERE owner = balance_payee.account_id AND asset = $2 AND kind IN ('BALANCE', 'EARNINGS')
           ) + (
               SELECT coalesce(sum(deposited - charged - refunded), 0)
               FROM escrow
               WHERE escrow.account_id = balance_payee.account_id AND escrow.asset = $2
                 AND state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING')
           ) AS amount
    FROM balance_payee
) AS held
WHERE amount > 0;

-- name: load_balances
-- With what each account was ever owed, by the payouts of the root that took them.
SELECT account_id, payee,
       (
           amount + (
               SELECT coalesce(sum(withdrawal.amount), 0)
               FROM withdrawal
               WHERE withdrawal.account_id = balance_leaf.account_id AND batch_number <= $1
           )
       )::bigint AS total
FROM balance_leaf
WHERE taken_by = $1
ORDER BY account_id;

-- name: load_last_taken
SELECT max(taken_by) FROM balance_leaf;

-- name: load_last_anchored_payable
SELECT * FROM batch WHERE payable AND state IN ('MINED', 'FINAL') ORDER BY number DESC LIMIT 1;
