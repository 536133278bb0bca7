-- Vetoes of payout roots, as the anchor's logs told them; withdrawals wait until an operator has released each.
CREATE TABLE payout_veto (
    block_hash text NOT NULL,
    log_index bigint NOT NULL CHECK (log_index >= 0),
    batch_number bigint NOT NULL CHECK (batch_number >= 1),
    -- The first batch that was not anchored yet when the veto came.
    next_batch bigint NOT NULL CHECK (next_batch > batch_number),
    transaction_hash text NOT NULL,
    block_number bigint NOT NULL CHECK (block_number >= 0),
    create_time timestamptz NOT NULL,
    release_time timestamptz,
    PRIMARY KEY (block_hash, log_index)
);
CREATE INDEX payout_veto_open ON payout_veto (block_number) WHERE release_time IS NULL;

-- Whether a batch's payouts count, and up to which batch's withdrawals its payout root goes.
ALTER TABLE batch ADD COLUMN payable boolean NOT NULL DEFAULT true;
ALTER TABLE batch ADD COLUMN payouts_through bigint NOT NULL DEFAULT 0;
UPDATE batch SET payouts_through = number;
