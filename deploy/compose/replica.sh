#!/usr/bin/env bash
# Entry point of a replica: copies the primary once, then follows it.
set -euo pipefail
: "${PRIMARY_HOST:?}" "${REPLICATION_PASSWORD:?}" "${PGDATA:?}"
port=${PRIMARY_PORT:-5432}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # What an interrupted copy left behind.
    find "$PGDATA" -mindepth 1 -delete
    until PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup \
        --dbname "host=$PRIMARY_HOST port=$port user=replicator" \
        --pgdata "$PGDATA" --write-recovery-conf --wal-method stream --checkpoint fast; do
        echo "replica: the primary is not ready" >&2
        find "$PGDATA" -mindepth 1 -delete
        sleep 1
    done
    chmod 0700 "$PGDATA"
fi
# A long read on a replica must not be cancelled because the primary has cleaned up.
exec postgres -c hot_standby=on -c hot_standby_feedback=on "$@"
