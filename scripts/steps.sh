# shellcheck shell=bash
# Sourced by the deploy scripts: how they speak, change things and stop.

dry_run=false

say() {
    printf '==> %s\n' "$*"
}

# Carry out a command that changes something; with --dry-run only show it.
run() {
    if [ "$dry_run" = true ]; then
        printf '+'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

# stop CODE MESSAGE
stop() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}
