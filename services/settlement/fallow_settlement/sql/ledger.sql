-- name: make_ledger_accounts
INSERT INTO ledger_account (id, kind, owner, asset, debits_must_not_exceed_credits, create_time)
SELECT id, kind, owner, asset, bounded, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) AS new (id, kind, owner, asset, bounded)
WHERE NOT EXISTS (SELECT 1 FROM ledger_account WHERE ledger_account.id = new.id)
ORDER BY id
ON CONFLICT DO NOTHING;

-- name: lock_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version, closed
FROM ledger_account
WHERE id = ANY ($1::text[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: load_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version, closed
FROM ledger_account
WHERE id = ANY ($1::text[]);

-- name: load_transfers
SELECT id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject, linked, timeout_ms,
       expire_time
FROM transfer
WHERE id = ANY ($1::text[]);

-- name: load_resolutions
SELECT pending_id, phase FROM transfer WHERE pending_id = ANY ($1::text[]);

-- name: list_overdue_transfers
-- Pending transfers whose time is over and that nobody has resolved.
SELECT id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject, linked, timeout_ms
FROM transfer AS pending
WHERE expire_time <= $1
  AND NOT EXISTS (SELECT 1 FROM transfer AS resolving WHERE resolving.pending_id = pending.id)
ORDER BY expire_time, id
LIMIT $2;

-- name: close_ledger_account
UPDATE ledger_account SET closed = true, version = version + 1 WHERE id = $1 AND NOT closed;

-- name: update_ledger_accounts
UPDATE ledger_account AS account
SET debits_posted = new.debits_posted, credits_posted = new.credits_posted, debits_pending = new.debits_pending,
    credits_pending = new.credits_pending, version = new.version
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     AS new (id, debits_posted, credits_posted, debits_pending, credits_pending, version)
WHERE account.id = new.id;

-- name: list_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version, closed
FROM ledger_account
WHERE id > $1
ORDER BY id
LIMIT $2;

-- name: list_transfers
SELECT id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject, linked, timeout_ms,
       create_time
FROM transfer
WHERE ($1::text = '' OR debit_account = $1 OR credit_account = $1)
  AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;
