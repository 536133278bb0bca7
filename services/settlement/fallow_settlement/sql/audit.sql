-- Each query answers the first row that does not hold, or nothing: where, what was expected, what was found.

-- name: audit_accounts
WITH moved AS (
    SELECT account, sum(debit_posted) AS debit_posted, sum(debit_pending) AS debit_pending,
           sum(credit_posted) AS credit_posted, sum(credit_pending) AS credit_pending, max(version) AS version
    FROM (
        SELECT debit_account AS account, debit_version AS version,
               CASE WHEN phase IN ('POSTED', 'POST_PENDING') THEN amount ELSE 0 END AS debit_posted,
               CASE phase WHEN 'PENDING' THEN amount WHEN 'POSTED' THEN 0 ELSE -amount END AS debit_pending,
               0 AS credit_posted, 0 AS credit_pending
        FROM transfer
        UNION ALL
        SELECT credit_account, credit_version, 0, 0,
               CASE WHEN phase IN ('POSTED', 'POST_PENDING') THEN amount ELSE 0 END,
               CASE phase WHEN 'PENDING' THEN amount WHEN 'POSTED' THEN 0 ELSE -amount END
        FROM transfer
    ) AS movement
    GROUP BY account
)
SELECT 'ledgerAccounts/' || id AS place,
       format('debits %s posted %s pending, credits %s posted %s pending, version %s', coalesce(debit_posted, 0),
              coalesce(debit_pending, 0), coalesce(credit_posted, 0), coalesce(credit_pending, 0), coalesce(moved.version, 0) + closed::integer)
           AS expected,
       format('debits %s posted %s pending, credits %s posted %s pending, version %s', debits_posted, debits_pending,
              credits_posted, credits_pending, ledger_account.version) AS found
FROM ledger_account
LEFT JOIN moved ON moved.account = id
WHERE (debits_posted, debits_pending, credits_posted, credits_pending, ledger_account.version)
      IS DISTINCT FROM (coalesce(debit_posted, 0), coalesce(debit_pending, 0), coalesce(credit_posted, 0),
                        coalesce(credit_pending, 0), coalesce(moved.version, 0) + closed::integer)
ORDER BY id
LIMIT 1;

-- name: audit_assets
SELECT 'asset ' || asset AS place, sum(debits_posted)::text || ' credits' AS expected,
       sum(credits_posted)::text || ' credits' AS found
FROM ledger_account
GROUP BY asset
HAVING sum(debits_posted) <> sum(credits_posted) OR sum(debits_pending) <> sum(credits_pending)
ORDER BY asset
LIMIT 1;

-- name: audit_resolutions
SELECT 'transfers/' || resolving.id AS place,
       format('%s %s to %s of a PENDING one', pending.amount, pending.debit_account, pending.credit_account) AS expected,
       format('%s %s to %s of a %s one', resolving.amount, resolving.debit_account, resolving.credit_account, pending.phase)
           AS found
FROM transfer AS resolving
JOIN transfer AS pending ON pending.id = resolving.pending_id
WHERE pending.phase <> 'PENDING' OR (resolving.amount, resolving.debit_account, resolving.credit_account)
      IS DISTINCT FROM (pending.amount, pending.debit_account, pending.credit_account)
ORDER BY resolving.id
LIMIT 1;

-- name: audit_escrows
WITH paid AS (SELECT order_id, sum(amount) AS amount FROM charge GROUP BY order_id)
SELECT 'escrows/' || escrow.order_id AS place,
       format('charged %s, holds %s', coalesce(paid.amount, 0), coalesce(credits_posted - debits_posted, 0)) AS expected,
       format('charged %s, holds %s', escrow.charged, deposited - charged - refunded) AS found
FROM escrow
LEFT JOIN paid USING (order_id)
LEFT JOIN ledger_account ON kind = 'ESCROW' AND owner = escrow.order_id AND ledger_account.asset = escrow.asset
WHERE escrow.charged <> coalesce(paid.amount, 0)
   OR deposited - charged - refunded <> coalesce(credits_posted - debits_posted, 0)
ORDER BY escrow.order_id
LIMIT 1;

