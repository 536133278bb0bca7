-- name: try_lead
SELECT pg_try_advisory_lock($1)

-- name: end_other_passes
-- Ends the transactions of others that hold the decisions lock: a deposed leader's, which may never go on by itself.
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = (($1::bigint >> 32) & 4294967295)::oid AND objid = ($1::bigint & 4294967295)::oid
    AND pid <> pg_backend_pid()

-- name: next_term
INSERT INTO engine_lead (market, term) VALUES ($1, 1)
ON CONFLICT (market) DO UPDATE SET term = engine_lead.term + 1
RETURNING term

-- name: load_term
SELECT term FROM engine_lead WHERE market = $1

-- name: lock_decisions
SELECT pg_advisory_xact_lock($1)
