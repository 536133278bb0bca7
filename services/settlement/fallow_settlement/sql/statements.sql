-- name: load_statement_sums
-- What an account had in each asset and kind at the start ($2) and at the end ($3) of a month, by posted transfers.
WITH own AS (
    SELECT id, kind, asset FROM ledger_account WHERE kind IN ('BALANCE', 'EARNINGS', 'PAYABLE') AND owner = $1
    UNION ALL
    SELECT held.id, held.kind, held.asset
    FROM escrow
    JOIN ledger_account AS held ON held.kind = 'ESCROW' AND held.owner = escrow.order_id
    WHERE escrow.account_id = $1
), movement AS (
    SELECT own.kind, own.asset, transfer.create_time, -transfer.amount AS change
    FROM own JOIN transfer ON transfer.debit_account = own.id
    WHERE transfer.phase IN ('POSTED', 'POST_PENDING')
    UNION ALL
    SELECT own.kind, own.asset, transfer.create_time, transfer.amount
    FROM own JOIN transfer ON transfer.credit_account = own.id
    WHERE transfer.phase IN ('POSTED', 'POST_PENDING')
)
SELECT asset, kind,
       coalesce(sum(change) FILTER (WHERE create_time < $2), 0)::bigint AS opening,
       coalesce(sum(change) FILTER (WHERE create_time < $3), 0)::bigint AS closing
FROM movement
GROUP BY asset, kind;

-- name: list_statement_movements
-- Posted transfers of a month that moved an account's money, oldest first, with what each changed of it by kind.
WITH own AS (
    SELECT id, kind FROM ledger_account WHERE kind IN ('BALANCE', 'EARNINGS', 'PAYABLE') AND owner = $1
    UNION ALL
    SELECT held.id, held.kind
    FROM escrow
    JOIN ledger_account AS held ON held.kind = 'ESCROW' AND held.owner = escrow.order_id
    WHERE escrow.account_id = $1
), movement AS (
    SELECT transfer.id, own.kind, -transfer.amount AS change
    FROM own JOIN transfer ON transfer.debit_account = own.id
    WHERE transfer.phase IN ('POSTED', 'POST_PENDING') AND transfer.create_time >= $2 AND transfer.create_time < $3
    UNION ALL
    SELECT transfer.id, own.kind, transfer.amount
    FROM own JOIN transfer ON transfer.credit_account = own.id
    WHERE transfer.phase IN ('POSTED', 'POST_PENDING') AND transfer.create_time >= $2 AND transfer.create_time < $3
), moved AS (
    SELECT id,
           coalesce(sum(change) FILTER (WHERE kind = 'BALANCE'), 0)::bigint AS free,
           coalesce(sum(change) FILTER (WHERE kind = 'ESCROW'), 0)::bigint AS held,
           coalesce(sum(change) FILTER (WHERE kind = 'EARNINGS'), 0)::bigint AS earned,
           coalesce(sum(change) FILTER (WHERE kind = 'PAYABLE'), 0)::bigint AS owed
    FROM movement
    GROUP BY id
)
SELECT transfer.id, transfer.asset, transfer.reason, transfer.subject, transfer.create_time, moved.free, moved.held,
       moved.earned, moved.owed
FROM moved JOIN transfer USING (id)
WHERE $4::timestamptz IS NULL OR (transfer.create_time, transfer.id) > ($4, $5::text)
ORDER BY transfer.create_time, transfer.id
LIMIT $6;