-- name: audit_charges
SELECT 'charges/' || id AS place, format('from %s ms, due %s', before_ms, due) AS expected,
       format('from %s ms, amount %s and short %s', from_running_ms, amount, short) AS found
FROM (
    SELECT *, lag(to_running_ms, 1, 0::bigint) OVER lease AS before_ms,
           div(price_micros_per_hour::numeric * to_running_ms, 3600000)
           - div(price_micros_per_hour::numeric * from_running_ms, 3600000) AS due
    FROM charge
    WINDOW lease AS (PARTITION BY order_id, group_index, generation ORDER BY sequence)
) AS priced
WHERE from_running_ms <> before_ms OR amount::numeric + short <> due
ORDER BY id
LIMIT 1;

-- name: audit_charge_transfers
SELECT 'charges/' || charge.id AS place,
       format('provider %s, fee %s, pool %s', amount - fee - pool, fee, pool) AS expected,
       format('provider %s, fee %s, pool %s', coalesce(moved.provider, 0), coalesce(moved.fee_moved, 0),
              coalesce(moved.pool_moved, 0)) AS found
FROM charge
LEFT JOIN (
    SELECT subject,
           sum(amount) FILTER (WHERE reason = 'CHARGE') AS provider,
           sum(amount) FILTER (WHERE reason = 'FEE') AS fee_moved,
           sum(amount) FILTER (WHERE reason = 'POOL') AS pool_moved
    FROM transfer
    WHERE reason IN ('CHARGE', 'FEE', 'POOL')
    GROUP BY subject
) AS moved ON moved.subject = 'charges/' || charge.id
WHERE (amount - fee - pool, fee, pool)
      IS DISTINCT FROM (coalesce(moved.provider, 0), coalesce(moved.fee_moved, 0), coalesce(moved.pool_moved, 0))
ORDER BY charge.id
LIMIT 1;

-- name: audit_queue
SELECT 'charges/' || id AS place, 'in one batch, or waiting for one' AS expected,
       CASE WHEN placed.charge_id IS NULL THEN 'in none, and not waiting' ELSE 'in one, and waiting' END AS found
FROM charge
LEFT JOIN batch_charge AS placed ON placed.charge_id = id
LEFT JOIN unbatched_charge AS waiting ON waiting.charge_id = id
WHERE (placed.charge_id IS NULL) = (waiting.charge_id IS NULL)
ORDER BY id
LIMIT 1;

-- name: audit_withdrawals
WITH out AS (SELECT account_id, asset, sum(amount) AS amount FROM withdrawal WHERE account_id <> '' GROUP BY account_id, asset),
claimed AS (SELECT account_id, sum(amount) AS amount FROM vault_claim WHERE state = 'POSTED' GROUP BY account_id),
payable AS (SELECT * FROM ledger_account WHERE kind = 'PAYABLE')
SELECT 'accounts/' || coalesce(out.account_id, payable.owner) AS place,
       format('withdrew %s, claimed %s', coalesce(out.amount, 0), coalesce(claimed.amount, 0)) AS expected,
       format('withdrew %s, claimed %s', coalesce(credits_posted, 0), coalesce(debits_posted, 0)) AS found
FROM out
FULL JOIN payable ON payable.owner = out.account_id AND payable.asset = out.asset
LEFT JOIN claimed ON claimed.account_id = coalesce(out.account_id, payable.owner)
WHERE coalesce(out.amount, 0) <> coalesce(credits_posted, 0) OR coalesce(claimed.amount, 0) <> coalesce(debits_posted, 0)
ORDER BY 1
LIMIT 1;

-- name: audit_deposits
SELECT 'deposits/' || deposit.id AS place, format('%s to balance-%s-%s', deposit.amount, account_id, deposit.asset) AS expected,
       coalesce(format('%s to %s', transfer.amount, credit_account), 'no transfer') AS found
FROM deposit
LEFT JOIN transfer ON transfer.id = 'deposit-' || deposit.id || '-post'
WHERE deposit.state IN ('POSTED', 'LOST') AND (deposit.repairs IS NULL OR deposit.repairs LIKE deposit.id || '-%')
  AND (transfer.amount, credit_account)
      IS DISTINCT FROM (deposit.amount, 'balance-' || account_id || '-' || deposit.asset)
