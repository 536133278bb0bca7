-- A charge is made at the price of its generation, which was fixed when the lease was made.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX metering_price ON metering (lease_id, price_micros_per_hour);
-- squawk-ignore constraint-missing-not-valid, adding-foreign-key-constraint
ALTER TABLE charge ADD CONSTRAINT charge_at_quoted_price
    FOREIGN KEY (lease_id, price_micros_per_hour) REFERENCES metering (lease_id, price_micros_per_hour);
