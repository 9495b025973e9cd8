#!/usr/bin/env bash
# What a transaction costs in pgweir, in PgBouncer and in others, side by side in one run.
#
#   benches/compare.sh              builds pgweir (release) and compares it with PgBouncer, select-only
#   ROUNDS=9 CLIENTS=64 benches/compare.sh
#   TARGETS=all WORKLOADS=all RESULTS=benches/RESULTS.md benches/compare.sh
#
# Everything runs on servers of its own that are gone afterwards. Only ratios of one run mean anything: the targets
# take turns, round by round.
#
#   ROUNDS=5             rounds, each one run per target and row of a table
#   DURATION=5           seconds of one run
#   TARGETS="pgbouncer pgweir"    of: direct haproxy pgbouncer pgpool pgweir-bare pgweir pgweir-cache redis; or
#                        all. pgbouncer always runs, as the base of the ratios; redis takes part in hits, with GET
#   WORKLOADS=select     of: select hits mixed aggregate tpcb pipeline rows connect scram; or all
#   CLIENTS=16           pgbench clients of select, one number or several: "1 16 64 500"
#   PROTOCOLS="simple extended prepared"    of select; prepared is left out where PgBouncer cannot do it
#   POOL_SIZE=20         server connections of those that pool
#   SCALE=10             pgbench scale
#   SYSCALLS=            1: one more round under strace, for system calls per transaction
#   MAX_RATIO=           fail if a median ratio of pgweir in select is above
#   RESULTS=             file for the tables with machine, versions and date; not set: none
#   PGBOUNCER= HAPROXY= PGPOOL=    their programs, else where Debian puts them or in PATH
#   PGWEIR=              its program, else it is built; a second pgbouncer may stand in, which shows the noise
#   PGBIN=               directory of PostgreSQL's programs, else the newest in /usr/lib/postgresql
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/servers.sh
source "$here/servers.sh"
# shellcheck source=benches/targets.sh
source "$here/targets.sh"
# shellcheck source=benches/workloads.sh
source "$here/workloads.sh"
# shellcheck source=benches/usage.sh
source "$here/usage.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-5}
CLIENTS=${CLIENTS:-16}
POOL_SIZE=${POOL_SIZE:-20}
SCALE=${SCALE:-10}
PROTOCOLS=${PROTOCOLS:-simple extended prepared}
SYSCALLS=${SYSCALLS:-}
MAX_RATIO=${MAX_RATIO:-}
RESULTS=${RESULTS:-}

# What was asked for, in the order of the words that exist.
chosen() { # setting asked words...
    local setting=$1 asked word
    asked=$(tr '\n' ' ' <<<"$2")
    shift 2
    [ "$asked" != 'all ' ] || asked=$*
    for word in $asked; do
        [[ " $* " == *" $word "* ]] || die "$setting: no '$word', there are: $* (or all)"
    done
    for word in "$@"; do
        [[ " $asked " != *" $word "* ]] || echo "$word"
    done
}

check_results_file() {
    [ -n "$RESULTS" ] || return 0
    local directory
    directory=$(cd "$(dirname "$RESULTS")" 2>/dev/null && pwd) || die "RESULTS: no directory for $RESULTS"
    RESULTS=$directory/$(basename "$RESULTS")
    [ -w "$directory" ] && [ ! -d "$RESULTS" ] || die "RESULTS: $RESULTS cannot be written"
}

# Sets CELLS: a line "workload protocol clients" for each row of the tables, and LARGEST, their most clients.
list_cells() {
    local workload protocol clients
    CELLS=() LARGEST=1
    for workload in $WORKLOADS; do
        while read -r protocol clients; do
            CELLS+=("$workload $protocol $clients")
            LARGEST=$((clients > LARGEST ? clients : LARGEST))
        done < <(cells_of "$workload")
    done
    if knows_prepared "$PGBOUNCER" || [[ " ${CELLS[*]} " != *" prepared "* ]]; then return; fi
    note "prepared is left out: $(version_of pgbouncer) cannot do it (1.21 and later can)"
    mapfile -t CELLS < <(printf '%s\n' "${CELLS[@]}" | grep -v ' prepared ')
    [ "${#CELLS[@]}" -gt 0 ] && [ -n "${CELLS[0]}" ] || die "nothing else was asked for"
}

