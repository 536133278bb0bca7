-- name: insert_claim
INSERT INTO idempotency (caller, method, request_id, request_hash, resource, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING resource;

-- name: load_claim
SELECT request_hash, resource FROM idempotency WHERE caller = $1 AND method = $2 AND request_id = $3;

-- name: delete_claim_of
DELETE FROM idempotency WHERE caller = $1 AND method = $2 AND resource = $3;

-- name: delete_claims
DELETE FROM idempotency
WHERE (caller, method, request_id) IN (
    SELECT caller, method, request_id FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2
);
