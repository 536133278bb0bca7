-- Who gets an account's balance if the operator falls silent for good, and the balances that payout roots hold for that case.
CREATE TABLE balance_payee (
    account_id text PRIMARY KEY,
    payee text NOT NULL CHECK (payee ~ '^0x[0-9a-f]{40}$'),
    update_time timestamptz NOT NULL
);
CREATE TABLE balance_leaf (
    -- The batch that took them; later ones may hold the same.
    taken_by bigint NOT NULL,
    account_id text NOT NULL,
    payee text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (taken_by, account_id)
);
CREATE TRIGGER balance_leaf_never_changes BEFORE UPDATE OR DELETE ON balance_leaf
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- The batch whose balances a payout root holds; 0 for none.
ALTER TABLE batch ADD COLUMN balances_of bigint NOT NULL DEFAULT 0;
