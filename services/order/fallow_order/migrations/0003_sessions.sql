-- Accounts without a wallet, who come by an OpenID Connect issuer; what quotas count.
-- Nothing has been released, so no older code runs beside this; a migration is one transaction, so no index is made
-- concurrently.

-- squawk-ignore ban-drop-not-null
ALTER TABLE account ALTER COLUMN address DROP NOT NULL;

-- An account by what an issuer calls its user: `sub` is unique within one issuer, never reused, never an address.
CREATE TABLE oidc_identity (
    issuer text NOT NULL CHECK (issuer <> ''),
    subject text NOT NULL CHECK (subject <> ''),
    account text NOT NULL UNIQUE REFERENCES account (id),
    created_at timestamptz(3) NOT NULL,
    PRIMARY KEY (issuer, subject)
);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX sign_in_nonce_address ON sign_in_nonce (address);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX orders_live ON orders (account) WHERE state <> 'CLOSED';
