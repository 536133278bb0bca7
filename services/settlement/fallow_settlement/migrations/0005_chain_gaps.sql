-- A confirmed deposit that left the chain all the same: what the vault lacks since, until it is mined again or an operator decides.
CREATE TABLE chain_gap (
    id text PRIMARY KEY,
    deposit_id text NOT NULL REFERENCES deposit (id),
    state text NOT NULL CHECK (state IN ('OPEN', 'REPAIRED', 'WRITTEN_OFF', 'RECOVERED')),
    -- Of the tenant's free balance, held back until then.
    frozen bigint NOT NULL CHECK (frozen >= 0),
    create_time timestamptz NOT NULL,
    resolve_time timestamptz,
    CHECK ((state = 'OPEN') = (resolve_time IS NULL))
);
CREATE UNIQUE INDEX chain_gap_unrepaired ON chain_gap (deposit_id) WHERE state <> 'REPAIRED';
CREATE INDEX chain_gap_open ON chain_gap (id) WHERE state = 'OPEN';

-- A deposit that is mined again repairs a gap and is not credited once more.
-- squawk-ignore adding-foreign-key-constraint
ALTER TABLE deposit ADD COLUMN repairs text REFERENCES chain_gap (id);
-- squawk-ignore ban-drop-constraint
ALTER TABLE deposit DROP CONSTRAINT deposit_state_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE deposit ADD CONSTRAINT deposit_state_check CHECK (state IN ('PENDING', 'POSTED', 'VOIDED', 'LOST'));
