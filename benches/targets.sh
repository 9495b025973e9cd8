# What is compared: programs, versions, configurations; sourced. A target may need several instances, one process each:
# INSTANCE_PID and PORT are by instance. Needs WORK, POOL_SIZE, TARGETS, CELLS, LARGEST and the ports of PostgreSQL.
# shellcheck shell=bash disable=SC2034,SC2154  # set here, used there, and the other way round

ALL_TARGETS=(direct haproxy pgbouncer pgpool pgweir-bare pgweir pgweir-cache redis)
SECRET=correct-horse
declare -A PORT INSTANCE_PID

programs_of() { # targets
    local target
    for target in $1; do
        case $target in
            direct) ;;
            pgweir*) echo pgweir ;;
            *) echo "$target" ;;
        esac
    done | uniq
}

find_program() { # variable name package
    local path=${!1:-}
    path=${path:-$(PATH="$PATH:/usr/sbin" command -v "$2" || true)}
    [ -x "$path" ] || die "no $2: apt-get install $3, or $1=path"
    # One program may have several names.
    printf -v "$1" %s "$(realpath -s "$path")"
}

find_programs() {
    local program
    for program in $(programs_of "$TARGETS"); do
        case $program in
            haproxy) find_program HAPROXY haproxy haproxy ;;
            pgbouncer) find_program PGBOUNCER pgbouncer pgbouncer ;;
            pgpool) find_program PGPOOL pgpool pgpool2 ;;
            redis) find_program REDIS redis-server redis-server && find_program REDIS_BENCHMARK redis-benchmark redis-tools ;;
            pgweir) find_or_build_pgweir ;;
        esac
    done
}

find_or_build_pgweir() {
    PGWEIR=${PGWEIR:-$(build_pgweir)}
    [ -x "$PGWEIR" ] || die "no program at $PGWEIR"
    PGWEIR=$(realpath "$PGWEIR")
}

build_pgweir() {
    local root=$here/..
    (cd "$root" && cargo build --release --locked --bin pgweir >&2) || die "pgweir does not build"
    local target
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$target/release/pgweir"
}

version_of() { # program
    case $1 in
        haproxy) "$HAPROXY" -v | sed -n '1s/ [0-9/]* - .*//p' ;;
        pgbouncer) "$PGBOUNCER" --version | head -n 1 ;;
        pgpool) "$PGPOOL" --version 2>&1 | head -n 1 ;;
        pgweir) "$PGWEIR" --version | head -n 1 ;;
        redis) "$REDIS" --version | sed 's/ sha=.*//' ;;
    esac
}

is_pgbouncer() { [[ $("$1" --version | head -n 1) =~ ^PgBouncer\ [0-9.]+$ ]]; }

# Prepared statements work in transaction mode from 1.21.
knows_prepared() {
    local version
    version=$("$1" --version | awk 'NR == 1 { print $2 }')
    [ "$(printf '1.21\n%s\n' "$version" | sort -V | head -n 1)" = 1.21 ]
}

wants() { grep -qxF -e "$1" <<<"$TARGETS"; }
wants_replica() { { wants pgweir || wants pgweir-cache; } && ! is_pgbouncer "$PGWEIR"; }

# Redis is asked what the cache answers. Who caches nothing does not get faster when nothing repeats.
takes_part() { # target workload
    case $1 in
        redis) [ "$2" = hits ] || return ;;
        haproxy | pgpool | pgweir-bare) [ "$2" != mixed ] && [ "$2" != aggregate ] || return ;;
    esac
    case $2 in
        scram) [ "$1" = pgbouncer ] || [ "$1" = pgweir ] ;;
        *) true ;;
    esac
}

# pgpool forks its children beforehand and all idle ones wake up for a new client, so runs of few clients get few.
PGPOOL_CHILDREN=32

instance_of() { # target workload clients
    if [ "$1" = pgpool ] && [ "$3" -gt "$PGPOOL_CHILDREN" ]; then
        echo pgpool-large
    elif [ "$2" = scram ]; then
        echo "$1-scram"
    else
        echo "$1"
    fi
}

