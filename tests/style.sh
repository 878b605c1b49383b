#!/bin/sh
# Checks the English, the sizes and the commit subjects that CONTRIBUTING.md asks for:
#
#     style.sh [--update | --counts | --self-test]
#
# tests/lint/style.baseline counts the findings that are allowed until their files are rewritten.
# --update lowers these counts to those of now. --counts prints a baseline that allows all findings.
# --self-test checks that each rule finds its seeded violations, and nothing else.
set -eu
cd "$(dirname "$0")/.."
lint=$PWD/tests/lint
. tests/lint/ratchet.sh
# awk reads bytes then, so that mawk and gawk count alike.
export LC_ALL=C

# Prints the files whose prose is this project's own.
files() {
    listed=$(git ls-files --cached --others --exclude-standard 2>/dev/null) || listed=
    [ -n "$listed" ] ||
        listed=$(find . \( -path ./target -o -path ./.git \) -prune -o -type f -print | sed 's|^\./||' | sort)
    echo "$listed" | while read -r file; do
        case $file in
            # Generated. Their sources are checked instead.
            src/observe/bpf/records.rs | src/stat/bpf_abi.rs | include/stalld.h | docs/BENCHMARKS.md) ;;
            # The names of the kernel.
            bpf/vmlinux.h) ;;
            # Input of tests: other programs wrote it, or a test needs it as it is.
            tests/fixtures/* | fuzz/corpus/* | fuzz/regressions/*) ;;
            # The violations of the self-test.
            tests/lint/seeded/*) ;;
            # Texts of licences, which are not ours to change.
            LICENSES/*) ;;
            # The other files have no comments that style.awk can read.
            *.rs | *.c | *.h | *.md | *.sh | *.awk | *.py | *.toml | *.yml | *.yaml | *.bash | *.te | *.fc | *.spec | \
                Makefile | *.service | *.conf | packaging/completions/* | packaging/throttlectl | packaging/debian/rules | \
                packaging/debian/tests/library | tests/vm/init | tests/vm/bin/* | tests/skips | .ci/run)
                [ ! -f "$file" ] || echo "$file"
                ;;
        esac
    done
}

# Checks the subjects of the commit that added this script, and of its descendants. The subjects of
# merges are git's. Without git, or in a clone without that commit, it checks nothing.
subjects() {
    first=$(git log --diff-filter=A --format=%H -- tests/style.sh 2>/dev/null | tail -n 1)
    [ -n "$first" ] || return 0
    # The last commit of a shallow clone seems to add all files.
    ! grep -qs "^$first" "$(git rev-parse --git-path shallow)" || return 0
    {
        git log --abbrev=12 --format='%h %s' -1 "$first"
        git log --abbrev=12 --format='%h %s' --no-merges --ancestry-path "$first..HEAD"
    } | awk '
        function report(advice) { printf "commit-%s\t1\tsubject\t1\t%s\n", hash, advice }
        {
            hash = $1
            subject = substr($0, length($1) + 2)
            text = subject
            gsub(/[\200-\277]/, "", text)
            if (length(text) > 72) report("at most 72 columns")
            if (subject ~ /^Revert "/) next
            if (subject !~ /^[a-z][a-z0-9_.\/-]*(, [a-z][a-z0-9_.\/-]*)*: [a-z]/ || subject ~ /\.$/) {
                report("write \"area: imperative summary\", without a period")
                next
            }
            verb = subject
            sub(/^[^:]*: /, "", verb)
            sub(/[^a-z-].*/, "", verb)
            if (verb ~ /(ed|ing)$/ && verb !~ /^(embed|exceed|feed|need|proceed|seed|shed|speed|bring|ping|string|swing)$/ ||
                verb ~ /[^isu]s$/ && verb !~ /^(alias|bias|canvas)$/)
                report("begin with an imperative, as in \"add\" or \"fix\", not with \"" verb "\"")
        }'
}

findings() {
    files >"$work/files"
    [ -s "$work/files" ] || fail "style.sh: found no files in $PWD"
    xargs awk -f "$lint/style.awk" "$lint/words" <"$work/files"
    subjects
}

self_test() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cp -R "$lint/seeded/style/." "$scratch"
    cd "$scratch"
    # A hook of git sets variables by which git would find the repository of the hook from here.
    # shellcheck disable=SC2046 # a list of names
    unset $(git rev-parse --local-env-vars 2>/dev/null)
    mkdir -p src
    awk 'BEGIN { for (i = 0; i < 460; i++) print "const X" i ": u8 = 0;" }' >src/long.rs
    work=$PWD/work
    mkdir "$work"
    findings | cut -f 1-4 | tr '\t' ' ' | diff -u "$lint/seeded/style.expected" - >&2 ||
        fail "style.sh: the self-test found something else than tests/lint/seeded/style.expected has"
    rm -r "$work"
    test_ratchet tests/style.sh
    if command -v git >/dev/null; then
        test_subjects
    fi
}

# Commits subjects: good ones, bad ones, one before the script, and one on a branch beside it.
test_subjects() {
    git init -q .
    git config user.name test
    git config user.email test@example.org
    git config commit.gpgsign false
    git config core.hooksPath /dev/null
    git commit -q --allow-empty -m 'An old subject'
    git branch beside
    mkdir tests
    : >tests/style.sh
    git add tests/style.sh
    git commit -q -m 'tests: add the script'
    while read -r subject; do
        git commit -q --allow-empty -m "$subject"
    done <<'END'
boost, detect: process each task once
boost: added a thing
boost: adds a thing
boost: adding a thing
Boost a thing
boost: Add a thing
boost: add a thing.
boost: add a thing with a subject that goes on until it takes seventy-three..
END
    main=$(git symbolic-ref --short HEAD)
    git checkout -q beside
    git commit -q --allow-empty -m 'A subject beside the script'
    git checkout -q "$main"
    git merge -q --no-edit beside
    subjects | cut -f 5 | sort >output
    diff -u - output >&2 <<'END' || fail "style.sh: the self-test of subjects failed"
at most 72 columns
begin with an imperative, as in "add" or "fix", not with "added"
begin with an imperative, as in "add" or "fix", not with "adding"
begin with an imperative, as in "add" or "fix", not with "adds"
write "area: imperative summary", without a period
write "area: imperative summary", without a period
write "area: imperative summary", without a period
write "area: imperative summary", without a period
END
}

run tests/style.sh "$lint/style.baseline" "$@"
