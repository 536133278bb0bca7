-- Money on its way out: what accounts withdrew, and what was claimed of it at the vault.

-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_kind_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE ledger_account ADD CONSTRAINT ledger_account_kind_check
    CHECK (kind IN ('BALANCE', 'ESCROW', 'EARNINGS', 'FEES', 'POOL', 'VAULT', 'CHAIN_LOSS', 'PAYABLE'));

-- A batch may be made for its payouts alone.
-- squawk-ignore ban-drop-constraint
ALTER TABLE batch DROP CONSTRAINT batch_charge_count_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE batch ADD CONSTRAINT batch_charge_count_check CHECK (charge_count >= 0);

CREATE TABLE withdrawal (
    id text PRIMARY KEY,
    account_id text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    payee text NOT NULL CHECK (payee ~ '^0x[0-9a-f]{40}$'),
    -- The batch whose payout root was the first to cover it.
    batch_number bigint REFERENCES batch (number) DEFERRABLE INITIALLY DEFERRED,
    create_time timestamptz NOT NULL
);
CREATE INDEX withdrawal_account ON withdrawal (account_id, create_time, id);
CREATE INDEX withdrawal_unbatched ON withdrawal (create_time) WHERE batch_number IS NULL;
CREATE INDEX withdrawal_batch ON withdrawal (batch_number);

-- A withdrawal gets its batch once; nothing else of it ever changes.
CREATE FUNCTION refuse_change_of_withdrawal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.batch_number IS NOT NULL OR NEW.batch_number IS NULL
       OR (NEW.id, NEW.account_id, NEW.asset, NEW.amount, NEW.payee, NEW.create_time)
          IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.asset, OLD.amount, OLD.payee, OLD.create_time) THEN
        RAISE EXCEPTION 'withdrawal % only ever gets its batch, once', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER withdrawal_gets_its_batch_once BEFORE UPDATE ON withdrawal
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_withdrawal();
CREATE TRIGGER withdrawal_never_deleted BEFORE DELETE ON withdrawal
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER withdrawal_never_truncated BEFORE TRUNCATE ON withdrawal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Claims as the vault's logs told them: one log in one block.
CREATE TABLE vault_claim (
    block_hash text NOT NULL,
    log_index bigint NOT NULL CHECK (log_index >= 0),
    account_id text NOT NULL,
    payee text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    total bigint NOT NULL CHECK (total >= amount),
    state text NOT NULL CHECK (state IN ('PENDING', 'POSTED')),
    transaction_hash text NOT NULL,
    block_number bigint NOT NULL CHECK (block_number >= 0),
    PRIMARY KEY (block_hash, log_index)
);
CREATE INDEX vault_claim_pending ON vault_claim (block_number) WHERE state = 'PENDING';
CREATE INDEX vault_claim_block ON vault_claim (block_number);
