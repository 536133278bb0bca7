-- Chains of transfers that stand or fall together, pending transfers that expire, accounts that are closed.
ALTER TABLE transfer ADD COLUMN linked boolean NOT NULL DEFAULT false;
ALTER TABLE transfer ADD COLUMN timeout_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE transfer ADD COLUMN expire_time timestamptz;
ALTER TABLE ledger_account ADD COLUMN closed boolean NOT NULL DEFAULT false;

-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_phase_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE transfer ADD CONSTRAINT transfer_phase_check
    CHECK (phase IN ('POSTED', 'PENDING', 'POST_PENDING', 'VOID_PENDING', 'EXPIRE_PENDING'));
-- squawk-ignore ban-drop-constraint
ALTER TABLE transfer DROP CONSTRAINT transfer_check1;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE transfer ADD CONSTRAINT transfer_resolves
    CHECK ((pending_id IS NOT NULL) = (phase IN ('POST_PENDING', 'VOID_PENDING', 'EXPIRE_PENDING')));
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE transfer ADD CONSTRAINT transfer_timeout
    CHECK (timeout_ms >= 0 AND (timeout_ms = 0 OR phase = 'PENDING') AND (timeout_ms > 0) = (expire_time IS NOT NULL));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX transfer_expiring ON transfer (expire_time) WHERE expire_time IS NOT NULL;

-- A closed account is never opened again, and nothing but the end of a pending transfer moves it.
CREATE FUNCTION check_account_stays_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.closed AND (NOT NEW.closed OR NEW.debits_posted + NEW.credits_posted <> OLD.debits_posted + OLD.credits_posted
                       AND NEW.debits_pending + NEW.credits_pending >= OLD.debits_pending + OLD.credits_pending) THEN
        RAISE EXCEPTION 'account % is closed', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ledger_account_stays_closed BEFORE UPDATE ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION check_account_stays_closed();
