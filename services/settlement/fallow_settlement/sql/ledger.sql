-- name: ensure_ledger_accounts
INSERT INTO ledger_account (id, kind, owner, asset, debits_must_not_exceed_credits, create_time)
SELECT id, kind, owner, asset, bounded, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) AS new (id, kind, owner, asset, bounded)
ORDER BY id
ON CONFLICT DO NOTHING;

-- name: lock_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version
FROM ledger_account
WHERE id = ANY ($1::text[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: load_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version
FROM ledger_account
WHERE id = ANY ($1::text[]);

-- name: load_transfers
SELECT id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject
FROM transfer
WHERE id = ANY ($1::text[]);

-- name: load_resolutions
SELECT pending_id, phase FROM transfer WHERE pending_id = ANY ($1::text[]);

-- name: insert_transfers
INSERT INTO transfer (id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject,
                      debit_version, credit_version, create_time)
SELECT id, debit_account, credit_account, asset, amount, phase, nullif(pending_id, ''), reason, subject,
       debit_version, credit_version, $12
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::bigint[], $11::bigint[])
     AS new (id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject,
             debit_version, credit_version);

-- name: update_ledger_accounts
UPDATE ledger_account AS account
SET debits_posted = new.debits_posted, credits_posted = new.credits_posted, debits_pending = new.debits_pending,
    credits_pending = new.credits_pending, version = new.version
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     AS new (id, debits_posted, credits_posted, debits_pending, credits_pending, version)
WHERE account.id = new.id;

-- name: list_ledger_accounts
SELECT id, kind, owner, asset, debits_must_not_exceed_credits, debits_posted, credits_posted, debits_pending,
       credits_pending, version
FROM ledger_account
WHERE id > $1
ORDER BY id
LIMIT $2;

-- name: list_transfers
SELECT id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject, create_time
FROM transfer
WHERE ($1::text = '' OR debit_account = $1 OR credit_account = $1)
  AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;
