-- The fencing token of a market's lead: each leader takes the next term, and a pass of an older one writes nothing.
CREATE TABLE engine_lead (
    market text PRIMARY KEY,
    term bigint NOT NULL CHECK (term > 0)
);
