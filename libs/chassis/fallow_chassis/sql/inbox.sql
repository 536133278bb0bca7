-- name: insert_inbox
INSERT INTO inbox (consumer, event_id, topic, handled_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING event_id;

-- name: delete_inbox
DELETE FROM inbox
WHERE (consumer, event_id) IN (
    SELECT consumer, event_id FROM inbox WHERE handled_at < $1 ORDER BY handled_at LIMIT $2
);

-- name: lock_keys
SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest($1::text []) AS names (name);

-- name: load_key_state
SELECT
    coalesce((SELECT version FROM aggregate_version WHERE consumer = $1 AND topic = $2 AND key = $3), 0) AS version,
    EXISTS (
        SELECT 1 FROM parked_event WHERE consumer = $1 AND topic = $2 AND key = $3 AND reason = 'POISON'
    ) AS halted,
    EXISTS (SELECT 1 FROM parked_event WHERE consumer = $1 AND topic = $2 AND key = $3) AS parked;

-- name: save_version
INSERT INTO aggregate_version (consumer, topic, key, version)
VALUES ($1, $2, $3, $4)
ON CONFLICT (consumer, topic, key) DO UPDATE SET version = excluded.version
WHERE aggregate_version.version < excluded.version;

-- name: pass_over
-- Counts the next versions of keys, and nothing else: no row for one that is not the next one.
INSERT INTO aggregate_version AS seen (consumer, topic, key, version)
SELECT $1, came.topic, came.key, came.version
FROM unnest($2::text [], $3::text [], $4::bigint []) AS came (topic, key, version)
LEFT JOIN aggregate_version AS last
    ON last.consumer = $1 AND last.topic = came.topic AND last.key = came.key
WHERE came.version = coalesce(last.version, 0) + 1
ORDER BY came.topic, came.key
ON CONFLICT (consumer, topic, key) DO UPDATE SET version = excluded.version
WHERE seen.version = excluded.version - 1
RETURNING
    topic, key,
    EXISTS (
        SELECT 1 FROM parked_event
        WHERE parked_event.consumer = $1 AND parked_event.topic = seen.topic AND parked_event.key = seen.key
    ) AS parked;

-- name: insert_parked
INSERT INTO parked_event (consumer, event_id, topic, key, version, reason, error, payload, headers, parked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (consumer, event_id) DO UPDATE SET reason = excluded.reason, error = excluded.error;

-- name: load_parked
SELECT event_id, topic, key, version, reason, error, payload, headers, parked_at
FROM parked_event
WHERE consumer = $1 AND topic = $2 AND key = $3
ORDER BY version, sequence;

-- name: load_first_parked
SELECT event_id, topic, key, version, reason, error, payload, headers, parked_at
FROM parked_event
WHERE consumer = $1 AND topic = $2 AND key = $3
ORDER BY version, sequence
LIMIT 1;

-- name: list_halted_keys
SELECT topic, key, min(parked_at) AS parked_at, count(*) AS events
FROM parked_event
WHERE consumer = $1
GROUP BY topic, key
HAVING bool_or(reason = 'POISON')
ORDER BY parked_at;

-- name: delete_parked
DELETE FROM parked_event WHERE consumer = $1 AND event_id = $2;
