-- name: insert_auction
INSERT INTO auction (
    auction_id, order_id, group_index, round_number, mode, rule, state, create_time, close_time
) VALUES ($1, $2, $3, $4, $5, $6, 'OPEN', $7, $8)

-- name: load_auction
SELECT auction.*, market_order.tenant, market_order.market, market_order.body FROM auction
INNER JOIN market_order USING (order_id)
WHERE auction_id = $1

-- name: share_auction
-- Bids of several providers go in side by side; a decision waits for them, and they for it.
SELECT * FROM auction WHERE auction_id = $1 FOR SHARE

-- name: lock_open_auctions
SELECT * FROM auction WHERE order_id = ANY($1::text[]) AND state = 'OPEN'
ORDER BY auction_id
FOR NO KEY UPDATE

-- name: list_auctions
SELECT auction.*, market_order.tenant, market_order.market, market_order.body FROM auction
INNER JOIN market_order USING (order_id)
WHERE (
        market_order.tenant = $1
        OR ($2 = '' AND EXISTS (SELECT 1 FROM provider WHERE account = $1 AND provider.market = market_order.market))
    )
    AND ($2 = '' OR order_id = $2)
    AND ($3 = '' OR auction_id < $3)
ORDER BY auction_id DESC
LIMIT $4

-- name: account_sells
SELECT EXISTS (SELECT 1 FROM provider WHERE account = $1 AND market = $2)

-- name: choose_bid
UPDATE auction SET chosen_bid_id = $2 WHERE auction_id = $1 AND state = 'OPEN'

-- name: close_auction
UPDATE auction SET state = $2, winning_bid_id = $3, decide_time = $4 WHERE auction_id = $1 AND state = 'OPEN'

-- name: fail_open_auctions
WITH failed AS (
    UPDATE auction SET state = 'FAILED', decide_time = $4
    WHERE order_id = $1 AND ($2::int IS NULL OR group_index = $2) AND state = 'OPEN'
    RETURNING auction_id
)
UPDATE bid SET state = 'LOST', reason = $3
FROM failed
WHERE bid.auction_id = failed.auction_id AND state = 'PLACED'

-- name: has_sealed_auction
SELECT EXISTS (SELECT 1 FROM auction WHERE order_id = $1 AND state = 'OPEN' AND mode = 'AUCTION')

-- name: next_close_time
SELECT min(close_time) FROM auction
INNER JOIN market_order USING (order_id)
WHERE auction.state = 'OPEN' AND mode = 'AUCTION' AND close_time > $2 AND market = $1

-- name: load_unannounced
SELECT auction.*, market_order.tenant, market_order.market, market_order.body FROM auction
INNER JOIN market_order USING (order_id)
WHERE NOT announced AND market = $1
ORDER BY auction_id
LIMIT $2

-- name: set_announced
UPDATE auction SET announced = true WHERE auction_id = ANY($1::text[])

-- name: insert_bid
INSERT INTO bid (auction_id, bid_id, provider_id, asset, price_micros, from_offer, state, reason, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (auction_id, bid_id) DO UPDATE SET state = EXCLUDED.state, reason = EXCLUDED.reason

-- name: replace_bid
UPDATE bid SET state = 'LOST', reason = $3 WHERE auction_id = $1 AND provider_id = $2 AND state = 'PLACED'

-- name: load_bid
SELECT * FROM bid WHERE auction_id = $1 AND bid_id = $2

-- name: load_placed_bids
SELECT * FROM bid WHERE auction_id = ANY($1::text[]) AND state = 'PLACED' ORDER BY auction_id, bid_id

-- name: load_bids
SELECT bid.* FROM bid
INNER JOIN provider USING (provider_id)
WHERE auction_id = $1 AND ($2 = '' OR provider.account = $2)
ORDER BY price_micros, bid_id
