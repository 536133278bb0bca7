-- Settlement's own tables: ledger, escrows, metering, charges, batches, chain.

CREATE TABLE ledger_account (
    id text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('BALANCE', 'ESCROW', 'EARNINGS', 'FEES', 'POOL', 'VAULT', 'CHAIN_LOSS')),
    owner text NOT NULL,
    asset text NOT NULL,
    debits_must_not_exceed_credits boolean NOT NULL,
    debits_posted bigint NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
    credits_posted bigint NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
    debits_pending bigint NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
    credits_pending bigint NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    create_time timestamptz NOT NULL,
    UNIQUE (kind, owner, asset),
    UNIQUE (id, asset),
    CHECK (NOT debits_must_not_exceed_credits OR debits_posted + debits_pending <= credits_posted),
    CHECK (debits_must_not_exceed_credits = (kind NOT IN ('VAULT', 'CHAIN_LOSS')))
);

CREATE TABLE transfer (
    id text PRIMARY KEY,
    debit_account text NOT NULL,
    credit_account text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    phase text NOT NULL CHECK (phase IN ('POSTED', 'PENDING', 'POST_PENDING', 'VOID_PENDING')),
    pending_id text REFERENCES transfer (id),
    reason text NOT NULL,
    subject text NOT NULL,
    -- Version of each account after the write that this transfer belongs to.
    debit_version bigint NOT NULL CHECK (debit_version > 0),
    credit_version bigint NOT NULL CHECK (credit_version > 0),
    create_time timestamptz NOT NULL,
    CHECK (debit_account <> credit_account),
    CHECK ((pending_id IS NOT NULL) = (phase IN ('POST_PENDING', 'VOID_PENDING'))),
    FOREIGN KEY (debit_account, asset) REFERENCES ledger_account (id, asset),
    FOREIGN KEY (credit_account, asset) REFERENCES ledger_account (id, asset)
);
-- A pending transfer is resolved once.
CREATE UNIQUE INDEX transfer_pending_id ON transfer (pending_id) WHERE pending_id IS NOT NULL;
CREATE INDEX transfer_debit ON transfer (debit_account, debit_version);
CREATE INDEX transfer_credit ON transfer (credit_account, credit_version);
CREATE INDEX transfer_create_time ON transfer (create_time DESC, id DESC);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: its rows never change', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER transfer_never_changes BEFORE UPDATE OR DELETE ON transfer
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfer_never_truncated BEFORE TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_never_deleted BEFORE DELETE ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Debits equal credits per asset: a transfer adds one amount to both sides. What is left to hold is that an account moves
-- by exactly its transfers. Each write to an account raises its version by one, and the transfers of that write carry
-- that version; at commit both directions are checked.
CREATE FUNCTION check_account_moves_by_its_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    debits_posted_moved numeric;
    debits_pending_moved numeric;
    credits_posted_moved numeric;
    credits_pending_moved numeric;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.version <> 0 OR NEW.debits_posted + NEW.credits_posted + NEW.debits_pending + NEW.credits_pending <> 0 THEN
            RAISE EXCEPTION 'account % does not start empty', NEW.id USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.version <> OLD.version + 1 OR NEW.id <> OLD.id OR NEW.asset <> OLD.asset OR NEW.kind <> OLD.kind THEN
        RAISE EXCEPTION 'account % changed without a new version, or in its identity', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT coalesce(sum(amount) FILTER (WHERE phase IN ('POSTED', 'POST_PENDING')), 0),
           coalesce(sum(CASE phase WHEN 'PENDING' THEN amount WHEN 'POSTED' THEN 0 ELSE -amount END), 0)
      INTO debits_posted_moved, debits_pending_moved
      FROM transfer WHERE debit_account = NEW.id AND debit_version = NEW.version;
    SELECT coalesce(sum(amount) FILTER (WHERE phase IN ('POSTED', 'POST_PENDING')), 0),
           coalesce(sum(CASE phase WHEN 'PENDING' THEN amount WHEN 'POSTED' THEN 0 ELSE -amount END), 0)
      INTO credits_posted_moved, credits_pending_moved
      FROM transfer WHERE credit_account = NEW.id AND credit_version = NEW.version;
    IF NEW.debits_posted - OLD.debits_posted <> debits_posted_moved
       OR NEW.debits_pending - OLD.debits_pending <> debits_pending_moved
       OR NEW.credits_posted - OLD.credits_posted <> credits_posted_moved
       OR NEW.credits_pending - OLD.credits_pending <> credits_pending_moved THEN
        RAISE EXCEPTION 'account % moved by other than its transfers', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER ledger_account_balanced AFTER INSERT OR UPDATE ON ledger_account
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_account_moves_by_its_transfers();

