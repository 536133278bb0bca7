-- name: notify
SELECT pg_notify($1, key) FROM unnest($2::text []) AS keys (key);
