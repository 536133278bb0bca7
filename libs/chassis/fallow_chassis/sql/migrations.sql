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

-- name: name_serving_role
SELECT set_config('fallow.serving_role', $1, true);

-- name: grant_serving_role
DO $$
DECLARE
    role_name text := current_setting('fallow.serving_role');
    kept record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role_name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %I', role_name);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %I', role_name);
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON chassis_migration FROM %I', role_name);
    -- 8 and 16 are the bits of DELETE and UPDATE in a trigger's type.
    FOR kept IN
        SELECT DISTINCT t.tgrelid::regclass AS table_name, verb.name AS verb
        FROM pg_trigger AS t
        JOIN pg_proc AS p ON p.oid = t.tgfoid
        JOIN (VALUES ('DELETE', 8), ('UPDATE', 16)) AS verb (name, bit) ON t.tgtype & verb.bit <> 0
        WHERE p.proname = 'refuse_change' AND NOT t.tgisinternal
    LOOP
        EXECUTE format('REVOKE %s ON %s FROM %I', kept.verb, kept.table_name, role_name);
    END LOOP;
END
$$;
