#!/usr/bin/env bash
# Counts the instructions that steps of a query's way take, and says where they have become more.
#
#   benches/instructions.sh              fails where a figure is more than 5 % above that of benches/instructions.txt
#   benches/instructions.sh --update     writes the figures down
#
# Each operation of benches/operations runs under valgrind FEW times and MANY times: the difference, divided, is one
# operation, warmed up. Valgrind shows the program a processor of its own, so memchr and memcpy choose the same code on
# every machine with AVX2. What is left is the compiler, the C library and the dependencies: after a new version of
# those, write the figures down again.
set -euo pipefail
export LC_ALL=C
# They would change how the C library copies and allocates.
unset GLIBC_TUNABLES "${!MALLOC_@}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FIGURES=benches/instructions.txt
# Multiples of what operations repeat themselves after: 64 literals, turns among replicas that weigh 2 and 1.
FEW=1920
MANY=9600
TOLERATED_PERCENT=5

die() {
    echo "$0: $*" >&2
    exit 1
}

# Our own code optimised in one unit, the dependencies as the tests have them: counting shall not cost a release build.
# Programs go to a place of their own, so that nobody's are replaced while they run.
build() {
    local messages setting settings=() target=${CARGO_TARGET_DIR:-target}
    for setting in opt-level=3 codegen-units=1 debug-assertions=false overflow-checks=false; do
        settings+=(--config "profile.dev.package.pgweir.$setting")
    done
    messages=$(CARGO_BUILD_BUILD_DIR=$target CARGO_TARGET_DIR=$target/instructions CARGO_INCREMENTAL=0 \
        cargo build --locked --bench instructions "${settings[@]}" --message-format json-render-diagnostics) || die "the benchmark does not build"
    sed -n 's/.*"executable":"\([^"]*\/instructions-[^"]*\)".*/\1/p' <<<"$messages"
}

# The instructions of the loop over one operation.
count() { # name times
    timeout 120 valgrind --tool=callgrind --instr-atstart=yes --toggle-collect='*instructions::repeat' \
        --callgrind-out-file="$WORK/counts" "$PROGRAM" "$1" "$2" >"$WORK/log" 2>&1 ||
        die "valgrind on $1 $2: $(tail -n 20 "$WORK/log")"
    awk '/^(summary|totals):/ { found = $2 } END { print found + 0; exit !found }' "$WORK/counts" ||
        die "valgrind counted nothing for $1: is there no function 'repeat'?"
}

# "name figure" per operation.
measure() {
    local names name few many
    names=$("$PROGRAM")
    for name in $names; do
        few=$(count "$name" "$FEW")
        many=$(count "$name" "$MANY")
        awk -v name="$name" -v more=$((many - few)) -v times=$((MANY - FEW)) \
            'BEGIN { printf "%s %.1f\n", name, more / times }'
    done
}

tools() { echo "$(rustc --version), $(valgrind --version), $(ldd --version | head -n 1)"; }

write_down() {
    {
        echo "# Instructions per operation: benches/instructions.sh --update"
        echo "# $(tools)"
        cat "$WORK/figures"
    } >"$FIGURES"
    cat "$FIGURES"
}

compare() {
    find_increases && return
    echo "then: $(sed -n '2s/^# //p' "$FIGURES")"
    echo "now:  $(tools)"
    die "instructions per operation have changed; where that is meant to be: benches/instructions.sh --update"
}

# An operation that is on one side only is a failure, too: nothing is left out in silence.
find_increases() {
    awk -v tolerated="$TOLERATED_PERCENT" '
        /^#/ { next }
        FNR == NR { before[$1] = $2; next }
        !($1 in before) { printf "%-18s %27.1f  FAILED: no figure before\n", $1, $2; failed = 1; next }
        {
            change = ($2 / before[$1] - 1) * 100
            verdict = change > tolerated ? "FAILED: more than " tolerated " % above" : "ok"
            if (change > tolerated) failed = 1
            if (change < -tolerated) verdict = "less: write it down with --update"
            printf "%-18s %9.1f -> %9.1f  %+6.1f %%  %s\n", $1, before[$1], $2, change, verdict
            delete before[$1]
        }
        END {
            for (name in before) { printf "%-18s %9.1f     FAILED: it was not counted\n", name, before[name]; failed = 1 }
            exit failed
        }
    ' "$FIGURES" "$WORK/figures"
}

case ${1:-} in
    "") finish=compare ;;
    --update) finish=write_down ;;
    *) die "unknown: $1" ;;
esac
command -v valgrind >/dev/null || die "no valgrind: apt-get install valgrind"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/instructions.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
PROGRAM=$(build)
[ -x "$PROGRAM" ] || die "no program at '$PROGRAM'"
measure >"$WORK/figures"
"$finish"