CREATE FUNCTION check_transfer_is_applied() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    resolved transfer%ROWTYPE;
BEGIN
    -- The write that reached this version was checked against all its transfers, so it is enough that it was reached
    -- in this very transaction or after it.
    IF NOT EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.debit_account AND version >= NEW.debit_version)
       OR NOT EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.credit_account AND version >= NEW.credit_version) THEN
        RAISE EXCEPTION 'transfer % moved no account', NEW.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.pending_id IS NOT NULL THEN
        SELECT * INTO STRICT resolved FROM transfer WHERE id = NEW.pending_id;
        IF resolved.phase <> 'PENDING' OR resolved.amount <> NEW.amount
           OR resolved.debit_account <> NEW.debit_account OR resolved.credit_account <> NEW.credit_account THEN
            RAISE EXCEPTION 'transfer % does not fit the pending one', NEW.id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER transfer_applied AFTER INSERT ON transfer
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer_is_applied();

-- A transfer is inserted in the write that its versions name: that closes the door on adding one to an old version.
CREATE FUNCTION check_transfer_version_is_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.debit_account AND version >= NEW.debit_version)
       OR EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.credit_account AND version >= NEW.credit_version) THEN
        RAISE EXCEPTION 'transfer % names a version that is past', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER transfer_version_is_next BEFORE INSERT ON transfer
    FOR EACH ROW EXECUTE FUNCTION check_transfer_version_is_next();

