-- The local chain's SQLite file. `item` is py-evm's key-value database (headers, transactions, receipts, state),
-- `log` finds events without reading blocks, `setting` holds what never changes after the first start.

-- name: chain_create_item
CREATE TABLE IF NOT EXISTS item (
  key BLOB PRIMARY KEY,
  value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- name: chain_create_log
CREATE TABLE IF NOT EXISTS log (
  block_number INTEGER NOT NULL,
  log_index INTEGER NOT NULL,
  block_hash TEXT NOT NULL,
  transaction_hash TEXT NOT NULL,
  transaction_index INTEGER NOT NULL,
  address TEXT NOT NULL,
  topic_0 TEXT,
  topic_1 TEXT,
  topic_2 TEXT,
  topic_3 TEXT,
  data TEXT NOT NULL,
  PRIMARY KEY (block_number, log_index)
) WITHOUT ROWID, STRICT;

-- name: chain_create_log_index
CREATE INDEX IF NOT EXISTS log_by_address ON log (address, block_number, log_index);

-- name: chain_create_setting
CREATE TABLE IF NOT EXISTS setting (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- name: chain_get_item
SELECT value FROM item WHERE key = ?;

-- name: chain_has_item
SELECT 1 FROM item WHERE key = ?;

-- name: chain_set_item
INSERT INTO item (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: chain_delete_item
DELETE FROM item WHERE key = ?;

-- name: chain_get_setting
SELECT value FROM setting WHERE name = ?;

-- name: chain_set_setting
INSERT INTO setting (name, value) VALUES (?, ?);

-- name: chain_add_log
INSERT INTO log (
  block_number, log_index, block_hash, transaction_hash, transaction_index, address, topic_0, topic_1, topic_2, topic_3,
  data
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- A filter is a JSON list of the values allowed, or NULL for any; a log must have as many topics as were asked about.
-- name: chain_find_logs
SELECT
  block_number, log_index, block_hash, transaction_hash, transaction_index, address, topic_0, topic_1, topic_2, topic_3,
  data
FROM log
WHERE block_number BETWEEN :first_block AND :last_block
  AND (:addresses IS NULL OR address IN (SELECT value FROM json_each(:addresses)))
  AND (:topics_0 IS NULL OR topic_0 IN (SELECT value FROM json_each(:topics_0)))
  AND (:topics_1 IS NULL OR topic_1 IN (SELECT value FROM json_each(:topics_1)))
  AND (:topics_2 IS NULL OR topic_2 IN (SELECT value FROM json_each(:topics_2)))
  AND (:topics_3 IS NULL OR topic_3 IN (SELECT value FROM json_each(:topics_3)))
  AND (CASE :topic_count WHEN 0 THEN 1 WHEN 1 THEN topic_0 IS NOT NULL WHEN 2 THEN topic_1 IS NOT NULL
       WHEN 3 THEN topic_2 IS NOT NULL ELSE topic_3 IS NOT NULL END)
ORDER BY block_number, log_index
LIMIT :limit;
