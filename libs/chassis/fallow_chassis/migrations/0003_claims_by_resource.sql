-- Undoing what a call made finds its claim by what it made; a caller with many claims is not looked through for it.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idempotency_resource ON idempotency (resource);
