-- Lists by state and by time; those by label have their index already.

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX orders_account_state ON orders (account, state, id DESC);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX orders_account_created ON orders (account, created_at);
