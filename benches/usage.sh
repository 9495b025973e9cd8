# What a target used: CPU, context switches, answers from the cache, system calls; sourced. Needs WORK, PORT, INSTANCE_PID.
# shellcheck shell=bash

# "user system switches [hits asked]": clock ticks and context switches of all processes of an instance, the ticks of
# those that ended included; answers from pgweir's cache, and how often it was asked.
usage_of() { # target instance
    [ "$1" != direct ] || return 0
    local user system processes
    read -r user system processes < <(of_session "${INSTANCE_PID[$2]}")
    # shellcheck disable=SC2086  # one word per process
    echo "$user $system $(context_switches $processes)" "$([ "$1" != pgweir-cache ] || cache_counts "${PORT[$2]}")"
}

# "user system pid..." of a session. Processes may end while they are read.
of_session() { # pid of its leader
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v session="$1" '
        { pid = $1; sub(/^.*\) /, "") }
        $4 == session { user += $12 + $14; system_ += $13 + $15; processes = processes " " pid }
        END { print user + 0, system_ + 0 processes }'
}

context_switches() { # pids...
    local process files=()
    for process; do files+=("/proc/$process/task/"[0-9]*/status); done
    { cat "${files[@]}" 2>/dev/null || true; } | awk '/ctxt_switches:/ { count += $2 } END { printf "%.0f\n", count }'
}

# "hits asked"
cache_counts() { # port
    { "$PGBIN/psql" -h 127.0.0.1 -p "$1" -U bench -d pgbouncer -Atx -c 'SHOW CACHE' 2>/dev/null || true; } |
        awk -F '|' '{ count[$1] += $2 } END { printf "%.0f %.0f\n", count["hits"], count["hits"] + count["misses"] }'
}

# Lines "figure value": microseconds of CPU and switches for a transaction, percent of hits.
usage_per_transaction() { # usage-before usage-after transactions
    [ -n "$1" ] || return 0
    echo "$1 $2" | awk -v count="$3" -v hertz="$(getconf CLK_TCK)" '
        function used(field) { return $(NF / 2 + field) - $field }
        {
            printf "user %.3f\nsys %.3f\n", used(1) / hertz * 1e6 / count, used(2) / hertz * 1e6 / count
            printf "switches %.3f\n", used(3) / count
            if (NF > 6 && used(5) > 0) printf "hits %.1f\n", 100 * used(4) / used(5)
        }'
}

find_strace() { command -v strace >/dev/null || die "no strace: apt-get install strace"; }

# Counts the calls of all processes of an instance, from when all of them are seen to be traced.
start_strace() { # pid of the instance
    local process processes attempt options=()
    read -r _ _ processes < <(of_session "$1")
    for process in $processes; do options+=(-p "$process"); done
    start_as_is strace strace -c -f -q -o "$WORK/strace.out" "${options[@]}"
    for ((attempt = 0; attempt < 100; attempt++)); do
        if is_traced "$processes"; then return; fi
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.1
    done
    die "strace does not attach, it may have to be root: $(tail -n 5 "$WORK/strace.log")"
}

is_traced() { # pids
    local process
    for process in $1; do
        ! grep -qs '^TracerPid:[[:space:]]*0$' "/proc/$process/task/"*/status || return 1
    done
}

# Calls of all kinds; its rows are: % time, seconds, µs per call, calls, [errors,] name.
traced_calls() { # transactions
    awk -v transactions="$1" '
        $4 ~ /^[0-9]+$/ && $NF != "total" { calls += $4 }
        END { printf "%.3f\n", calls / transactions }
    ' "$WORK/strace.out"
}
