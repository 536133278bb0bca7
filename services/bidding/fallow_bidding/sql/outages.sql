-- name: load_pulse
SELECT pulse_time FROM market_pulse

-- name: lock_pulse
SELECT pulse_time FROM market_pulse FOR UPDATE

-- name: save_pulse
INSERT INTO market_pulse (pulse_time) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET pulse_time = GREATEST(market_pulse.pulse_time, EXCLUDED.pulse_time)

-- name: insert_outage
INSERT INTO market_outage (start_time, end_time) VALUES ($1, $2)
ON CONFLICT (start_time) DO UPDATE SET end_time = GREATEST(market_outage.end_time, EXCLUDED.end_time)

-- name: load_outages
SELECT start_time, end_time FROM market_outage WHERE end_time > $1 ORDER BY start_time
