-- A lease that has ended says why, whoever writes it: held for every row that is written from now on.
ALTER TABLE lease ADD CONSTRAINT lease_evidence CHECK ((end_time IS NULL) = (evidence IS NULL)) NOT VALID;
