# Finds type names that are defined more than once: awk -f types.awk LIST FILE...
#
# The list has lines NAME REASON for names that may be. An inline module of tests ends its file.

FNR == 1 { in_tests = after_cfg = 0 }

FILENAME == ARGV[1] {
    if ($0 !~ /^(#|$)/) allowed[$1] = FNR
    if (NF < 2 && $0 !~ /^(#|$)/) printf "%s:%d: %s needs a reason\n", FILENAME, FNR, $1
    next
}

after_cfg && /^mod [a-z_]+ \{/ { in_tests = 1 }

{ after_cfg = /^#\[cfg\(test\)\]/ }

in_tests { next }

match($0, /^(pub(\([^)]*\))? )?(unsafe )?(struct|enum|union|trait|type) [A-Z][A-Za-z0-9]*/) {
    count = split(substr($0, 1, RLENGTH), word, " ")
    name = word[count]
    where[name] = where[name] " " FILENAME ":" FNR
    if (++defined[name] == 2) names[++twice] = name
}

END {
    for (i = 1; i <= twice; i++) if (!(names[i] in allowed))
        printf "%s is defined more than once:%s: name each by what it is\n", names[i], where[names[i]]
    for (name in allowed) if (defined[name] < 2)
        printf "%s:%d: %s is not defined twice: remove the line\n", ARGV[1], allowed[name], name
}
