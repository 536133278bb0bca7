-- How long orders wait for their first match, and how long they have waited. The market ends what waits too long.

ALTER TABLE market_order
-- When the order was opened, and how long it may wait for a first match; null for one that was ended unheard.
ADD COLUMN open_time timestamptz(3),
ADD COLUMN match_timeout_ms bigint,
-- When to look next whether the wait is over; null once nothing waits.
ADD COLUMN match_due_time timestamptz(3),
-- When the first lease was made.
ADD COLUMN match_time timestamptz(3),
-- Whether its groups end together; otherwise each is leased, and ends, on its own.
ADD COLUMN together boolean NOT NULL DEFAULT true,
-- GPU models that it asks for, in order, each once; empty takes any.
ADD COLUMN gpu_models text [] NOT NULL DEFAULT '{}';

UPDATE market_order
SET open_time = create_time, match_timeout_ms = 600000, match_due_time = create_time + interval '10 minutes'
WHERE state = 'OPEN';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX market_order_waiting ON market_order (match_due_time) WHERE state = 'OPEN' AND match_due_time IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX market_order_matched ON market_order (market, match_time) WHERE match_time IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX market_order_matched_models ON market_order (market, gpu_models, match_time) WHERE match_time IS NOT NULL;

-- From when a provider that failed the group may have it again, where nobody else fits; null where none failed it.
ALTER TABLE order_group ADD COLUMN return_time timestamptz(3);