ORDER BY deposit.id
LIMIT 1;

-- name: audit_batches
SELECT * FROM batch ORDER BY number;

-- name: audit_vetoes
WITH RECURSIVE vetoed AS (
    SELECT batch.number
    FROM batch
    JOIN payout_veto ON batch.number >= payout_veto.batch_number AND batch.number < payout_veto.next_batch
    UNION
    SELECT batch.number FROM batch JOIN vetoed ON batch.payout_parent = vetoed.number
)
SELECT 'batches/' || batch.number AS place,
       CASE WHEN vetoed.number IS NULL THEN 'counts' ELSE 'vetoed' END AS expected,
       CASE WHEN batch.payable THEN 'counts' ELSE 'vetoed' END AS found
FROM batch
LEFT JOIN vetoed USING (number)
WHERE batch.payable = (vetoed.number IS NOT NULL)
ORDER BY batch.number
LIMIT 1;

-- name: audit_programmes
-- A programme's budget, each payment of a day, and its rest, against the transfers that moved them; and what was paid against what was due.
WITH expected AS (
    SELECT 'programmes/' || id AS place, 'programme-' || id || '-budget' AS transfer_id, budget AS amount FROM programme
    UNION ALL
    SELECT 'programmes/' || id, 'programme-' || id || '-rest',
           budget - (SELECT coalesce(sum(paid), 0) FROM programme_share WHERE programme_id = programme.id)
    FROM programme
    WHERE close_time IS NOT NULL
    UNION ALL
    SELECT format('programmes/%s on %s for providers/%s', programme_id, day, provider_id),
           format('programme-%s-%s-%s', programme_id, day, provider_id), paid
    FROM programme_share
),
moved AS (SELECT id, amount FROM transfer WHERE id LIKE 'programme-%'),
to_date AS (
    SELECT programme_id, provider_id, day, max(due) OVER before AS due, sum(paid) OVER before AS paid
    FROM programme_share
    WINDOW before AS (PARTITION BY programme_id, provider_id ORDER BY day)
),
found AS (
    SELECT coalesce(place, 'transfers/' || moved.id) AS place, coalesce(expected.amount, 0)::text AS expected,
           coalesce(moved.amount, 0)::text AS found
    FROM expected
    FULL JOIN moved ON moved.id = expected.transfer_id
    WHERE coalesce(expected.amount, 0) <> coalesce(moved.amount, 0)
    UNION ALL
    SELECT format('programmes/%s on %s for providers/%s', programme_id, day, provider_id), 'at most ' || due, paid::text
    FROM to_date
    WHERE paid > due
)
SELECT place, expected, found FROM found ORDER BY place LIMIT 1;

-- name: audit_grants
-- A grant is paid by two operators' words, and what moved is what it says.
SELECT 'communityGrants/' || coalesce(community_grant.id, substr(transfer.id, 7)) AS place,
       CASE WHEN pay_time IS NULL THEN 'nothing paid'
            ELSE format('%s to accounts/%s, approved by 2', community_grant.amount, community_grant.account_id) END AS expected,
       format('%s to %s, approved by %s', coalesce(transfer.amount, 0), coalesce(transfer.credit_account, 'nobody'), approvals) AS found
FROM community_grant
FULL JOIN (SELECT * FROM transfer WHERE reason = 'GRANT') AS transfer ON transfer.id = 'grant-' || community_grant.id
CROSS JOIN LATERAL (
    SELECT count(*) AS approvals FROM grant_approval
    WHERE grant_id = community_grant.id AND grant_approval.account_id <> community_grant.account_id
) AS approved
WHERE (pay_time IS NOT NULL) <> (transfer.id IS NOT NULL)
   OR pay_time IS NOT NULL AND (
       approvals < 2
       OR (transfer.amount, transfer.credit_account)
          IS DISTINCT FROM (
              community_grant.amount, 'balance-' || community_grant.account_id || '-' || community_grant.asset
          )
   )
ORDER BY 1
LIMIT 1;
