-- Spot leases: which they are, and the notices of those whose room another order gets.

ALTER TABLE lease
ADD COLUMN spot boolean NOT NULL DEFAULT false,
ADD COLUMN preempt_time timestamptz(3),
-- The group that gets the room.
ADD COLUMN preempt_order_id text,
ADD COLUMN preempt_group_index integer;

ALTER TABLE lease ADD CONSTRAINT lease_preemption_whole
CHECK (num_nulls(preempt_time, preempt_order_id, preempt_group_index) IN (0, 3)) NOT VALID;
ALTER TABLE lease ADD CONSTRAINT lease_preempts_spot CHECK (spot OR preempt_time IS NULL) NOT VALID;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX lease_noticed ON lease (preempt_time) WHERE preempt_time IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX lease_preemptible ON lease (price_micros, lease_id)
WHERE spot AND state = 'RUNNING' AND preempt_time IS NULL;
