# shellcheck shell=sh
# tests/style.sh and tests/layers.sh source this file. They define `findings`, and `lint`, which is
# the directory of this file.

# run SCRIPT BASELINE [OPTION]: does what the option of a script asks for. The script defines
# `self_test`, too.
run() {
    case ${3-} in
        '') ratchet check "$1" "$2" ;;
        --update) ratchet update "$1" "$2" ;;
        --counts) ratchet counts "$1" /dev/null ;;
        --self-test) self_test ;;
        *) fail "usage: sh $1 [--update | --counts | --self-test]" ;;
    esac
}

# ratchet MODE SCRIPT BASELINE: compares the findings with the baseline, as ratchet.awk describes.
# `update` writes the baseline, and then checks like `check`.
ratchet() {
    status=0
    work=$(mktemp -d)
    findings >"$work/findings"
    if [ "$1" = update ]; then
        compare update "$2" "$3" >"$work/baseline"
        cat "$work/baseline" >"$3"
    fi
    if [ "$1" = counts ]; then
        compare counts "$2" "$3"
    else
        compare check "$2" "$3" >&2 || status=1
    fi
    rm -r "$work"
    return "$status"
}

compare() {
    awk -v mode="$1" -v script="$2" -v baseline="${3#"$lint/"}" -f "$lint/ratchet.awk" "$3" "$work/findings"
}

# test_ratchet SCRIPT: checks in this directory, which has findings, that counts only ever go down.
test_ratchet() {
    ratchet counts "$1" /dev/null >all
    ratchet check "$1" all 2>output || fail "$1: a baseline that allows all findings fails"
    ! ratchet check "$1" /dev/null 2>output || fail "$1: findings pass without a baseline"
    awk 'NR == 1 { $1++ } NR == 2 { $1-- } { print }' all >baseline
    ! ratchet check "$1" baseline 2>output || fail "$1: other counts than those of the baseline pass"
    grep -q "keep the gain: sh $1 --update" output || fail "$1: a lower count does not name the cure"
    ! ratchet update "$1" baseline 2>output || fail "$1: --update allows more findings"
    awk 'NR == 2 { $1-- } $1 { print }' all | diff -u - baseline >&2 || fail "$1: --update writes other counts"
}

fail() {
    echo "$*" >&2
    exit 1
}
