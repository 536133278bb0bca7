-- name: insert_outbox
-- The relay is told at commit: one signal, however many rows.
WITH stated AS (
    INSERT INTO outbox (event_id, topic, key, version, type, subject, payload, headers, created_at)
    SELECT event_id, topic, key, version, type, subject, payload, headers::jsonb, $9
    FROM unnest(
        $1::text [], $2::text [], $3::text [], $4::bigint [], $5::text [], $6::text [], $7::bytea [], $8::text []
    ) WITH ORDINALITY AS new (event_id, topic, key, version, type, subject, payload, headers, place)
    ORDER BY place
)
SELECT pg_notify($10, '');

-- name: lock_outbox
SELECT pg_try_advisory_lock($1);

-- name: load_unsent
SELECT sequence, topic, key, payload, headers, created_at
FROM outbox
WHERE sent_at IS NULL
ORDER BY sequence
LIMIT $1;

-- name: mark_sent
UPDATE outbox SET sent_at = $2 WHERE sequence = ANY ($1::bigint []) AND sent_at IS NULL;

-- name: delete_sent
DELETE FROM outbox
WHERE sequence IN (
    SELECT sequence FROM outbox WHERE sent_at < $1 ORDER BY sent_at LIMIT $2
);
