#!/usr/bin/env bash
# Run once by the postgres image in the new primary: roles, the shop's database, access for replicas.
set -euo pipefail

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v replication_password="$REPLICATION_PASSWORD" \
    -v control_password="$PGWEIR_CONTROL_PASSWORD" \
    -v shop_password="$SHOP_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
-- Whom pgweir uses for probes, the catalog and EXPLAIN.
CREATE ROLE pgweir LOGIN PASSWORD :'control_password' IN ROLE pg_monitor;
CREATE ROLE shop LOGIN PASSWORD :'shop_password';
CREATE DATABASE shop OWNER shop;
SQL
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
