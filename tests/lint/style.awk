# Finds violations of the style rules: awk -f style.awk WORDS FILE...
#
# Prints a line for each: FILE LINE RULE AMOUNT ADVICE, separated by tabs. The amount is 1; for the
# lengths of files and functions it is the number of lines above the limit. LC_ALL=C makes each awk
# read bytes.

BEGIN {
    WIDTH = 100
    FILE_LINES = 450
    FUNCTION_LINES = 60
    PARAMETERS = 5
    OPENINGS = "(What|Who|Whom|Whoever|Of|As many as|Those who)"
    # A sentence begins behind the end of another one, or in a cell of a table.
    OPENING = "[.!?:|][])\"'*_]* +[[(\"'*_]*" OPENINGS "([^A-Za-z]|$)"
}

function report(line, rule, amount, advice) {
    printf "%s\t%d\t%s\t%d\t%s\n", file, line, rule, amount, advice
}

# Returns the columns that a line takes, without addresses, which can't be wrapped.
function columns(line) {
    gsub(/<?https?:\/\/[^ ]*/, "", line)
    gsub(/\t/, "        ", line)
    # The bytes of a UTF-8 character behind its first one.
    gsub(/[\200-\277]/, "", line)
    return length(line)
}

function check_width(line, number) {
    if (columns(line) > WIDTH) report(number, "width", 1, "wrap at " WIDTH " columns")
}

# Returns the text without code in backticks, which may go on from the line before.
function without_code(text,    end) {
    if (in_code) {
        end = index(text, "`")
        if (!end) return ""
        text = substr(text, end + 1)
        in_code = 0
    }
    gsub(/`[^`]*`/, "x", text)
    end = index(text, "`")
    if (end) {
        in_code = 1
        text = substr(text, 1, end - 1) "x"
    }
    return text
}

# Checks one line of prose. It goes on from the line before unless `is_fresh`.
function prose(text, number, is_fresh) {
    if (is_fresh) {
        tail = ""
        has_ended = 1
        in_code = 0
    }
    text = without_code(text)
    gsub(/\]\([^)]*\)/, "]", text)
    gsub(/https?:\/\/[^ ]*/, "x", text)
    check_openings(text, number)
    check_words(text, number)
    has_ended = text ~ /[.!?:][])"'*_]*$/
}

function check_openings(text, number,    word) {
    if (has_ended) {
        sub(/^[^A-Za-z0-9]*/, "", text)
        text = ". " text
    }
    while (match(text, OPENING)) {
        word = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH - 1)
        gsub(/[^A-Za-z ]/, "", word)
        gsub(/^ *| *$/, "", word)
        report(number, "opening", 1, "no sentence begins with \"" word "\": begin with the agent")
    }
}

function check_words(text, number,    all, seen, i, rest, offset, end, word, parts, count) {
    text = tolower(text)
    gsub(/[^a-z0-9-]+/, " ", text)
    gsub(/^ +| +$/, "", text)
    # Words that end in the line before have been reported there.
    seen = tail == "" ? 0 : length(tail) + 2
    all = tail == "" ? " " text " " : " " tail " " text " "
    if (all ~ any_word) {
        while (has_allowed && match(all, allowed)) {
            word = substr(all, RSTART, RLENGTH)
            gsub(/[a-z]/, "-", word)
            all = substr(all, 1, RSTART - 1) word substr(all, RSTART + RLENGTH)
        }
        for (i = 1; i <= words; i++) {
            rest = all
            offset = 0
            while (match(rest, pattern[i])) {
                end = offset + RSTART + RLENGTH - 1
                word = substr(rest, RSTART + 1, RLENGTH - 2)
                rest = substr(rest, RSTART + RLENGTH - 1)
                offset = end - 1
                if (end > seen) report(number, "word", 1, "\"" word "\": " advice[i])
            }
        }
    }
    count = split(text, parts, " ")
    if (count >= 2) tail = parts[count - 1] " " parts[count]
    else if (count == 1) tail = parts[1]
}

# A block of comments is what stands on lines without a gap and with the same marker.
function begin_block(text, number) {
    if (text ~ /^(\.\.\.|\342\200\246) *[^ .]/)
        report(number, "ellipsis", 1, "each comment stands alone: begin it with a sentence of its own")
}

