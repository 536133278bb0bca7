#!/bin/sh
# Runs once, on an empty data folder: a database each, its owner, and a role to serve as that owns nothing.
set -eu
for service in order bidding settlement; do
    psql --username "$POSTGRES_USER" --dbname postgres -v ON_ERROR_STOP=1 \
        -v name="fallow_$service" -v serving="fallow_${service}_serving" \
        -v owner_password="$FALLOW_OWNER_PASSWORD" -v serving_password="$FALLOW_SERVING_PASSWORD" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"serving" LOGIN PASSWORD :'serving_password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"serving";
SQL
done