# The targets of a workload, another one first in each round.
in_turn() { # round workload
    local target targets=()
    for target in $TARGETS; do
        if takes_part "$target" "$2"; then targets+=("$target"); fi
    done
    local first=$((($1 - 1) % ${#targets[@]}))
    echo "${targets[@]:first}" "${targets[@]:0:first}"
}

# Runs pgbench and leaves its report in pgbench.out.
run_pgbench() { # target workload protocol clients seconds
    local instance options
    # pgbench's time includes the connecting of all clients.
    local seconds=$(($5 + $4 / 200))
    instance=$(instance_of "$1" "$2" "$4")
    if [ "$1" = redis ]; then
        run_redis_benchmark "${PORT[$instance]}" "$4" "$seconds"
        return
    fi
    read -ra options < <(pgbench_options "$2" "$3" "$4")
    rm -f "$WORK"/latency.*
    run_client $((seconds + 60)) "$PGBIN/pgbench" -h 127.0.0.1 -p "${PORT[$instance]}" -U bench -n -T "$seconds" \
        "${options[@]}" bench || return 1
    # Before version 15 pgbench does not count failures, it ends at the first.
    ! grep -q 'failed transactions: [1-9]' "$WORK/pgbench.out"
}

# GET of one of 1,000 values as long as the answer to the select; its report as pgbench would write it.
run_redis_benchmark() { # port clients seconds
    local per_second count
    on_redis() { run_client "$1" "$REDIS_BENCHMARK" -p "$2" -c "$3" -r 1000 -d 64 --csv -n "$4" -t "$5"; }
    on_redis 60 "$1" "$2" 2000 set && on_redis 60 "$1" "$2" 20000 get || return
    per_second=$(awk -F '","' '/"GET"/ { print int($2) }' "$WORK/pgbench.out")
    count=$((per_second * $3 + 1))
    on_redis $(($3 * 4 + 60)) "$1" "$2" "$count" get || return
    per_second=$(awk -F '","' '/"GET"/ { print int($2) }' "$WORK/pgbench.out")
    # What came before was asked of it as well.
    printf 'number of transactions actually processed: %s\ntps = %s\n' $((count + 22000)) "$per_second" >"$WORK/pgbench.out"
}

explain_failure() { # target workload protocol clients occasion
    local instance
    instance=$(instance_of "$1" "$2" "$4")
    # PostgreSQL itself has no log by that name.
    tail -n 20 "$WORK"/{pgbench.out,pgbench.err,"$instance.log"} >&2 2>/dev/null || true
    die "$5: $2, $3, $4 clients through $1 failed"
}

transactions() {
    awk '/transactions actually processed/ { sub(/\/.*/, "", $NF); done = $NF } END { print done + 0 }' "$WORK/pgbench.out"
}

# Lines "figure value": the median and the 99th percentile of what a transaction took, in µs, where pgbench logged it.
latencies() {
    local logs=("$WORK"/latency.*)
    [ -e "${logs[0]}" ] || return 0
    awk '{ print $3 }' "${logs[@]}" | sort -n | awk '
        { took[NR] = $1 }
        END { if (NR) printf "p50 %d\np99 %d\n", took[int((NR + 1) / 2)], took[int(NR * 0.99 + 0.5)] }'
}

# Without the time in which the clients connected first.
transactions_per_second() { awk '/^tps = / { printf "%.0f\n", $3 }' "$WORK/pgbench.out" | tail -n 1; }

# Appends lines "round workload protocol clients target figure value" to the results.
record() { # round target workload protocol clients
    sed "s/^/$1 $3 $4 $5 $2 /" >>"$WORK/results"
}

measure() { # round target workload protocol clients
    local instance before after count
    instance=$(instance_of "$2" "$3" "$5")
    prepare_run "$3"
    before=$(usage_of "$2" "$instance")
    run_pgbench "${@:2}" "$DURATION" || explain_failure "${@:2}" "round $1"
    after=$(usage_of "$2" "$instance")
    count=$(transactions)
    [ "$count" -gt 0 ] || explain_failure "${@:2}" "round $1"
    {
        echo "tps $(transactions_per_second)"
        usage_per_transaction "$before" "$after" "$count"
        latencies
    } | record "$@"
}

# A run that does not get to any transaction is slower under strace than it may be; the figures of the rounds stand.
count_syscalls() { # target workload protocol clients
    local instance count=0
    instance=$(instance_of "$1" "$2" "$4")
    [ "$1" != direct ] || return 0
    prepare_run "$2"
    start_strace "${INSTANCE_PID[$instance]}"
    ! run_pgbench "$@" $((DURATION + $4 / 50)) || count=$(transactions)
    stop_started
    if [ "$count" = 0 ]; then
        note "system calls of $1 are left out: $2, $3, $4 clients failed under strace"
    else
        echo "syscalls $(traced_calls "$count")" | record 1 "$@"
    fi
}

warm_up() { # target workload protocol clients
    run_pgbench "$@" $((DURATION < 2 ? DURATION : 2)) || explain_failure "$@" warm-up
}

# Calls a function for every target of every cell.
every() { # round function arguments...
    local round=$1 cell workload protocol clients target
    shift
    for cell in "${CELLS[@]}"; do
        read -r workload protocol clients <<<"$cell"
        for target in $(in_turn "$round" "$workload"); do
            "$@" "$target" "$workload" "$protocol" "$clients"
        done
    done
}

tables() {
    local workload max_ratio outcome=0
    echo "scale $SCALE, $POOL_SIZE server connections, $ROUNDS rounds of $DURATION s, $(nproc) cores"
    for workload in $WORKLOADS; do
        grep -q "^[0-9]* $workload " "$WORK/results" || continue
        printf '\n## %s\n\n%s\n\n' "$workload" "$(description_of "$workload")"
        max_ratio=
        [ "$workload" != select ] || max_ratio=$MAX_RATIO
        awk -v workload="$workload" -v max_ratio="$max_ratio" -f "$here/summary.awk" "$WORK/results" || outcome=$?
    done
    return "$outcome"
}

versions() {
    local program
    for program in $(programs_of "$TARGETS"); do version_of "$program"; done
    "$PGBIN/postgres" --version
}

heading() {
    local processor
    processor=$(sed -n '/^model name/ { s/.*: //p; q }' /proc/cpuinfo)
    echo '# Comparison'
    echo
    echo "* ${processor:-$(uname -m)}, $(nproc) cores, $(uname -sr)"
    versions | sed 's/^/* /'
    echo "* $(date -u +%F), $ROUNDS rounds of $DURATION s"
    echo
}

main() {
    local round outcome=0
    TARGETS=$(chosen TARGETS "${TARGETS:-pgbouncer pgweir}" "${ALL_TARGETS[@]}")
    wants pgbouncer || TARGETS=$(chosen TARGETS "$TARGETS pgbouncer" "${ALL_TARGETS[@]}")
    WORKLOADS=$(chosen WORKLOADS "${WORKLOADS:-select}" "${ALL_WORKLOADS[@]}")
    check_results_file
    find_postgres
    find_programs
    [ -z "$SYSCALLS" ] || find_strace
    list_cells
    open_work_directory
    start_postgres "$SCALE" "$((2 * LARGEST + 200))"
    if wants_replica; then start_replica; fi
    prepare_workloads
    start_targets

    every 1 warm_up
    for ((round = 1; round <= ROUNDS; round++)); do
        every "$round" measure "$round"
        note "round $round of $ROUNDS"
    done
    if [ -n "$SYSCALLS" ]; then every 1 count_syscalls; fi

    tables >"$WORK/tables.md" || outcome=$?
    versions
    cat "$WORK/tables.md"
    [ -z "$RESULTS" ] || { heading && cat "$WORK/tables.md"; } >"$RESULTS"
    return "$outcome"
}

main "$@"
