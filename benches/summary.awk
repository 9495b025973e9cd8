# Reads lines "round workload protocol clients target figure value"; prints the table of -v workload=NAME as Markdown:
# medians, spreads, and ratios to pgbouncer round by round. Figures: user, sys (µs of CPU for a transaction), switches,
# syscalls (for a transaction), hits (percent), tps, p50 and p99 (µs from request to answer).
# With -v max_ratio=N the exit code is 3 when a median ratio of pgweir's CPU is above N.

function sort_numbers(list, count,    i, j, held) {
    for (i = 2; i <= count; i++) {
        held = list[i]
        for (j = i - 1; j >= 1 && list[j] > held; j--) list[j + 1] = list[j]
        list[j + 1] = held
    }
}

# Sets median, lowest and highest.
function summarise(list, count) {
    sort_numbers(list, count)
    lowest = list[1]
    highest = list[count]
    median = count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

# Summarises what the rounds of a row say of a figure; false where nobody took it.
function of_row(row, target, figure,    round, count, list) {
    count = 0
    for (round = 1; round <= rounds; round++)
        if ((round, row, target, figure) in figures) list[++count] = figures[round, row, target, figure]
    if (count) summarise(list, count)
    return count
}

function of_ratio(row, target, figure,    round, count, list, base) {
    count = 0
    for (round = 1; round <= rounds; round++) {
        if (!((round, row, target, figure) in figures)) continue
        base = figures[round, row, "pgbouncer", figure]
        if (base == 0) {
            print "pgbouncer: no " figure " to compare with, longer rounds are needed" > "/dev/stderr"
            failed = 1
            exit 1
        }
        list[++count] = figures[round, row, target, figure] / base
    }
    if (count) summarise(list, count)
    return count
}

# What a target adds to the median latency of a direct connection, as a multiple of what PgBouncer adds.
function of_added(row, target,    round, count, list, direct, base) {
    count = 0
    for (round = 1; round <= rounds; round++) {
        if (!((round, row, target, "p50") in figures) || !((round, row, "direct", "p50") in figures)) continue
        direct = figures[round, row, "direct", "p50"]
        base = figures[round, row, "pgbouncer", "p50"] - direct
        if (base > 0) list[++count] = (figures[round, row, target, "p50"] - direct) / base
    }
    if (count) summarise(list, count)
    return count
}

function spread(format) { return sprintf(format " (" format "–" format ")", median, lowest, highest) }
function ratio(row, target, figure) {
    if (target == "pgbouncer") return "1"
    return of_ratio(row, target, figure) ? sprintf("**%.2f** (%.2f–%.2f)", median, lowest, highest) : "–"
}
function figure_cell(row, target, figure, format) { return of_row(row, target, figure) ? spread(format) : "–" }
function median_cell(row, target, figure, format) { return of_row(row, target, figure) ? sprintf(format, median) : "–" }
function add(cell) { line = line " " cell " |" }

function print_heading() {
    line = "| protocol | clients | target | CPU µs per transaction | user | system | CPU ratio | context switches |"
    if ("syscalls" in taken) add("system calls")
    if ("hits" in taken) add("from cache, %")
    add("transactions per second")
    add("ratio")
    if ("p50" in taken) { add("p50 µs"); add("added ratio"); add("p99 µs"); add("p99 ratio") }
    print line
    gsub(/[^|]+/, "---", line)
    print line
}

function print_row(row, target) {
    line = "|"
    add(protocols[row])
    add(clients[row])
    add(target)
    add(figure_cell(row, target, "cpu", "%.1f"))
    add(median_cell(row, target, "user", "%.1f"))
    add(median_cell(row, target, "sys", "%.1f"))
    add(ratio(row, target, "cpu"))
    # The median is still the one of the cell before.
    if (target == "pgweir" && max_ratio != "" && median > max_ratio + 0) too_high = too_high " " protocols[row] "/" clients[row]
    add(median_cell(row, target, "switches", "%.2f"))
    if ("syscalls" in taken) add(median_cell(row, target, "syscalls", "%.2f"))
    if ("hits" in taken) add(median_cell(row, target, "hits", "%.0f"))
    add(figure_cell(row, target, "tps", "%d"))
    add(ratio(row, target, "tps"))
    if ("p50" in taken) {
        add(median_cell(row, target, "p50", "%d"))
        add(target == "direct" ? "0" : of_added(row, target) ? sprintf("**%.2f**", median) : "–")
        add(median_cell(row, target, "p99", "%d"))
        add(ratio(row, target, "p99"))
    }
    print line
}

$2 == workload {
    row = $3 " " $4
    if (!(row in protocols)) { protocols[row] = $3; clients[row] = $4; rows[++row_count] = row }
    if (!($5 in seen)) { seen[$5] = 1; targets[++target_count] = $5 }
    if ($1 > rounds) rounds = $1
    taken[$6] = 1
    figures[$1, row, $5, $6] = $7
    if ($6 == "user" || $6 == "sys") figures[$1, row, $5, "cpu"] += $7
}

END {
    if (failed) exit 1
    if (row_count == 0) { print "no results" > "/dev/stderr"; exit 1 }
    print_heading()
    for (r = 1; r <= row_count; r++)
        for (t = 1; t <= target_count; t++) print_row(rows[r], targets[t])
    print ""
    print "Median (lowest–highest) of " rounds " rounds; ratio = target / pgbouncer, round by round."
    if ("p50" in taken) print "Added ratio: p50 above that of direct, as a multiple of what pgbouncer adds."
    if (too_high != "") { print "above " max_ratio ":" too_high > "/dev/stderr"; exit 3 }
}