function end_block() {
    if (marker != "" && last_text ~ /(^|[^.])[ ,;(](\.\.\.|\342\200\246)$/)
        report(last_number, "ellipsis", 1, "each comment stands alone: end the sentence here")
    marker = ""
    last_text = ""
    in_fence = 0
}

function comment(text, number, new_marker,    is_fresh) {
    sub(/^[ \t]+/, "", text)
    sub(/[ \t]+$/, "", text)
    if (new_marker != marker) {
        end_block()
        begin_block(text, number)
    }
    is_fresh = new_marker != marker || last_text == "" || text ~ /^([-*+]|[0-9]+\.) / || text ~ /^#/
    marker = new_marker
    last_text = text
    last_number = number
    if (text ~ /^```/) in_fence = !in_fence
    else if (!in_fence && text != "" && text !~ /^(shellcheck |SPDX-)/) prose(text, number, is_fresh)
}

# Returns whether what stands before a place in a line leaves no string open there.
function is_outside_strings(before) {
    gsub(/\\["']/, "", before)
    gsub(/'"'/, "", before)
    return gsub(/"/, "", before) % 2 == 0
}

# Rust and C.
function slashes(line, number,    text, start, end, place) {
    if (in_block) {
        check_width(line, number)
        text = line
        end = index(text, "*/")
        if (end) text = substr(text, 1, end - 1)
        sub(/^[ \t]*\*/, "", text)
        if (!end || text ~ /[^ \t]/) comment(text, number, "/*")
        if (end) {
            in_block = 0
            end_block()
        }
        return
    }
    if (match(line, /^[ \t]*\/\/[\/!]?/)) {
        check_width(line, number)
        text = substr(line, RSTART, RLENGTH)
        gsub(/[ \t]/, "", text)
        comment(substr(line, RLENGTH + 1), number, text)
        return
    }
    end_block()
    start = index(line, "/*")
    if (start && is_outside_strings(substr(line, 1, start - 1))) {
        if (substr(line, 1, start - 1) !~ /[^ \t]/) check_width(line, number)
        text = substr(line, start + 2)
        end = index(text, "*/")
        in_block = !end
        if (end) text = substr(text, 1, end - 1)
        sub(/^[*!]/, "", text)
        if (!end || text ~ /[^ \t]/) comment(text, number, "/*")
        if (end) end_block()
        return
    }
    text = line
    place = 0
    while (match(text, /[ \t]\/\/[\/!]?[ \t]/)) {
        if (is_outside_strings(substr(line, 1, place + RSTART - 1))) {
            comment(substr(text, RSTART + RLENGTH), number, "trailing")
            end_block()
            return
        }
        place += RSTART + 1
        text = substr(text, RSTART + 2)
    }
}

# Shell, make, TOML and their like.
function hashes(line, number,    before, text) {
    if (match(line, /^[ \t]*#+[:,]?([ \t]|$)/)) {
        check_width(line, number)
        comment(substr(line, RLENGTH + 1), number, "#")
        return
    }
    end_block()
    if (match(line, /[ \t]##?[ \t]/)) {
        before = substr(line, 1, RSTART)
        text = substr(line, RSTART + RLENGTH)
        if (is_outside_strings(before) && gsub(/'/, "", before) % 2 == 0) {
            comment(text, number, "trailing")
            end_block()
        }
    }
}

function markdown(line, number,    text) {
    if (line ~ /^ *(```|~~~)/) {
        in_fence = !in_fence
        after_blank = 1
        return
    }
    if (in_fence || is_old) return
    if (line !~ /[^ \t]/) {
        after_blank = 1
        return
    }
    # Releases that are out stay as they are.
    if (file ~ /CHANGELOG\.md$/ && line ~ /^## \[[0-9]/) {
        is_old = 1
        return
    }
    if (line ~ /^    / && !in_list && (after_blank || in_indented)) {
        in_indented = 1
        return
    }
    in_indented = 0
    if (line ~ /^[^ ]/) in_list = 0
    if (line ~ /^ *([-*+]|[0-9]+\.) /) {
        in_list = 1
        after_blank = 1
    }
    if (line ~ /^ *\[[^]]*\]: /) return
    if (line ~ /^ *\|/) {
        # `make test-vm` prints the tables of this file.
        if (file !~ /docs\/KERNELS\.md$/) prose(line, number, 1)
        after_blank = 1
        return
    }
    text = line
    gsub(/\]\([^)]*\)/, "]", text)
    check_width(text, number)
    prose(line, number, after_blank || line ~ /^#/)
    after_blank = line ~ /^#/
}

