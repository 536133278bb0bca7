-- Revisions of workloads: what a group is to run, and what its newest lease was matched with.

ALTER TABLE lease ADD COLUMN group_revision integer NOT NULL DEFAULT 1 CHECK (group_revision > 0);

ALTER TABLE order_group
ADD COLUMN revision integer NOT NULL DEFAULT 1 CHECK (revision > 0),
-- 0 before the first lease.
ADD COLUMN leased_revision integer NOT NULL DEFAULT 0 CHECK (leased_revision >= 0);

UPDATE order_group SET leased_revision = 1 WHERE generation > 0;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX order_group_changed ON order_group (order_id) WHERE state = 'LEASED' AND leased_revision < revision;
