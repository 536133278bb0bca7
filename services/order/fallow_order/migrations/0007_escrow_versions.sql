-- Settlement's first fact about an escrow is version 1 from now on. Of those that it opened before, version 1 was a fact of
-- that opening, which nobody counted: what follows is version 2.
INSERT INTO aggregate_version (consumer, topic, key, version)
SELECT 'order', 'fallow.settlement.escrows.v1', id, 1
FROM orders
WHERE state NOT IN ('PENDING', 'CLOSED')
ON CONFLICT DO NOTHING;
