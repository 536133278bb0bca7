-- A claim names what its call made; nobody keeps a serialized answer.
-- squawk-ignore ban-drop-column
ALTER TABLE idempotency DROP COLUMN answer;
