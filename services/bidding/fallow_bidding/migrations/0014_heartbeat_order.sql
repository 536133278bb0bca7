-- Heartbeats are taken in the order of their numbers within one life of an agent, and none of a life that is over.
ALTER TABLE provider ADD COLUMN heartbeat_sequence bigint NOT NULL DEFAULT 0;
ALTER TABLE provider ADD COLUMN past_boot_ids text[] NOT NULL DEFAULT '{}';