# Settings of PgBouncer and of pgweir alike.
pooler_settings() { # port auth_type
    cat <<EOF
[databases]
bench = host=127.0.0.1 port=$PRIMARY_PORT dbname=bench

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = $2
auth_file = $WORK/userlist.txt
stats_users = bench
pool_mode = transaction
default_pool_size = $POOL_SIZE
max_client_conn = 2000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
EOF
    # Off by default in the first versions that have it.
    if knows_prepared "$PGBOUNCER"; then echo 'max_prepared_statements = 200'; fi
}

pgweir_settings() { # target
    cat <<EOF
workers = 1

[control]
user = bench
EOF
    [ "$1" != pgweir-bare ] || return 0
    cat <<EOF

[replicas]
bench.r1 = host=127.0.0.1 port=$REPLICA_PORT

[routing]
read_write_split = 1

[cache]
enabled = $([ "$1" = pgweir-cache ] && echo 1 || echo 0)
EOF
}

# One thread, as the others have.
haproxy_settings() { # port
    cat <<EOF
global
    nbthread 1
    maxconn $((LARGEST + 100))
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:$1
    server primary 127.0.0.1:$PRIMARY_PORT
EOF
}

pgpool_settings() { # port children
    cat <<EOF
backend_clustering_mode = 'raw'
backend_hostname0 = '127.0.0.1'
backend_port0 = $PRIMARY_PORT
backend_flag0 = 'DISALLOW_TO_FAILOVER'
listen_addresses = '127.0.0.1'
port = $1
socket_dir = '$WORK'
pcp_listen_addresses = ''
pcp_port = $(free_port)
pcp_socket_dir = '$WORK'
pid_file_name = '$WORK/pgpool-$2.pid'
logdir = '$WORK'
num_init_children = $2
max_pool = 1
connection_cache = on
load_balance_mode = off
enable_pool_hba = off
pool_passwd = ''
EOF
}

start_instance() { # instance
    local file=$WORK/$1.conf port
    port=$(free_port)
    PORT[$1]=$port
    case $1 in
        haproxy)
            haproxy_settings "$port" >"$file"
            start "$1" "$HAPROXY" -db -f "$file"
            ;;
        pgpool*)
            pgpool_settings "$port" "$([ "$1" = pgpool ] && echo "$PGPOOL_CHILDREN" || echo "$LARGEST")" >"$file"
            start "$1" "$PGPOOL" -n -D -f "$file" -F "$WORK/pcp.conf" -a "$WORK/pool_hba.conf"
            ;;
        redis)
            start "$1" "$REDIS" --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$WORK"
            INSTANCE_PID[$1]=$STARTED
            return
            ;;
        *) start_pooler "$1" "$port" "$file" ;;
    esac
    INSTANCE_PID[$1]=$STARTED
    await_answer "$port" "$1"
}

start_pooler() { # instance port file
    local target=${1%-scram} auth_type=trust
    local program=${target%%-*}
    [ "$target" = "$1" ] || auth_type=scram-sha-256
    pooler_settings "$2" "$auth_type" >"$3"
    if [ "$program" = pgweir ] && ! is_pgbouncer "$PGWEIR"; then pgweir_settings "$target" >>"$3"; fi
    start "$1" "$WORK/$program" "$3"
}

instances() {
    local cell workload clients target
    for cell in "${CELLS[@]}"; do
        read -r workload _ clients <<<"$cell"
        for target in $TARGETS; do
            if takes_part "$target" "$workload"; then instance_of "$target" "$workload" "$clients"; fi
        done
    done | sort -u
}

start_targets() {
    local instance
    # A build in a home directory is not open to the user the poolers run as.
    install -m 755 "$PGBOUNCER" "$WORK/pgbouncer"
    [ -z "${PGWEIR:-}" ] || install -m 755 "$PGWEIR" "$WORK/pgweir"
    echo "\"bench\" \"$SECRET\"" >"$WORK/userlist.txt"
    touch "$WORK/pcp.conf" "$WORK/pool_hba.conf"
    export PGPASSWORD=$SECRET
    PORT[direct]=$PRIMARY_PORT
    for instance in $(instances); do
        [ "$instance" = direct ] || start_instance "$instance"
    done
}
