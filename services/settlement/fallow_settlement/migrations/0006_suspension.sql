-- A used-up escrow is suspended for a grace, and may be resumed: until when, how often that changed, and what bidding knows.
ALTER TABLE escrow ADD COLUMN grace_end_time timestamptz;
ALTER TABLE escrow ADD COLUMN pauses bigint NOT NULL DEFAULT 0;
ALTER TABLE escrow ADD COLUMN pauses_told bigint NOT NULL DEFAULT 0;
UPDATE escrow SET grace_end_time = create_time WHERE state = 'SUSPENDED';
ALTER TABLE escrow ADD CONSTRAINT escrow_pauses CHECK (0 <= pauses_told AND pauses_told <= pauses) NOT VALID;
ALTER TABLE escrow ADD CONSTRAINT escrow_grace CHECK (state <> 'SUSPENDED' OR grace_end_time IS NOT NULL) NOT VALID;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX escrow_suspended ON escrow (order_id) WHERE state = 'SUSPENDED';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX escrow_untold ON escrow (order_id) WHERE pauses_told < pauses;
