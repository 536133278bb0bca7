-- The agent's state in SQLite. Times are milliseconds; placements and workloads are JSON and protobuf.

-- name: create_schema
CREATE TABLE IF NOT EXISTS fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS command (
    command_id TEXT PRIMARY KEY,
    outcome INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    number INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS highest_generation (
    order_name TEXT NOT NULL,
    group_index INTEGER NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    PRIMARY KEY (order_name, group_index)
) STRICT;
CREATE TABLE IF NOT EXISTS run (
    order_name TEXT NOT NULL,
    group_index INTEGER NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    lease TEXT NOT NULL,
    placements TEXT NOT NULL,
    self_stop_ms INTEGER NOT NULL,
    start_timeout_ms INTEGER NOT NULL,
    order_address TEXT NOT NULL,
    workload_grant TEXT NOT NULL,
    accepted_at_ms INTEGER NOT NULL,
    machine_boot_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    progress TEXT NOT NULL,
    grace_ms INTEGER NOT NULL,
    running_ms INTEGER NOT NULL CHECK (running_ms >= 0),
    proof_sequence INTEGER NOT NULL,
    final_sequence INTEGER NOT NULL,
    final_acknowledged INTEGER NOT NULL,
    workload BLOB,
    PRIMARY KEY (order_name, group_index, generation)
) STRICT;
CREATE TABLE IF NOT EXISTS restart (
    container TEXT PRIMARY KEY,
    lease TEXT NOT NULL,
    restarts INTEGER NOT NULL
) STRICT;

-- name: load_fact
SELECT value FROM fact WHERE name = :name;

-- name: save_fact
INSERT INTO fact (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: load_command
SELECT outcome, reason, detail FROM command WHERE command_id = :command_id;

-- name: save_command
INSERT INTO command (command_id, outcome, reason, detail, number)
VALUES (
    :command_id, :outcome, :reason, :detail, (SELECT coalesce(max(number), 0) + 1 FROM command)
);

-- name: forget_old_commands
DELETE FROM command WHERE number <= (SELECT max(number) FROM command) - :kept;

-- name: load_highest_generation
SELECT generation FROM highest_generation WHERE order_name = :order_name AND group_index = :group_index;

-- name: raise_highest_generation
INSERT INTO highest_generation (order_name, group_index, generation)
VALUES (:order_name, :group_index, :generation)
ON CONFLICT (order_name, group_index) DO UPDATE SET generation = max(generation, excluded.generation);

-- name: save_run
INSERT INTO run (
    order_name, group_index, generation, lease, placements, self_stop_ms, start_timeout_ms, order_address,
    workload_grant, accepted_at_ms, machine_boot_id, state, reason, detail, progress, grace_ms, running_ms,
    proof_sequence, final_sequence, final_acknowledged
)
VALUES (
    :order_name, :group_index, :generation, :lease, :placements, :self_stop_ms, :start_timeout_ms, :order_address,
    :workload_grant, :accepted_at_ms, :machine_boot_id, :state, :reason, :detail, :progress, :grace_ms, :running_ms,
    :proof_sequence, :final_sequence, :final_acknowledged
)
ON CONFLICT (order_name, group_index, generation) DO UPDATE SET
    workload_grant = excluded.workload_grant,
    state = excluded.state,
    reason = excluded.reason,
    detail = excluded.detail,
    progress = excluded.progress,
    grace_ms = excluded.grace_ms,
    running_ms = excluded.running_ms,
    proof_sequence = excluded.proof_sequence,
    final_sequence = excluded.final_sequence,
    final_acknowledged = excluded.final_acknowledged;

-- name: load_runs
SELECT
    order_name, group_index, generation, lease, placements, self_stop_ms, start_timeout_ms, order_address,
    workload_grant, accepted_at_ms, machine_boot_id, state, reason, detail, progress, grace_ms, running_ms,
    proof_sequence, final_sequence, final_acknowledged
FROM run
ORDER BY order_name, group_index, generation;

-- name: save_workload
UPDATE run SET workload = :workload
WHERE order_name = :order_name AND group_index = :group_index AND generation = :generation;

-- name: load_workload
SELECT workload FROM run
WHERE order_name = :order_name AND group_index = :group_index AND generation = :generation;

-- name: forget_run
DELETE FROM run
WHERE order_name = :order_name AND group_index = :group_index AND generation = :generation;

-- name: count_restart
INSERT INTO restart (container, lease, restarts) VALUES (:container, :lease, 1)
ON CONFLICT (container) DO UPDATE SET restarts = restarts + 1;

-- name: load_restarts
SELECT restarts FROM restart WHERE container = :container;

-- name: forget_restarts
DELETE FROM restart WHERE lease = :lease;
