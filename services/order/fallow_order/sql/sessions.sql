-- name: insert_nonce
INSERT INTO sign_in_nonce (nonce, address, peer, created_at, expires_at) VALUES ($1, $2, $3, $4, $5);

-- name: count_nonces
SELECT count(*) AS waiting, min(expires_at) AS next_at FROM sign_in_nonce WHERE peer = $1 AND expires_at > $2;

-- name: take_nonce
DELETE FROM sign_in_nonce WHERE nonce = $1 RETURNING address, expires_at;

-- name: delete_old_nonces
DELETE FROM sign_in_nonce
WHERE nonce IN (SELECT nonce FROM sign_in_nonce WHERE expires_at < $1 ORDER BY expires_at LIMIT $2);

-- name: insert_account
INSERT INTO account (id, address, created_at) VALUES ($1, $2, $3) ON CONFLICT (address) DO NOTHING;

-- name: load_account_by_address
SELECT id, address, created_at FROM account WHERE address = $1;

-- name: load_account_by_identity
SELECT account.id, account.address, account.created_at
FROM oidc_identity
INNER JOIN account ON oidc_identity.account = account.id
WHERE oidc_identity.issuer = $1 AND oidc_identity.subject = $2;

-- name: insert_account_of_identity
WITH identity AS (
    INSERT INTO oidc_identity (issuer, subject, account, created_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
    RETURNING account, created_at
)
INSERT INTO account (id, address, created_at) SELECT identity.account, NULL, identity.created_at FROM identity;

-- name: load_account
SELECT id, address, created_at FROM account WHERE id = $1;

-- name: insert_api_key
INSERT INTO api_key (id, account, display_name, scopes, secret_hash, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: load_api_key
SELECT id, account, display_name, scopes, created_at, last_used_at, expires_at
FROM api_key
WHERE id = $1 AND account = $2;

-- name: use_api_key
UPDATE api_key SET last_used_at = $2
WHERE secret_hash = $1
RETURNING id, account, display_name, scopes, created_at, last_used_at, expires_at;

-- name: count_api_keys
SELECT count(*) FROM api_key WHERE account = $1 AND (expires_at IS NULL OR expires_at > $2);

-- name: delete_old_api_keys
DELETE FROM api_key
WHERE id IN (SELECT id FROM api_key WHERE expires_at < $1 ORDER BY expires_at LIMIT $2);

-- name: list_api_keys
SELECT id, account, display_name, scopes, created_at, last_used_at, expires_at
FROM api_key
WHERE account = $1 AND ($2::text = '' OR id < $2)
ORDER BY id DESC
LIMIT $3;

-- name: delete_api_key
DELETE FROM api_key WHERE id = $1 AND account = $2;
