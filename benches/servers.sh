# Throw-away servers for benchmarks; sourced. Sets WORK, PGBIN, PRIMARY_PORT, REPLICA_PORT, STARTED.
# shellcheck shell=bash

WORK=
# Of sessions, by their leader: what one of them starts goes with it.
PIDS=()
CLIENT_PID=
export PGCONNECT_TIMEOUT=10

note() { echo "$*" >&2; }
die() {
    note "$0: $*"
    exit 1
}

find_postgres() {
    PGBIN=${PGBIN:-$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1)}
    [ -n "$PGBIN" ] || PGBIN=$(dirname "$(command -v postgres || true)")
    local program
    for program in postgres initdb pgbench psql pg_basebackup; do
        [ -x "$PGBIN/$program" ] || die "no $program in '$PGBIN': apt-get install postgresql, or PGBIN=directory"
    done
}

# A session of its own, asked to end with this script even if the script is killed.
OWN_SESSION=(setsid setpriv --pdeathsig TERM)
# PostgreSQL and the poolers refuse root.
if [ "$(id -u)" = 0 ]; then
    RUNNER=$(id -un postgres 2>/dev/null || echo nobody)
    AS=(--reuid="$RUNNER" --regid="$(id -gn "$RUNNER")" --clear-groups env HOME=/)
else
    RUNNER=
    AS=(env)
fi

hand_over() { [ -z "$RUNNER" ] || chown -R "$RUNNER:" "$1"; }

open_work_directory() {
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/pgweir-bench.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    hand_over "$WORK"
    cd "$WORK" || die "no $WORK"
}

# The latest started goes first: poolers before servers. INT is a fast end for some, TERM for the others.
clean_up() {
    local index signal
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$CLIENT_PID" ] || kill -TERM "$CLIENT_PID" 2>/dev/null || true
    for ((index = ${#PIDS[@]} - 1; index >= 0; index--)); do
        for signal in INT TERM; do kill "-$signal" "${PIDS[index]}" 2>/dev/null || true; done
    done
    for ((index = 0; index < 100; index++)); do
        [ -n "$(jobs -rp)" ] || break
        sleep 0.1
    done
    for index in "${!PIDS[@]}"; do
        kill -KILL -- "-${PIDS[index]}" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    cd /
    rm -rf "$WORK"
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# Starts a program in the background, as a user whom it does not refuse; its process id is in STARTED.
start() { # name program arguments...
    start_session "$1" "${OWN_SESSION[@]}" "${AS[@]}" "${@:2}"
}

start_as_is() { # name program arguments...
    start_session "$1" "${OWN_SESSION[@]}" "${@:2}"
}

start_session() { # name command...
    "${@:2}" >"$WORK/$1.log" 2>&1 </dev/null &
    STARTED=$!
    PIDS+=("$STARTED")
}

# Ends what was started last.
stop_started() {
    kill -TERM "$STARTED"
    wait "$STARTED" 2>/dev/null || true
    unset 'PIDS[-1]'
}

# Runs pgbench to its end, in the background: a signal to this script is heard meanwhile.
run_client() { # seconds-at-most program arguments...
    local outcome=0
    timeout --kill-after=5 "$@" >"$WORK/pgbench.out" 2>"$WORK/pgbench.err" </dev/null &
    CLIENT_PID=$!
    wait "$CLIENT_PID" || outcome=$?
    CLIENT_PID=
    return "$outcome"
}

await_answer() { # port name
    local attempt
    for ((attempt = 0; attempt < 300; attempt++)); do
        if timeout 10 "$PGBIN/psql" -h 127.0.0.1 -p "$1" -U bench -d bench -Atqc 'select 1' >/dev/null 2>&1; then
            return
        fi
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 40 "$WORK/$2.log" >&2
    die "$2 does not answer on port $1"
}

start_postgres() { # scale connections
    PRIMARY_PORT=$(free_port)
    setpriv "${AS[@]}" "$PGBIN/initdb" -D "$WORK/primary" -U bench -A trust --locale=C.UTF-8 -E UTF8 --no-sync >"$WORK/initdb.log" 2>&1 ||
        die "initdb: $(tail -n 5 "$WORK/initdb.log")"
    cat >>"$WORK/primary/postgresql.conf" <<EOF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = $2
shared_buffers = 256MB
fsync = off
wal_level = replica
max_wal_size = 2GB
wal_keep_size = 512MB
autovacuum = off
EOF
    start primary "$PGBIN/postgres" -D "$WORK/primary" -p "$PRIMARY_PORT"
    until "$PGBIN/pg_isready" -q -h 127.0.0.1 -p "$PRIMARY_PORT"; do
        kill -0 "$STARTED" 2>/dev/null || die "postgres: $(tail -n 5 "$WORK/primary.log")"
        sleep 0.1
    done
    "$PGBIN/createdb" -h 127.0.0.1 -p "$PRIMARY_PORT" -U bench bench
    note "filling the database, scale $1"
    "$PGBIN/pgbench" -h 127.0.0.1 -p "$PRIMARY_PORT" -U bench -i -q -s "$1" bench >"$WORK/fill.log" 2>&1 ||
        die "pgbench -i: $(tail -n 5 "$WORK/fill.log")"
}

start_replica() {
    REPLICA_PORT=$(free_port)
    setpriv "${AS[@]}" "$PGBIN/pg_basebackup" -h 127.0.0.1 -p "$PRIMARY_PORT" -U bench -D "$WORK/replica" -R -X stream \
        --checkpoint=fast --no-sync 2>"$WORK/basebackup.log" || die "pg_basebackup: $(tail -n 5 "$WORK/basebackup.log")"
    start replica "$PGBIN/postgres" -D "$WORK/replica" -p "$REPLICA_PORT"
    await_answer "$REPLICA_PORT" replica
}
