-- name: insert_claims
INSERT INTO idempotency (caller, method, request_id, request_hash, resource, created_at)
SELECT caller, method, request_id, request_hash, resource, $6
FROM unnest($1::text [], $2::text [], $3::text [], $4::bytea [], $5::text [])
    AS wish (caller, method, request_id, request_hash, resource)
ORDER BY caller, method, request_id
ON CONFLICT DO NOTHING
RETURNING caller, method, request_id;

-- name: load_claims
SELECT caller, method, request_id, request_hash, resource
FROM idempotency
WHERE (caller, method, request_id) IN (
    SELECT caller, method, request_id
    FROM unnest($1::text [], $2::text [], $3::text []) AS wish (caller, method, request_id)
);

-- name: delete_claims_of
DELETE FROM idempotency
USING unnest($1::text [], $3::text []) AS undone (caller, resource)
WHERE idempotency.resource = undone.resource AND idempotency.caller = undone.caller AND idempotency.method = $2;

-- name: delete_claims
DELETE FROM idempotency
WHERE (caller, method, request_id) IN (
    SELECT caller, method, request_id FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2
);
