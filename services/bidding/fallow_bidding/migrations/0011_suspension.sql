-- Whether an order is paused for want of funds, and the number of the last word of settlement on that.
ALTER TABLE market_order ADD COLUMN suspended boolean NOT NULL DEFAULT false;
ALTER TABLE market_order ADD COLUMN suspension_number bigint NOT NULL DEFAULT 0;
