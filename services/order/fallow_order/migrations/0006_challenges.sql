-- Challenges count against the address that asked for them, not against the wallet that they name: whoever asks in
-- another's name must not be able to lock that wallet out.

ALTER TABLE sign_in_nonce ADD COLUMN peer text NOT NULL DEFAULT '';

-- squawk-ignore require-concurrent-index-deletion
DROP INDEX sign_in_nonce_address;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX sign_in_nonce_peer ON sign_in_nonce (peer);
