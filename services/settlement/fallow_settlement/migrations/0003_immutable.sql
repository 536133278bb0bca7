-- Charges and their places in batches never go, as transfers never do: not by TRUNCATE either, which row triggers do not see.
CREATE TRIGGER charge_never_truncated BEFORE TRUNCATE ON charge
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER batch_charge_never_truncated BEFORE TRUNCATE ON batch_charge
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_never_truncated BEFORE TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Tombstones are forgotten by their age. The table is held for the moment that reading it once takes.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX escrow_tombstone ON escrow (close_time) WHERE state = 'TOMBSTONE';
