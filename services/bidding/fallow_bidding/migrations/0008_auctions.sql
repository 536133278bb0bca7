-- Rounds of bids: an auction is for one group of an order, a bid is one provider's price in it.

CREATE TABLE auction (
    auction_id text PRIMARY KEY,
    order_id text NOT NULL,
    group_index integer NOT NULL,
    round_number integer NOT NULL CHECK (round_number > 0),
    mode text NOT NULL CHECK (mode IN ('AUCTION', 'MANUAL')),
    rule text NOT NULL CHECK (rule IN ('FIRST_PRICE', 'SECOND_PRICE')),
    state text NOT NULL CHECK (state IN ('OPEN', 'WON', 'FAILED')),
    create_time timestamptz(3) NOT NULL,
    close_time timestamptz(3) NOT NULL,
    decide_time timestamptz(3),
    -- The tenant's choice in a manual auction, until all groups of the order are decided.
    chosen_bid_id text NOT NULL DEFAULT '',
    winning_bid_id text NOT NULL DEFAULT '',
    -- Whether providers were told of it.
    announced boolean NOT NULL DEFAULT false,
    UNIQUE (order_id, group_index, round_number),
    FOREIGN KEY (order_id, group_index) REFERENCES order_group (order_id, group_index),
    CHECK ((decide_time IS NULL) = (state = 'OPEN')),
    CHECK ((winning_bid_id <> '') = (state = 'WON'))
);

-- A group has one round at a time.
CREATE UNIQUE INDEX auction_open ON auction (order_id, group_index) WHERE state = 'OPEN';
CREATE INDEX auction_closing ON auction (close_time) WHERE state = 'OPEN' AND mode = 'AUCTION';
CREATE INDEX auction_unannounced ON auction (auction_id) WHERE NOT announced;

CREATE TABLE bid (
    auction_id text NOT NULL REFERENCES auction (auction_id),
    bid_id text NOT NULL,
    provider_id text NOT NULL REFERENCES provider (provider_id),
    asset text NOT NULL,
    price_micros bigint NOT NULL CHECK (price_micros >= 0),
    -- Whether it stands for a standing offer that took part by itself.
    from_offer boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('PLACED', 'WON', 'LOST')),
    reason text NOT NULL DEFAULT '',
    create_time timestamptz(3) NOT NULL,
    PRIMARY KEY (auction_id, bid_id)
);

-- A provider has one bid in a round; a round has one winner.
CREATE UNIQUE INDEX bid_placed ON bid (auction_id, provider_id) WHERE state = 'PLACED';
CREATE UNIQUE INDEX bid_won ON bid (auction_id) WHERE state = 'WON';

-- How its first leases are found; null is against standing offers at once.
ALTER TABLE market_order ADD COLUMN auction_mode text CHECK (auction_mode IN ('AUCTION', 'MANUAL'));
