#!/usr/bin/env bash
# Everything that has to pass, on a Debian machine with a Rust toolchain: installs what the tests need, then runs
# formatter, unit, doc, integration and driver tests, lints, and counts instructions. Says how long each step took,
# fails if any of them failed, and makes sure that no process is left behind.
#
#   tests/run.sh              all of it
#   tests/run.sh routing      the integration tests of tests/routing.rs (several names may be given)
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Packages for what is not there yet.
missing_packages() {
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    command -v gcc >/dev/null || echo gcc libc6-dev
    command -v make >/dev/null || echo make
    ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || echo libclang-dev
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
    [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || echo pgbouncer
    command -v valgrind >/dev/null || echo valgrind
    command -v ss >/dev/null || echo iproute2
}

# Debian starts servers when it installs them; ours are started by the tests.
without_starting_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    local outcome=0
    "$@" || outcome=$?
    as_root rm -f "$policy"
    return "$outcome"
}

install() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "${packages// /}" ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "please install as root: apt-get install $packages" >&2
        return 1
    fi
    as_root apt-get update -q
    # shellcheck disable=SC2086  # one word per package
    without_starting_services as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
}

failures=()
durations=()

# A step that hangs must not hang the whole run.
bounded() {
    timeout --kill-after=30 2400 "$@"
}

step() {
    local name=$1 start=$SECONDS outcome=ok
    shift
    echo "== $name"
    "$@" || outcome=FAILED
    [ "$outcome" = ok ] || failures+=("$name")
    durations+=("$(printf '%5d s  %-6s  %s' $((SECONDS - start)) "$outcome" "$name")")
}

# The program of each integration test, by name: run without cargo, they leave its lock to what is built beside them.
test_programs() {
    bounded cargo test --no-run --tests --message-format json-render-diagnostics |
        sed -n 's/.*"kind":\["test"\].*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p' >"$run/programs"
}

# Two at a time, because most of them wait for servers; the long ones first.
integration_tests() {
    local file name lane steps long="drivers pgbench authentication limits routing tls operations history staleness"
    for file in tests/*.rs tests/*/main.rs; do
        name=${file#tests/}
        name=${name%/main.rs}
        echo "${name%.rs}"
    done | awk -v long=" $long " '{ at = index(long, " " $1 " "); print (at ? at : 1000), $1 }' |
        sort -n -s -k 1,1 | cut -d " " -f 2 >"$run/queue"
    # Those of the third lane, too.
    steps=$(($(wc -l <"$run/queue") + 2))
    for lane in 1 2; do
        integration_lane 3>&1 >"$run/lane-$lane" &
    done
    # What computes and waits for nobody takes the time that the tests leave.
    background_lane 3>&1 >"$run/lane-3" &
    wait
    [ ! -s "$run/queue" ] && [ "$(cat "$run"/lane-[123] | grep -c '^ *[0-9]* s ')" = "$steps" ] ||
        failures+=("a lane has ended early")
    mapfile -t -O "${#durations[@]}" durations < <(grep -hv '^failed ' "$run"/lane-[123])
    mapfile -t -O "${#failures[@]}" failures < <(sed -n 's/^failed //p' "$run"/lane-[123])
}

# Takes one name after the other from the queue.
integration_lane() {
    local name
    while name=$(flock "$run" sed -n -i -e '1w /dev/stdout' -e '2,$p' "$run/queue") && [ -n "$name" ]; do
        lane_step "tests/$name" integration_test "$name"
    done
}

integration_test() {
    local program
    program=$(awk -v name="$1" '$1 == name { print $2 }' "$run/programs")
    bounded "${program:-there is no program of tests/$1}"
}

background_lane() {
    lane_step lints bounded nice -n 19 cargo clippy --all-targets -- -D warnings
    lane_step "instructions per operation" bounded nice -n 19 benches/instructions.sh
}

# Standard output is for durations and failures; what the step itself says is shown when it has ended, on the third.
lane_step() {
    local said
    said=$(mktemp "$run/said-XXXXXX")
    failures=() durations=()
    step "$@" >"$said" 2>&1
    flock "$run" cat "$said" >&3
    printf '%s\n' "${durations[@]}" "${failures[@]/#/failed }"
}

# Everything that the tests started carries the run's own temporary directory in its environment or command line.
leftovers() {
    local pid command
    {
        grep -ls -- "$run" /proc/[0-9]*/cmdline || true
        grep -lsz -- "^TMPDIR=$run" /proc/[0-9]*/environ || true
    } | sort -u | while IFS=/ read -r _ _ pid _; do
        # This script, and the searches themselves: they are over by now, or about to be and without a command line.
        if [ "$pid" != "$$" ] && [ "$pid" != "$BASHPID" ] && [ "$pid" != "$PPID" ]; then
            command=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | tr '\n' ' ' | cut -c1-200) || true
            [ -z "$command" ] || echo "$pid $command"
        fi
    done
}

nothing_is_left() {
    local attempt left
    for attempt in $(seq 60); do
        left=$(leftovers)
        [ -n "$left" ] || return 0
        sleep 0.5
    done
    echo "still running after attempt $attempt:" >&2
    echo "$left" >&2
    return 1
}

start=$SECONDS
installing=$SECONDS
echo "== install"
install
durations+=("$(printf '%5d s  %-6s  %s' $((SECONDS - installing)) ok install)")

# Servers run as another user, who has to pass through.
run=$(mktemp -d /tmp/pgweir-run.XXXXXX)
chmod 711 "$run"
trap 'rm -rf "$run"' EXIT
export TMPDIR=$run

if [ $# -gt 0 ]; then
    for name in "$@"; do
        step "tests/$name" bounded cargo test --test "$name"
    done
else
    step format bounded cargo fmt --check
    step build test_programs
    step "unit tests" bounded cargo test --lib --bins
    step "doc tests" bounded cargo test --doc
    step "driver installation" bounded tests/drivers/install.sh
    integration_tests
fi

if ! nothing_is_left; then
    failures+=("processes were left behind")
fi

echo "== durations"
printf '%s\n' "${durations[@]}"
printf '%5d s  in all\n' $((SECONDS - start))
if [ ${#failures[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failures[@]}"
    exit 1
fi
echo "all passed"
