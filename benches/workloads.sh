# What the clients of a comparison do; sourced. Needs WORK, SCALE, POOL_SIZE, CLIENTS and PROTOCOLS.
# shellcheck shell=bash disable=SC2034,SC2153  # set here, used there, and the other way round

ALL_WORKLOADS=(select hits mixed aggregate tpcb pipeline rows connect scram)

description_of() { # workload
    case $1 in
        select) echo "pgbench's select-only: one row of pgbench_accounts by its key." ;;
        hits) echo "The same statement for 1,000 of the accounts only, as reads that repeat." ;;
        mixed) echo "Of a hundred transactions 95 are such a read, five update one of the same 1,000 accounts." ;;
        aggregate) echo "Sums over 200,000 rows by group, the same statement again and again." ;;
        tpcb) echo "pgbench's TPC-B-like transaction of seven statements." ;;
        pipeline) echo "Twenty selects by key in one pipeline; a transaction is one pipeline." ;;
        rows) echo "A table of 5,000 rows selected whole." ;;
        connect) echo "Select-only, a new connection for each transaction." ;;
        scram) echo "Select-only, a new connection for each transaction, with a SCRAM password that the user list holds in plain." ;;
    esac
}

# "protocol clients" for each row of a workload's table.
cells_of() { # workload
    local protocol clients
    case $1 in
        select)
            for protocol in $PROTOCOLS; do
                for clients in $CLIENTS; do echo "$protocol $clients"; done
            done
            ;;
        hits | mixed) printf '%s\n' 'simple 16' 'prepared 16' ;;
        aggregate) echo 'simple 16' ;;
        tpcb) echo 'prepared 16' ;;
        pipeline) printf '%s\n' 'extended 16' 'prepared 16' ;;
        rows | connect | scram) echo 'simple 8' ;;
    esac
}

pgbench_options() { # workload protocol clients
    local threads=2
    # Preparing blocks a thread until it has a server connection, which a client of the same thread may hold.
    if [ "$2" = prepared ] && [ "$3" -gt "$POOL_SIZE" ]; then threads=$3; fi
    echo "-M $2 -c $3 -j $threads $(script_of "$1") $(log_of "$1")"
}

log_of() { # workload
    [ "$1" != select ] || echo "-l --log-prefix=$WORK/latency"
}

script_of() { # workload
    case $1 in
        select) echo '-S' ;;
        tpcb) echo '-b tpcb-like' ;;
        connect | scram) echo '-C -S' ;;
        mixed) echo "-D scale=$SCALE -f $WORK/hits.sql@95 -f $WORK/write.sql@5" ;;
        *) echo "-D scale=$SCALE -f $WORK/$1.sql" ;;
    esac
}

on_primary() { "$PGBIN/psql" -h 127.0.0.1 -p "$PRIMARY_PORT" -U bench -d bench -Atq -c "$1" >/dev/null; }

prepare_workloads() {
    local row
    {
        for row in {1..20}; do echo "\\set aid$row random(1, 100000 * :scale)"; done
        printf '%s\n' '\startpipeline'
        for row in {1..20}; do echo "SELECT abalance FROM pgbench_accounts WHERE aid = :aid$row;"; done
        printf '%s\n' '\endpipeline'
    } >"$WORK/pipeline.sql"
    printf '%s\n' '\set aid random(1, 1000)' 'SELECT abalance FROM pgbench_accounts WHERE aid = :aid;' >"$WORK/hits.sql"
    printf '%s\n' '\set aid random(1, 1000)' 'UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;' \
        >"$WORK/write.sql"
    echo 'SELECT kind, count(*), sum(amount), avg(amount) FROM sales GROUP BY kind ORDER BY kind;' >"$WORK/aggregate.sql"
    on_primary 'CREATE TABLE sales AS SELECT id, id % 10 AS kind, id % 997 AS amount FROM generate_series(1, 200000) AS id'
    on_primary 'VACUUM ANALYZE sales'
    echo 'SELECT id, word FROM five_thousand;' >"$WORK/rows.sql"
    on_primary 'CREATE TABLE five_thousand AS SELECT id, md5(id::text) AS word FROM generate_series(1, 5000) AS id'
    on_primary 'VACUUM ANALYZE five_thousand'
}

# Dead versions of the few rows that every transaction updates would make each run slower than the one before.
prepare_run() { # workload
    [ "$1" != tpcb ] || on_primary 'VACUUM pgbench_branches, pgbench_tellers'
}
