-- What the platform gives: incentive programmes, promotional fees, grants from the community pool.

-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_kind_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE ledger_account ADD CONSTRAINT ledger_account_kind_check
    CHECK (kind IN ('BALANCE', 'ESCROW', 'EARNINGS', 'FEES', 'POOL', 'VAULT', 'CHAIN_LOSS', 'PAYABLE', 'PROGRAMME'));

-- Another take for the leases of an account; a lease takes the least that holds when it is made.
CREATE TABLE promotion (
    id text PRIMARY KEY,
    account_id text NOT NULL,
    asset text NOT NULL,
    take_basis_points integer NOT NULL CHECK (take_basis_points BETWEEN 0 AND 10000),
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    creator text NOT NULL,
    create_time timestamptz NOT NULL,
    CHECK (start_time >= create_time AND end_time >= start_time)
);
CREATE INDEX promotion_account ON promotion (account_id, asset);
CREATE INDEX promotion_create_time ON promotion (create_time DESC, id DESC);

CREATE TABLE community_grant (
    id text PRIMARY KEY,
    account_id text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    reason text NOT NULL CHECK (reason <> ''),
    creator text NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL CHECK (expire_time > create_time),
    pay_time timestamptz
);
CREATE INDEX community_grant_create_time ON community_grant (create_time DESC, id DESC);

CREATE TABLE grant_approval (
    grant_id text NOT NULL REFERENCES community_grant (id),
    account_id text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (grant_id, account_id)
);
CREATE TRIGGER grant_approval_never_changes BEFORE UPDATE OR DELETE ON grant_approval
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER community_grant_never_deleted BEFORE DELETE ON community_grant
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A grant changes once, by being paid, and is paid by two operators' words, neither of whom gets it.
CREATE FUNCTION check_grant_is_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.pay_time IS NOT NULL OR NEW.pay_time IS NULL OR NEW.pay_time >= OLD.expire_time
       OR (NEW.id, NEW.account_id, NEW.asset, NEW.amount, NEW.reason, NEW.creator, NEW.create_time, NEW.expire_time)
          IS DISTINCT FROM
          (OLD.id, OLD.account_id, OLD.asset, OLD.amount, OLD.reason, OLD.creator, OLD.create_time, OLD.expire_time) THEN
        RAISE EXCEPTION 'grant % is paid once, in time, and changes by nothing else', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (SELECT count(*) FROM grant_approval WHERE grant_id = OLD.id AND account_id <> OLD.account_id) < 2 THEN
        RAISE EXCEPTION 'grant % is not approved by two', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER grant_is_approved BEFORE UPDATE ON community_grant
    FOR EACH ROW EXECUTE FUNCTION check_grant_is_approved();

CREATE TABLE programme (
    id text PRIMARY KEY,
    model text NOT NULL CHECK (model <> ''),
    asset text NOT NULL,
    target_milli integer NOT NULL CHECK (target_milli BETWEEN 1 AND 1000),
    reference_micros_per_hour bigint NOT NULL CHECK (reference_micros_per_hour > 0),
    budget bigint NOT NULL CHECK (budget > 0),
    auditors text[] NOT NULL CHECK (cardinality(auditors) BETWEEN 1 AND 16),
    creator text NOT NULL,
    create_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL CHECK (end_time >= create_time),
    -- The next day (UTC) whose shares are not paid yet.
    next_day date NOT NULL,
    close_time timestamptz
);
CREATE INDEX programme_create_time ON programme (create_time DESC, id DESC);
CREATE INDEX programme_running ON programme (id) WHERE close_time IS NULL;

-- What a programme counted of a provider up to the end of a day, and what it paid for that day.
CREATE TABLE programme_share (
    programme_id text NOT NULL REFERENCES programme (id),
    day date NOT NULL,
    provider_id text NOT NULL,
    account_id text NOT NULL,
    online_ms bigint NOT NULL CHECK (online_ms >= 0),
    related_ms bigint NOT NULL CHECK (related_ms >= 0),
    earned bigint NOT NULL CHECK (earned >= 0),
    due bigint NOT NULL CHECK (due >= 0),
    paid bigint NOT NULL CHECK (paid >= 0),
    short bigint NOT NULL CHECK (short >= 0),
    PRIMARY KEY (programme_id, day, provider_id)
);
CREATE TRIGGER programme_share_never_changes BEFORE UPDATE OR DELETE ON programme_share
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What bidding says of an hour: how long a provider's devices of a model were online that an auditor vouches for.
CREATE TABLE online_time (
    provider_id text NOT NULL,
    model text NOT NULL,
    asset text NOT NULL,
    auditor text NOT NULL,
    start_time timestamptz NOT NULL,
    account_id text NOT NULL,
    ask_micros_per_hour bigint NOT NULL CHECK (ask_micros_per_hour >= 0),
    online_ms bigint NOT NULL CHECK (online_ms >= 0),
    PRIMARY KEY (model, asset, start_time, provider_id, auditor)
);

-- Which models a lease's devices are of, in thousandths of a device.
CREATE TABLE lease_model (
    lease_id text NOT NULL REFERENCES metering (lease_id),
    model text NOT NULL,
    milli integer NOT NULL CHECK (milli > 0),
    PRIMARY KEY (lease_id, model)
);
CREATE INDEX lease_model_model ON lease_model (model);
