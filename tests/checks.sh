# Sourced by what checks one thing after another: a line for each, and whether one has failed in $status.
# shellcheck shell=sh
status=0
output=/dev/null

ok() {
    echo "  ok      $1"
}

failed() {
    echo "  FAILED  $1"
    # shellcheck disable=SC2034 # it is for who sources this
    status=1
}

# left_out WHAT REASON: counts what cannot be checked here.
left_out() {
    echo "  skipped $1: $2"
}

# check WHAT COMMAND...: the command tells by its status; what it prints goes to the file $output, and is shown where it
# fails.
check() {
    what=$1
    shift
    if "$@" >"$output" 2>&1; then ok "$what"; else
        failed "$what"
        sed 's/^/          /' "$output"
    fi
}