CREATE TABLE escrow (
    order_id text PRIMARY KEY,
    account_id text NOT NULL,
    asset text NOT NULL,
    state text NOT NULL CHECK (state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING', 'CLOSED', 'TOMBSTONE')),
    deposited bigint NOT NULL CHECK (deposited >= 0),
    charged bigint NOT NULL CHECK (charged >= 0),
    refunded bigint NOT NULL CHECK (refunded >= 0),
    top_up bigint NOT NULL CHECK (top_up >= 0),
    budget bigint NOT NULL CHECK (budget >= 0),
    create_time timestamptz NOT NULL,
    end_time timestamptz,
    close_time timestamptz,
    funds_end_asked boolean NOT NULL DEFAULT false,
    version bigint NOT NULL CHECK (version >= 0),
    -- What opened it, so that a repeat with other input is refused.
    opening jsonb NOT NULL,
    CHECK (charged + refunded <= deposited),
    CHECK (state NOT IN ('CLOSED', 'TOMBSTONE') OR charged + refunded = deposited)
);
CREATE INDEX escrow_live ON escrow (order_id) WHERE state IN ('OPEN', 'LOW', 'SUSPENDED', 'CLOSING');
CREATE INDEX escrow_account ON escrow (account_id);

CREATE TABLE metering (
    order_id text NOT NULL REFERENCES escrow (order_id),
    group_index integer NOT NULL CHECK (group_index >= 0),
    generation bigint NOT NULL CHECK (generation >= 1),
    lease_id text NOT NULL UNIQUE,
    tenant_id text NOT NULL,
    provider_id text NOT NULL,
    provider_account_id text NOT NULL,
    provider_public_key bytea NOT NULL CHECK (length(provider_public_key) = 32),
    asset text NOT NULL,
    price_micros_per_hour bigint NOT NULL CHECK (price_micros_per_hour >= 0),
    take_basis_points integer NOT NULL CHECK (take_basis_points BETWEEN 0 AND 10000),
    pool_basis_points integer NOT NULL CHECK (pool_basis_points BETWEEN 0 AND 10000),
    heartbeat_interval_ms bigint NOT NULL CHECK (heartbeat_interval_ms >= 1),
    start_time timestamptz NOT NULL,
    ready boolean NOT NULL DEFAULT false,
    ended boolean NOT NULL DEFAULT false,
    proven_ms bigint NOT NULL DEFAULT 0 CHECK (proven_ms >= 0),
    slack_ms bigint,
    charge_through_time timestamptz,
    final boolean NOT NULL DEFAULT false,
    -- The last receipts, newest last: bounded by the domain.
    recent jsonb NOT NULL DEFAULT '[]',
    charge_sequence bigint NOT NULL DEFAULT 0 CHECK (charge_sequence >= 0),
    charged_ms bigint NOT NULL DEFAULT 0 CHECK (charged_ms >= 0),
    charged_micros bigint NOT NULL DEFAULT 0 CHECK (charged_micros >= 0),
    PRIMARY KEY (order_id, group_index, generation),
    CHECK (charged_ms <= proven_ms)
);
CREATE INDEX metering_uncharged ON metering (order_id) WHERE charged_ms < proven_ms;

-- Proofs of leases that settlement has not heard of yet; applied when LeaseCreated comes, bounded per provider.
CREATE TABLE parked_proof (
    lease_id text NOT NULL,
    sequence bigint NOT NULL,
    provider_id text NOT NULL,
    receive_time timestamptz NOT NULL,
    outage_ms bigint NOT NULL CHECK (outage_ms >= 0),
    proof bytea NOT NULL,
    PRIMARY KEY (lease_id, sequence, receive_time)
);
CREATE INDEX parked_proof_provider ON parked_proof (provider_id, receive_time);

CREATE TABLE charge (
    id text PRIMARY KEY,
    order_id text NOT NULL,
    group_index integer NOT NULL,
    generation bigint NOT NULL,
    lease_id text NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 1),
    tenant_id text NOT NULL,
    provider_account_id text NOT NULL,
    asset text NOT NULL,
    from_running_ms bigint NOT NULL CHECK (from_running_ms >= 0),
    to_running_ms bigint NOT NULL,
    price_micros_per_hour bigint NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    fee bigint NOT NULL CHECK (fee >= 0),
    pool bigint NOT NULL CHECK (pool >= 0),
    short bigint NOT NULL CHECK (short >= 0),
    proof_level text NOT NULL CHECK (proof_level IN ('ATTESTED', 'PROBED')),
    create_time timestamptz NOT NULL,
    FOREIGN KEY (order_id, group_index, generation) REFERENCES metering (order_id, group_index, generation),
    UNIQUE (order_id, group_index, generation, sequence),
    UNIQUE (order_id, group_index, generation, from_running_ms),
    CHECK (to_running_ms > from_running_ms),
    CHECK (fee + pool <= amount),
    -- Exact: what is charged and what is short is what is due, each sum to date rounded down.
    CHECK (
        amount::numeric + short
        = div(price_micros_per_hour::numeric * to_running_ms, 3600000)
        - div(price_micros_per_hour::numeric * from_running_ms, 3600000)
    )
);
CREATE TRIGGER charge_never_changes BEFORE UPDATE OR DELETE ON charge
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE INDEX charge_tenant ON charge (tenant_id, id);
CREATE INDEX charge_provider ON charge (provider_account_id, id);

-- Charges that are in no batch yet: a queue, so that sealing never searches all charges.
CREATE TABLE unbatched_charge (
    charge_id text PRIMARY KEY REFERENCES charge (id),
    create_time timestamptz NOT NULL
);
CREATE INDEX unbatched_charge_age ON unbatched_charge (create_time, charge_id);

