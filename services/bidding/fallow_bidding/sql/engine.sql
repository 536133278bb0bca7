-- name: try_lead
SELECT pg_try_advisory_lock($1)

-- name: lock_decisions
SELECT pg_advisory_xact_lock($1)
