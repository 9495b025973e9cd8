# Reads "round protocol pooler microseconds transactions-per-second"; prints medians, spreads and ratios as Markdown.
# With -v max_ratio=N the exit code is 3 when a median ratio is above N.

function sort_numbers(list, count,    i, j, held) {
    for (i = 2; i <= count; i++) {
        held = list[i]
        for (j = i - 1; j >= 1 && list[j] > held; j--) list[j + 1] = list[j]
        list[j + 1] = held
    }
}

# Sets median, lowest and highest of what `pick` collected in `list`.
function summarise(list, count) {
    sort_numbers(list, count)
    lowest = list[1]
    highest = list[count]
    median = count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

function of_pooler(protocol, pooler, figure,    round, count) {
    count = 0
    split("", collected)
    for (round = 1; round <= rounds; round++) collected[++count] = figures[round, protocol, pooler, figure]
    summarise(collected, count)
}

function spread(format) { return sprintf(format " (" format "–" format ")", median, lowest, highest) }

{
    if (!($2 in seen)) { seen[$2] = 1; protocols[++protocol_count] = $2 }
    if ($1 > rounds) rounds = $1
    figures[$1, $2, $3, "cpu"] = $4
    figures[$1, $2, $3, "tps"] = $5
}

END {
    if (protocol_count == 0) { print "no results" > "/dev/stderr"; exit 1 }
    print "| protocol | PgBouncer, CPU µs per transaction | pgweir | ratio | PgBouncer, transactions per second | pgweir |"
    print "|---|---|---|---|---|---|"
    for (p = 1; p <= protocol_count; p++) {
        protocol = protocols[p]
        line = "| " protocol
        of_pooler(protocol, "pgbouncer", "cpu"); line = line " | " spread("%.1f")
        of_pooler(protocol, "pgweir", "cpu"); line = line " | " spread("%.1f")
        split("", ratios)
        for (round = 1; round <= rounds; round++) {
            base = figures[round, protocol, "pgbouncer", "cpu"]
            if (base == 0) { print "PgBouncer used no CPU: longer rounds are needed" > "/dev/stderr"; exit 1 }
            ratios[round] = figures[round, protocol, "pgweir", "cpu"] / base
        }
        summarise(ratios, rounds)
        line = line " | **" sprintf("%.2f", median) "**" sprintf(" (%.2f–%.2f)", lowest, highest)
        if (max_ratio != "" && median > max_ratio + 0) too_high = too_high " " protocol
        of_pooler(protocol, "pgbouncer", "tps"); line = line " | " spread("%d")
        of_pooler(protocol, "pgweir", "tps"); line = line " | " spread("%d")
        print line " |"
    }
    print ""
    print "Median (lowest–highest) of " rounds " rounds; ratio = pgweir / PgBouncer, round by round."
    if (too_high != "") { print "above " max_ratio ":" too_high > "/dev/stderr"; exit 3 }
}
