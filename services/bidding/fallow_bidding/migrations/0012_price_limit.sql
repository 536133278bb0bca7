-- What the tenant was willing to pay for the lease when it was made: no lease costs more.
ALTER TABLE lease ADD COLUMN limit_micros bigint;
ALTER TABLE lease ADD CONSTRAINT lease_within_limit CHECK (price_micros <= limit_micros) NOT VALID;
