-- A deposit whose reference is no account's waits for an operator, who says whose it is.
-- squawk-ignore ban-drop-constraint
ALTER TABLE deposit DROP CONSTRAINT deposit_state_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE deposit ADD CONSTRAINT deposit_state_check
    CHECK (state IN ('PENDING', 'POSTED', 'VOIDED', 'LOST', 'STRAY'));
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE deposit ADD CONSTRAINT deposit_stray CHECK ((state = 'STRAY') = (account_id = '') OR state = 'VOIDED');
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX deposit_stray ON deposit (block_number) WHERE state = 'STRAY';
