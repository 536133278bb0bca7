-- Changes of groups stand in an order's history beside its own, with numbers of the same sequence. A row that was there
-- before is a change of the order itself: no group, no lease.

ALTER TABLE order_transition
ADD COLUMN group_id text NOT NULL DEFAULT '',
ADD COLUMN source_group_state text,
ADD COLUMN target_group_state text,
ADD COLUMN lease text NOT NULL DEFAULT '',
ADD COLUMN provider text NOT NULL DEFAULT '',
ADD COLUMN generation bigint NOT NULL DEFAULT 0;
