-- Changes of live orders: revisions of workloads, and what is on its way to be changed.

ALTER TABLE orders
ADD COLUMN update_number bigint NOT NULL DEFAULT 0 CHECK (update_number >= 0),
-- The number of the last change that was made; others were refused, or asked for no money.
ADD COLUMN update_applied bigint NOT NULL DEFAULT 0 CHECK (update_applied >= 0);

ALTER TABLE order_group
ADD COLUMN revision integer NOT NULL DEFAULT 1 CHECK (revision > 0),
-- The revision that the present generation was matched with; 0 before the first.
ADD COLUMN lease_revision integer NOT NULL DEFAULT 0 CHECK (lease_revision >= 0);

-- Nothing has been released, so the table may be held while its key is made anew.
ALTER TABLE workload ADD COLUMN revision integer NOT NULL DEFAULT 1 CHECK (revision > 0);
-- squawk-ignore ban-drop-constraint, constraint-missing-not-valid, adding-serial-primary-key-field
ALTER TABLE workload DROP CONSTRAINT workload_pkey, ADD PRIMARY KEY (order_id, group_index, revision);

-- A change that settlement was or is to be asked about. New workloads stand in `workload`, above the group's revision.
CREATE TABLE order_update (
    order_id text PRIMARY KEY REFERENCES orders (id) ON DELETE CASCADE,
    number bigint NOT NULL CHECK (number > 0),
    request_id text NOT NULL,
    -- True where the change was refused, and settlement is told once more what the order holds as it is.
    restoring boolean NOT NULL,
    specification bytea NOT NULL,
    labels jsonb NOT NULL,
    hold_micros bigint NOT NULL CHECK (hold_micros > 0),
    budget_micros bigint CHECK (budget_micros > 0),
    auto_top_up boolean NOT NULL,
    term_ms bigint CHECK (term_ms > 0),
    -- The revision of each group's workload after the change.
    revisions integer [] NOT NULL,
    summary text NOT NULL,
    due_at timestamptz(3) NOT NULL
);

CREATE INDEX order_update_due ON order_update (due_at);
