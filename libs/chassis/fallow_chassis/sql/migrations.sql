-- name: create_migration_table
CREATE TABLE IF NOT EXISTS chassis_migration (
    package text NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    name text NOT NULL,
    checksum bytea NOT NULL,
    applied_at timestamptz(3) NOT NULL DEFAULT now(),
    PRIMARY KEY (package, number)
);

-- name: migration_table_exists
SELECT to_regclass('chassis_migration') IS NOT NULL;

-- name: lock_migrations
SELECT pg_advisory_lock($1);

-- name: unlock_migrations
SELECT pg_advisory_unlock($1);

-- name: load_migrations
SELECT number, name, checksum FROM chassis_migration WHERE package = $1 ORDER BY number;

-- name: insert_migration
INSERT INTO chassis_migration (package, number, name, checksum) VALUES ($1, $2, $3, $4);

-- name: limit_lock_wait
SELECT set_config('lock_timeout', $1, true);
