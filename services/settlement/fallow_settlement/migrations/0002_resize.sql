-- An order may change what its escrow holds: the sum that it asked for last, and the number of that change.

ALTER TABLE escrow ADD COLUMN hold bigint NOT NULL DEFAULT 0 CHECK (hold >= 0);
ALTER TABLE escrow ADD COLUMN resizes bigint NOT NULL DEFAULT 0 CHECK (resizes >= 0);
UPDATE escrow SET hold = coalesce((opening ->> 'amount')::bigint, 0);
