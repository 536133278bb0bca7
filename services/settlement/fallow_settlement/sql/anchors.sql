-- name: lock_anchoring
-- Nobody else looks for the next transaction, or gives anchors up as lost, until this ends.
SELECT pg_advisory_xact_lock(hashtextextended('fallow-anchoring', 0));

-- name: list_final_above
SELECT * FROM batch WHERE number > $1 AND state = 'FINAL' ORDER BY number;

-- name: count_resending
SELECT count(*) FROM chain_transaction WHERE state = 'LOST';

-- name: forget_unsigned_transaction
DELETE FROM chain_transaction WHERE state = 'PENDING';

-- name: mark_anchors_lost
WITH lost AS (
    UPDATE chain_transaction SET state = 'LOST'
    WHERE batch_number > $1 AND state IN ('SIGNED', 'SENT', 'MINED', 'FINAL')
    RETURNING batch_number
)
UPDATE batch SET state = 'PENDING', transaction_hash = '', block_number = 0
FROM lost
WHERE batch.number = lost.batch_number
RETURNING batch.number;

-- name: take_lost_anchor
WITH taken AS (
    UPDATE chain_transaction SET state = 'SENT'
    WHERE id = (SELECT id FROM chain_transaction WHERE state = 'LOST' ORDER BY batch_number LIMIT 1)
      AND NOT EXISTS (SELECT 1 FROM chain_transaction WHERE state IN ('PENDING', 'SIGNED', 'SENT', 'MINED'))
    RETURNING batch_number
)
UPDATE batch SET state = 'SENT' FROM taken WHERE batch.number = taken.batch_number;

-- name: abandon_lost_anchors
UPDATE chain_transaction SET state = 'ABANDONED' WHERE state = 'LOST';
