-- A reserved term that its tenant closes early owes running time beyond what is proven: a charge of its own, marked as such.
ALTER TABLE metering ADD COLUMN early_close_ms bigint NOT NULL DEFAULT 0;
-- squawk-ignore ban-drop-constraint
ALTER TABLE metering DROP CONSTRAINT metering_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE metering ADD CONSTRAINT metering_charged
    CHECK (early_close_ms >= 0 AND charged_ms <= proven_ms + early_close_ms);
-- squawk-ignore ban-drop-constraint
ALTER TABLE charge DROP CONSTRAINT charge_proof_level_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE charge ADD CONSTRAINT charge_proof_level_check CHECK (proof_level IN ('ATTESTED', 'PROBED', 'TERM'));
