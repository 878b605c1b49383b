# Functions for scripts that run one check after another. Each check prints a line. $status is 1 if
# a check has failed.
# shellcheck shell=sh
status=0
output=/dev/null

ok() {
    echo "  ok      $1"
}

failed() {
    echo "  FAILED  $1"
    # shellcheck disable=SC2034 # scripts that source this file use it
    status=1
}

# left_out WHAT REASON: counts a check that cannot run here.
left_out() {
    echo "  skipped $1: $2"
}

# check WHAT COMMAND...: passes if the command succeeds. The command's output goes to the file
# $output, and is printed if the check fails.
check() {
    what=$1
    shift
    if "$@" >"$output" 2>&1; then ok "$what"; else
        failed "$what"
        sed 's/^/          /' "$output"
    fi
}