CREATE TABLE batch (
    number bigint PRIMARY KEY CHECK (number >= 1),
    chain_id bigint NOT NULL,
    anchor_address text NOT NULL,
    parent_commitment bytea NOT NULL CHECK (length(parent_commitment) = 32),
    payout_parent bigint NOT NULL CHECK (payout_parent >= 0),
    settlement_root bytea NOT NULL CHECK (length(settlement_root) = 32),
    payout_root bytea NOT NULL CHECK (length(payout_root) = 32),
    charge_count bigint NOT NULL CHECK (charge_count >= 1),
    payout_total bigint NOT NULL CHECK (payout_total >= 0),
    totals_hash bytea NOT NULL CHECK (length(totals_hash) = 32),
    commitment bytea NOT NULL UNIQUE CHECK (length(commitment) = 32),
    state text NOT NULL CHECK (state IN ('PENDING', 'SIGNED', 'SENT', 'MINED', 'FINAL')),
    transaction_hash text NOT NULL DEFAULT '',
    block_number bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL
);

CREATE TABLE batch_charge (
    charge_id text PRIMARY KEY REFERENCES charge (id),
    batch_number bigint NOT NULL REFERENCES batch (number),
    leaf_index bigint NOT NULL CHECK (leaf_index >= 0),
    UNIQUE (batch_number, leaf_index)
);
CREATE TRIGGER batch_charge_never_changes BEFORE UPDATE OR DELETE ON batch_charge
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Transactions of the signer: this table owns its nonces.
CREATE TABLE chain_transaction (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_number bigint NOT NULL REFERENCES batch (number),
    signer text NOT NULL,
    nonce bigint CHECK (nonce >= 0),
    state text NOT NULL CHECK (state IN ('PENDING', 'SIGNED', 'SENT', 'MINED', 'FINAL', 'ABANDONED')),
    gas_limit bigint,
    create_time timestamptz NOT NULL,
    CHECK ((nonce IS NULL) = (state = 'PENDING'))
);
CREATE UNIQUE INDEX chain_transaction_nonce ON chain_transaction (signer, nonce) WHERE state <> 'ABANDONED';
-- One anchor in flight, and one standing transaction for a batch.
CREATE UNIQUE INDEX chain_transaction_in_flight ON chain_transaction ((true))
    WHERE state IN ('PENDING', 'SIGNED', 'SENT', 'MINED');
CREATE UNIQUE INDEX chain_transaction_batch ON chain_transaction (batch_number) WHERE state <> 'ABANDONED';

CREATE TABLE chain_attempt (
    transaction_hash text PRIMARY KEY,
    transaction_id bigint NOT NULL REFERENCES chain_transaction (id),
    number integer NOT NULL CHECK (number >= 1),
    raw bytea NOT NULL,
    max_fee numeric(38, 0) NOT NULL,
    max_priority_fee numeric(38, 0) NOT NULL,
    create_time timestamptz NOT NULL,
    send_time timestamptz,
    UNIQUE (transaction_id, number)
);

CREATE TABLE scanned_block (
    number bigint PRIMARY KEY CHECK (number >= 0),
    hash text NOT NULL
);

CREATE TABLE deposit (
    id text PRIMARY KEY,
    account_id text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    sender text NOT NULL,
    state text NOT NULL CHECK (state IN ('PENDING', 'POSTED', 'VOIDED')),
    transaction_hash text NOT NULL,
    log_index bigint NOT NULL CHECK (log_index >= 0),
    block_number bigint NOT NULL CHECK (block_number >= 0),
    block_hash text NOT NULL,
    create_time timestamptz NOT NULL
);
-- A block that left the chain and came back brings its deposits again; the voided ones stay as they are.
CREATE UNIQUE INDEX deposit_log ON deposit (block_hash, log_index) WHERE state <> 'VOIDED';
CREATE INDEX deposit_account ON deposit (account_id, id);
CREATE INDEX deposit_pending ON deposit (block_number) WHERE state = 'PENDING';
