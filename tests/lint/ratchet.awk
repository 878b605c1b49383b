# Compares findings with a baseline:
#
#     awk -v mode=MODE -v script=SCRIPT -v baseline=NAME -f ratchet.awk BASELINE FINDINGS
#
# The baseline has comments, and lines COUNT RULE FILE. Findings have five fields with tabs between
# them: file, line, rule, amount and advice. The mode `check` prints the differences and fails if
# there are any, `update` prints the baseline with lower counts, and `counts` prints a baseline that
# allows all findings.

BEGIN { FS = "\t" }

FILENAME == ARGV[1] {
    if ($0 ~ /^(#|$)/) {
        heading = heading $0 "\n"
        next
    }
    split($0, part, " ")
    key = part[3] "\t" part[2]
    allowed[key] = part[1] + 0
    keys[++count] = key
    next
}

{
    key = $1 "\t" $3
    if (!(key in allowed)) {
        allowed[key] = 0
        keys[++count] = key
    }
    found[key] += $4
    message[++messages] = $1 ":" $2 ": " $3 ": " $5
    key_of[messages] = key
}

function print_counts(    i, value) {
    if (mode == "update") printf "%s", heading
    for (i = 1; i <= count; i++) {
        value = found[keys[i]] + 0
        if (mode == "update" && value > allowed[keys[i]]) value = allowed[keys[i]]
        split(keys[i], part, "\t")
        if (value > 0) print value, part[2], part[1]
    }
}

# Prints each finding of a file and rule that has too many. Returns 1 if a count differs.
function check(    i, now, limit, status) {
    for (i = 1; i <= messages; i++)
        if (found[key_of[i]] > allowed[key_of[i]]) print message[i]
    for (i = 1; i <= count; i++) {
        now = found[keys[i]] + 0
        limit = allowed[keys[i]]
        if (now == limit) continue
        status = 1
        split(keys[i], part, "\t")
        if (now < limit)
            print part[1] ": " part[2] ": " now ", " baseline " allows " limit ": keep the gain: sh " script " --update"
        else if (limit)
            print part[1] ": " part[2] ": " now ", " baseline " allows only " limit
    }
    return status + 0
}

END {
    if (mode == "check") exit check()
    print_counts()
}
