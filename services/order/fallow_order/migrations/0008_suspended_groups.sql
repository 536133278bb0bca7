-- A group may be paused for want of funds.
-- squawk-ignore ban-drop-constraint
ALTER TABLE order_group DROP CONSTRAINT order_group_state_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE order_group ADD CONSTRAINT order_group_state_check CHECK (
    state IN ('OPEN', 'LEASED', 'RUNNING', 'LOST', 'ENDED', 'SUSPENDED')
);
