#!/usr/bin/env bash
# CPU per transaction of pgweir and of PgBouncer, side by side in one run.
#
#   benches/compare.sh              builds pgweir (release) and compares
#   ROUNDS=9 CLIENTS=64 benches/compare.sh
#
# Everything runs on servers of its own that are gone afterwards. Only ratios of one run mean anything: the two
# poolers take turns, round by round.
#
#   ROUNDS=5             rounds, each one run per pooler and protocol
#   DURATION=5           seconds of one run
#   CLIENTS=16           pgbench clients
#   POOL_SIZE=20         server connections of both
#   SCALE=10             pgbench scale
#   PROTOCOLS="simple extended prepared"    prepared is left out where PgBouncer cannot do it
#   MAX_RATIO=           fail if a median ratio is above
#   PGBOUNCER=           its program, /usr/sbin/pgbouncer or the one in PATH
#   PGWEIR=              its program, else it is built; a second pgbouncer may stand in, which shows the noise
#   PGBIN=               directory of PostgreSQL's programs, else the newest in /usr/lib/postgresql
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/servers.sh
source "$here/servers.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-5}
CLIENTS=${CLIENTS:-16}
POOL_SIZE=${POOL_SIZE:-20}
SCALE=${SCALE:-10}
PROTOCOLS=${PROTOCOLS:-simple extended prepared}
MAX_RATIO=${MAX_RATIO:-}
PGBOUNCER=${PGBOUNCER:-$(PATH="$PATH:/usr/sbin" command -v pgbouncer || true)}
[ -x "$PGBOUNCER" ] || die "no pgbouncer: apt-get install pgbouncer, or PGBOUNCER=path"

is_pgbouncer() { [[ $("$1" --version | head -n 1) =~ ^PgBouncer\ [0-9.]+$ ]]; }

# Prepared statements work in transaction mode from 1.21.
knows_prepared() {
    local version
    version=$("$1" --version | awk 'NR == 1 { print $2 }')
    [ "$(printf '1.21\n%s\n' "$version" | sort -V | head -n 1)" = 1.21 ]
}

build_pgweir() {
    local root=$here/..
    (cd "$root" && cargo build --release --locked --bin pgweir >&2) || die "pgweir does not build"
    local target
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$target/release/pgweir"
}

common_settings() { # port
    cat <<EOF
[databases]
bench = host=127.0.0.1 port=$PRIMARY_PORT dbname=bench

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = trust
auth_file = $WORK/userlist.txt
pool_mode = transaction
default_pool_size = $POOL_SIZE
max_client_conn = 2000
ignore_startup_parameters = extra_float_digits
EOF
}

write_configurations() {
    echo '"bench" ""' >"$WORK/userlist.txt"
    common_settings "$PGBOUNCER_PORT" >"$WORK/pgbouncer.ini"
    common_settings "$PGWEIR_PORT" >"$WORK/pgweir.ini"
    # Off by default in the first versions that have it.
    if knows_prepared "$PGBOUNCER"; then
        echo 'max_prepared_statements = 200' | tee -a "$WORK/pgbouncer.ini" >>"$WORK/pgweir.ini"
    fi
    is_pgbouncer "$PGWEIR" && return
    cat >>"$WORK/pgweir.ini" <<EOF
workers = 1

[replicas]
bench.r1 = host=127.0.0.1 port=$REPLICA_PORT

[routing]
read_write_split = 1

[cache]
enabled = 0

[control]
user = bench
EOF
}

# User and system time of a process with all its threads, in clock ticks.
ticks() { sed 's/^.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

port_of() { case $1 in pgbouncer) echo "$PGBOUNCER_PORT" ;; pgweir) echo "$PGWEIR_PORT" ;; esac }
pid_of() { case $1 in pgbouncer) echo "$PGBOUNCER_PID" ;; pgweir) echo "$PGWEIR_PID" ;; esac }

