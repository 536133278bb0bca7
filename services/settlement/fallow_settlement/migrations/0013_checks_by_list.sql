-- The checks of a list of transfers as one query a list, instead of six a transfer. A list now writes its accounts first, each with its next version; the transfers must
-- then name just those versions, reached in this very transaction. That the sums moved by exactly these transfers is checked at commit, as before.
CREATE FUNCTION check_transfers_are_applied() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    wrong text;
BEGIN
    SELECT named.account INTO wrong
    FROM (
        SELECT debit_account AS account, asset, debit_version AS version FROM added
        UNION
        SELECT credit_account, asset, credit_version FROM added
    ) AS named
    LEFT JOIN ledger_account
        ON ledger_account.id = named.account AND ledger_account.asset = named.asset
        AND ledger_account.version = named.version AND ledger_account.xmin = pg_current_xact_id()::xid
    WHERE ledger_account.id IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a transfer of account % did not move it', wrong USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT added.id INTO wrong
    FROM added
    LEFT JOIN transfer AS resolved
        ON resolved.id = added.pending_id AND resolved.phase = 'PENDING' AND resolved.amount = added.amount
        AND resolved.debit_account = added.debit_account AND resolved.credit_account = added.credit_account
    WHERE added.pending_id IS NOT NULL AND resolved.id IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % does not fit the pending one', wrong
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER transfers_are_applied AFTER INSERT ON transfer REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_transfers_are_applied();

DROP TRIGGER transfer_applied ON transfer;
-- squawk-ignore ban-drop-function
DROP FUNCTION check_transfer_is_applied();
DROP TRIGGER transfer_version_is_next ON transfer;
-- squawk-ignore ban-drop-function
DROP FUNCTION check_transfer_version_is_next();
-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_debit_account_asset_fkey;
-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_credit_account_asset_fkey;

-- One reference of a charge to its generation instead of two: the lease and its price belong to it.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX metering_quote ON metering (order_id, group_index, generation, lease_id, price_micros_per_hour);
-- squawk-ignore constraint-missing-not-valid, adding-foreign-key-constraint
ALTER TABLE charge ADD CONSTRAINT charge_as_quoted
    FOREIGN KEY (order_id, group_index, generation, lease_id, price_micros_per_hour)
    REFERENCES metering (order_id, group_index, generation, lease_id, price_micros_per_hour);
-- squawk-ignore ban-drop-constraint
ALTER TABLE charge DROP CONSTRAINT charge_at_quoted_price;
-- squawk-ignore ban-drop-constraint
ALTER TABLE charge DROP CONSTRAINT charge_order_id_group_index_generation_fkey;
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX metering_price;

-- Rows that change at each charge or proof stay on their pages, and so need no new entry in any index: none is of a column that changes then.
ALTER TABLE escrow SET (fillfactor = 70);
ALTER TABLE ledger_account SET (fillfactor = 70);
ALTER TABLE metering SET (fillfactor = 50);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX metering_uncharged;
