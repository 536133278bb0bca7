-- name: next_update_number
SELECT update_number + 1 FROM orders WHERE id = $1;

-- name: take_update_number
UPDATE orders SET update_number = update_number + 1 WHERE id = $1 RETURNING update_number;

-- name: load_update_applied
SELECT update_applied FROM orders WHERE id = $1;

-- name: save_update
INSERT INTO order_update (
    order_id, number, request_id, restoring, specification, labels, hold_micros, budget_micros, auto_top_up, term_ms,
    revisions, summary, due_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (order_id) DO UPDATE SET
    number = excluded.number, request_id = excluded.request_id, restoring = excluded.restoring,
    specification = excluded.specification, labels = excluded.labels, hold_micros = excluded.hold_micros,
    budget_micros = excluded.budget_micros, auto_top_up = excluded.auto_top_up, term_ms = excluded.term_ms,
    revisions = excluded.revisions, summary = excluded.summary, due_at = excluded.due_at;

-- name: load_update
SELECT order_update.*, orders.asset
FROM order_update
JOIN orders ON orders.id = order_update.order_id
WHERE order_update.order_id = $1;

-- name: list_due_updates
SELECT order_update.*, orders.asset
FROM order_update
JOIN orders ON orders.id = order_update.order_id
WHERE order_update.due_at <= $1
ORDER BY order_update.due_at
LIMIT $2;

-- name: postpone_update
UPDATE order_update SET due_at = $3 WHERE order_id = $1 AND number = $2;

-- name: delete_update
DELETE FROM order_update WHERE order_id = $1 AND number = $2;

-- name: apply_update
UPDATE orders SET
    specification = $2, hold_micros = $3, budget_micros = $4, auto_top_up = $5, term_ms = $6,
    update_applied = greatest(update_applied, $7)
WHERE id = $1;

-- name: insert_workload
INSERT INTO workload (order_id, group_index, key_id, nonce, ciphertext, revision) VALUES ($1, $2, $3, $4, $5, $6);

-- name: set_group_revision
UPDATE order_group SET revision = $3 WHERE order_id = $1 AND index = $2;

-- name: note_lease_revision
UPDATE order_group SET lease_revision = $4 WHERE order_id = $1 AND index = $2 AND generation = $3;

-- name: delete_older_workloads
DELETE FROM workload
USING order_group
WHERE
    workload.order_id = $1 AND workload.group_index = $2
    AND order_group.order_id = $1 AND order_group.index = $2
    AND order_group.generation = $3 AND order_group.state = 'RUNNING'
    AND workload.revision < order_group.lease_revision;

-- name: delete_newer_workloads
DELETE FROM workload
USING order_group
WHERE
    workload.order_id = $1
    AND order_group.order_id = $1 AND order_group.index = workload.group_index
    AND workload.revision > order_group.revision;
