-- name: insert_command
INSERT INTO command (command_id, lease_id, provider_id, kind, stop_reason, create_time, next_send_time)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT (lease_id, kind) DO NOTHING

-- name: take_due_commands
UPDATE command SET next_send_time = $2, sends = sends + 1
WHERE command_id IN (
    SELECT command_id FROM command
    WHERE outcome = '' AND next_send_time <= $1
    ORDER BY next_send_time
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
RETURNING command_id, lease_id, provider_id, kind, stop_reason

-- name: record_outcome
UPDATE command SET outcome = $2, outcome_time = $3, reason = $4, detail = $5
WHERE command_id = $1 AND outcome = ''
RETURNING command_id

-- name: drop_run_command
UPDATE command SET outcome = 'DROPPED', outcome_time = $2 WHERE lease_id = $1 AND kind = 'RUN' AND outcome = ''

-- name: acknowledge_run_command
UPDATE command SET outcome = 'ACCEPTED', outcome_time = $2 WHERE lease_id = $1 AND kind = 'RUN' AND outcome = ''

-- name: drop_commands
UPDATE command SET outcome = 'DROPPED', outcome_time = $2 WHERE lease_id = $1 AND outcome = ''

-- name: load_stop_times
SELECT lease_id, outcome_time FROM command
WHERE lease_id = ANY($1::text[]) AND kind = 'STOP' AND outcome = 'ACCEPTED'
