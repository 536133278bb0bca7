-- An anchor that was final and is on the chain no more waits, with its nonce and its signed bytes, until it is its turn to be sent again.
-- squawk-ignore ban-drop-constraint
ALTER TABLE chain_transaction DROP CONSTRAINT chain_transaction_state_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE chain_transaction ADD CONSTRAINT chain_transaction_state_check
    CHECK (state IN ('PENDING', 'SIGNED', 'SENT', 'MINED', 'FINAL', 'LOST', 'ABANDONED'));
