# Finds imports that leave a layer upwards or sideways: awk -f layers.awk TABLE FILE...
#
# Prints a line for each, with tabs between FILE LINE RULE AMOUNT ADVICE. The rule is
# `import:MODULE`. It reads the paths that begin with crate, super, self or stalld, in `use` and
# elsewhere. Inline modules end at the indentation of their begin, as rustfmt formats them.

function report(line, rule, advice) {
    printf "%s\t%d\t%s\t1\t%s\n", file, line, rule, advice
}

# Returns the module of a file: `boost::plan` for src/boost/plan.rs and src/boost/plan/mod.rs, and
# `boost::plan::tests` for src/boost/plan_tests.rs.
function module_of(path,    is_ffi) {
    is_ffi = sub(/^ffi\//, "", path)
    sub(/^src\//, "", path)
    sub(/\.rs$/, "", path)
    sub(/(^|\/)(mod|lib)$/, "", path)
    sub(/_tests$/, "/tests", path)
    gsub(/\//, "::", path)
    if (is_ffi) return path == "" ? "ffi" : "ffi::" path
    return path
}

# Returns the entry of the table that a path falls under, or nothing.
function entry_of(path) {
    while (path != "" && !(path in layer)) if (!sub(/::[^:]*$/, "", path)) return ""
    return path
}

# Returns whether the line is in a module of tests.
function is_test() {
    return (module inline[depth]) ~ /::tests(::|$)/
}

# Returns a path from the root of `stalld`.
function absolute(path,    base) {
    if (sub(/^stalld(::|$)/, "", path)) return path
    if (sub(/^crate(::|$)/, "", path)) return module ~ /^ffi(::|$)/ ? "ffi::" path : path
    base = module inline[depth]
    sub(/^self(::|$)/, "", path)
    while (sub(/^super(::|$)/, "", path)) if (!sub(/(^|::)[^:]*$/, "", base)) base = ""
    if (base == "" || path == "") return base path
    return base "::" path
}

function check(path, line,    entry) {
    sub(/ as .*/, "", path)
    gsub(/ /, "", path)
    if (path !~ /^(crate|super|self|stalld)(::|$)/) return
    path = absolute(path)
    entry = entry_of(path)
    if (entry == "") {
        sub(/::.*/, "", path)
        report(line, "import:" path, "name its module, and give that a layer in tests/lint/layers")
    } else if (layer[entry] != own && !((own, layer[entry]) in may_import))
        report(line, "import:" entry, own " must not import " layer[entry] ": move the item down, or pass it in")
    else if ((own, layer[entry]) in only && !((own, layer[entry], module) in may_alone) && !is_test())
        report(line, "import:" entry, "only" only[own, layer[entry]] " of " own " may import " layer[entry] ": call its traits")
}

# Checks the paths of a `use`, which may have braces within braces.
function expand(prefix, text, line,    i, c, level, part, rest) {
    i = index(text, "{")
    if (!i) {
        check(prefix text, line)
        return
    }
    prefix = prefix substr(text, 1, i - 1)
    text = substr(text, i + 1)
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "{") level++
        if (c == "}") level--
        if (level < 0 || c == "," && level == 0) {
            if (part ~ /[^ ]/) expand(prefix, part, line)
            part = ""
            if (level < 0) return
        } else part = part c
    }
}

# Returns a line without comments, and without what is in strings.
function code(line) {
    gsub(/'"'/, "' '", line)
    gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
    sub(/\/\/.*/, "", line)
    return line
}

# Checks the paths in a line that is no `use`.
function paths(line, number,    path, before) {
    while (match(line, /(crate|super|self|stalld)(::[A-Za-z_][A-Za-z0-9_]*)+/)) {
        before = RSTART > 1 ? substr(line, RSTART - 1, 1) : ""
        path = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        if (before !~ /[A-Za-z0-9_:]/) check(path, number)
    }
}

# The table.
NR == FNR {
    if ($1 == "layer") {
        for (i = 3; i <= NF; i++) may_import[$2, $i]
    }
    for (i = 4; $1 == "only" && i <= NF; i++) {
        only[$2, $3] = only[$2, $3] " " $i
        may_alone[$2, $3, $i]
    }
    if ($1 == "module") layer[$2] = $3
    next
}
FNR == 1 {
    file = FILENAME
    module = module_of(file)
    own = layer[entry_of(module)]
    depth = 0
    statement = ""
    if (own == "" && module != "") report(1, "module", "give the module a layer in tests/lint/layers")
    is_checked = own != ""
}
is_checked {
    text = code($0)
    if (depth && text == indents[depth] "}") depth--
    else if (match(text, /^ *(pub(\([a-z]*\))? )?mod [a-z_0-9]+ \{$/)) {
        indent = text
        sub(/[^ ].*/, "", indent)
        name = text
        sub(/^ *(pub(\([a-z]*\))? )?mod /, "", name)
        sub(/ \{$/, "", name)
        inline[depth + 1] = inline[depth] "::" name
        indents[++depth] = indent
    } else if (statement != "" || text ~ /^ *(pub(\([^)]*\))? )?use /) {
        if (statement == "") {
            statement_line = FNR
            sub(/^ *(pub(\([^)]*\))? )?use /, "", text)
        }
        statement = statement " " text
        if (text ~ /;/) {
            sub(/;.*/, "", statement)
            expand("", statement, statement_line)
            statement = ""
        }
    } else paths(text, FNR)
}