run_pgbench() { # pooler protocol seconds
    "$PGBIN/pgbench" -h 127.0.0.1 -p "$(port_of "$1")" -U bench -n -S -M "$2" -c "$CLIENTS" -j 2 -T "$3" bench \
        >"$WORK/pgbench.out" 2>"$WORK/pgbench.err" || return 1
    # Before version 15 pgbench does not count failures, it ends at the first.
    ! grep -q 'failed transactions: [1-9]' "$WORK/pgbench.out"
}

# Appends "round protocol pooler microseconds-per-transaction transactions-per-second" to the results.
measure() { # round protocol pooler
    local pid before after
    pid=$(pid_of "$3")
    before=$(ticks "$pid")
    if ! run_pgbench "$3" "$2" "$DURATION"; then
        cat "$WORK/pgbench.out" "$WORK/pgbench.err" "$WORK/$3.log" | tail -n 40 >&2
        die "round $1: pgbench -M $2 through $3 failed"
    fi
    after=$(ticks "$pid")
    awk -v label="$1 $2 $3" -v used=$((after - before)) -v hertz="$(getconf CLK_TCK)" -v seconds="$DURATION" '
        /transactions actually processed/ { sub(/\/.*/, "", $NF); done = $NF }
        END { if (done == 0) exit 1; printf "%s %.3f %.0f\n", label, used / hertz * 1e6 / done, done / seconds }
    ' "$WORK/pgbench.out" >>"$WORK/results" || die "round $1: no transactions through $3 ($2)"
}

main() {
    find_postgres
    PGWEIR=${PGWEIR:-$(build_pgweir)}
    [ -x "$PGWEIR" ] || die "no program at $PGWEIR"
    open_work_directory
    # A build in a home directory is not open to the user the poolers run as.
    install -m 755 "$PGBOUNCER" "$WORK/pgbouncer"
    install -m 755 "$PGWEIR" "$WORK/pgweir"
    local with_replica=yes
    is_pgbouncer "$PGWEIR" && with_replica=no
    start_postgres "$SCALE" "$with_replica"
    PGBOUNCER_PORT=$(free_port) PGWEIR_PORT=$(free_port)
    write_configurations
    hand_over "$WORK"
    start pgbouncer "$WORK/pgbouncer" "$WORK/pgbouncer.ini"
    PGBOUNCER_PID=$STARTED
    start pgweir "$WORK/pgweir" "$WORK/pgweir.ini"
    PGWEIR_PID=$STARTED
    await_answer "$PGBOUNCER_PORT" pgbouncer
    await_answer "$PGWEIR_PORT" pgweir

    local protocols=() protocol round pooler poolers
    for protocol in $PROTOCOLS; do
        if [ "$protocol" = prepared ] && ! knows_prepared "$PGBOUNCER"; then
            note "prepared is left out: $("$PGBOUNCER" --version | head -n 1) cannot do it (1.21 and later can)"
            continue
        fi
        protocols+=("$protocol")
        for pooler in pgbouncer pgweir; do
            run_pgbench "$pooler" "$protocol" 2 || { tail -n 40 "$WORK"/{pgbench.err,"$pooler".log} >&2; die "warm-up: $protocol through $pooler failed"; }
        done
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        poolers="pgbouncer pgweir"
        ((round % 2)) || poolers="pgweir pgbouncer"
        for protocol in "${protocols[@]}"; do
            for pooler in $poolers; do
                measure "$round" "$protocol" "$pooler"
            done
        done
        note "round $round of $ROUNDS"
    done

    echo "select-only, scale $SCALE, $CLIENTS clients over $POOL_SIZE server connections, $ROUNDS rounds of $DURATION s, $(nproc) cores"
    echo "$("$PGBOUNCER" --version | head -n 1); $("$PGWEIR" --version | head -n 1); $("$PGBIN/postgres" --version)"
    echo
    awk -v max_ratio="$MAX_RATIO" -f "$here/summary.awk" "$WORK/results"
}

main "$@"