# Returns the number of parameters of a signature, without self.
function parameters(signature,    i, c, depth, started, count, part, first) {
    match(signature, /fn [A-Za-z0-9_]+/)
    signature = substr(signature, RSTART + RLENGTH)
    gsub(/->/, "", signature)
    for (i = 1; i <= length(signature); i++) {
        c = substr(signature, i, 1)
        if (index(")]}>", c)) {
            depth--
            if (started && depth == 0) break
        }
        if (started && depth == 1 && c == ",") {
            if (part ~ /[^ ]/) count++
            if (!first) first = part
            part = ""
        } else if (started) part = part c
        if (index("([{<", c)) {
            if (c == "(" && depth == 0) started = 1
            depth++
        }
    }
    if (part ~ /[^ ]/) {
        count++
        if (!first) first = part
    }
    if (first ~ /^ *&?('[a-z_]+ )?(mut )?self *(:|$)/) count--
    return count + 0
}

# Measures functions. rustfmt puts the end of a function at the indentation of its begin.
function functions(line, number,    indent) {
    if (depth && line == indents[depth] "}") {
        if (number - begins[depth] + 1 > FUNCTION_LINES)
            report(begins[depth], "function-length", number - begins[depth] + 1 - FUNCTION_LINES, \
                number - begins[depth] + 1 " lines: split it, so that each part has at most " FUNCTION_LINES)
        depth--
        return
    }
    if (signature == "") {
        if (line !~ /^ *((pub(\([^)]*\))?|const|async|unsafe|extern|"C"|default) )*fn [A-Za-z0-9_]+/) return
        signature_line = number
        match(line, /^ */)
        signature_indent = substr(line, 1, RLENGTH)
    }
    sub(/ *\/\/.*/, "", line)
    signature = signature " " line
    if (line !~ /[{};]$/) return
    if (parameters(signature) > PARAMETERS)
        report(signature_line, "parameters", 1, parameters(signature) " parameters: pass a struct, so that at most " PARAMETERS " are left")
    if (line ~ /\{$/) {
        depth++
        indents[depth] = signature_indent
        begins[depth] = signature_line
    }
    signature = ""
}

function end_file() {
    if (file == "") return
    end_block()
    if (is_sized && lines > FILE_LINES)
        report(1, "file-length", lines - FILE_LINES, lines " lines: make it files of one subject and at most " FILE_LINES " lines")
}

function begin_file() {
    end_file()
    file = FILENAME
    sub(/^\.\//, "", file)
    is_sized = file ~ /^(ffi\/)?src\/.*\.rs$/
    kind = file ~ /\.md$/ ? "markdown" : file ~ /\.(rs|c|h)$/ ? "slashes" : "hashes"
    in_fence = is_old = in_list = in_indented = in_block = depth = in_code = 0
    after_blank = 1
    signature = ""
}

# The words.
NR == FNR {
    if ($0 ~ /^(#|$)/) next
    if ($1 == "allow") {
        sub(/^allow /, "")
        allowed = allowed (has_allowed ? "|" : "") $0
        has_allowed = 1
        next
    }
    at = index($0, " = ")
    words++
    pattern[words] = " (" substr($0, 1, at - 1) ") "
    advice[words] = substr($0, at + 3)
    all_words = all_words (words > 1 ? "|" : "") substr($0, 1, at - 1)
    next
}
!any_word {
    any_word = " (" all_words ") "
    allowed = " (" allowed ") "
}
FNR == 1 { begin_file() }
{
    lines = FNR
    if (kind == "markdown") markdown($0, FNR)
    else if (kind == "slashes") slashes($0, FNR)
    else hashes($0, FNR)
    if (is_sized) functions($0, FNR)
}
END { end_file() }
