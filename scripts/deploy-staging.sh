#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

usage() {
    cat <<'END'
Usage: scripts/deploy-staging.sh --version TAG[@sha256:DIGEST]

Release one version on this machine with Docker Compose: pull, prepare, start, try out; go back to
the former version if that fails. Run it on the staging host, or with DOCKER_HOST naming it.

  --version VERSION   the tag of an image that was pushed, best with the digest that was tested;
                      without one, the digest that the tag has now is looked up and kept
  --character ID      the smoke test begins a conversation with it; luna
  --timeout SECONDS   for the containers to become healthy; 300
  --dry-run           only read, and print every command that would change something
  --help

The variables that docker/compose.staging.yaml requires must be set, in the environment or in docker/.env.

The database does not go back with the version: migrations only go forward, and each must leave
the former version able to run.

Exit codes:
  0  released
  2  wrong usage
  3  refused by a check; nothing was changed
  4  preparing failed: the new version may have migrated in part, the former still serves
  5  the new version failed; the former serves again
  6  the new version failed and there is no way back: an operator must act
END
}

readonly service=conversation-service

version='' character=luna timeout=300
while [ $# -gt 0 ]; do
    case $1 in
        --version | --character | --timeout)
            [ $# -gt 1 ] || stop 2 "$1 needs a value; see --help"
            declare "${1#--}=$2"
            shift
            ;;
        --dry-run) dry_run=true ;;
        --help)
            usage
            exit
            ;;
        *) stop 2 "$1 is unknown; see --help" ;;
    esac
    shift
done
[[ $version =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*(@sha256:[0-9a-f]{64})?$ ]] ||
    stop 2 "--version must be a tag, or tag@sha256:digest"
[[ $version != latest* ]] || stop 2 "--version latest says nothing: name a version"
[[ $character =~ ^[A-Za-z0-9_-]+$ ]] || stop 2 "--character must be an id"
[[ $timeout =~ ^[1-9][0-9]*$ ]] || stop 2 "--timeout must be a number of seconds"

readonly compose=(docker compose --file docker/compose.staging.yaml)

# The version of an image, by the digest that it was pulled with; nothing if it was built here.
pinned() {
    local reference=$1 digest
    digest=$(docker image inspect --format '{{with .RepoDigests}}{{index . 0}}{{end}}' "$2") ||
        return
    reference=${reference##*/}
    reference=${reference%%@*}
    [ -z "$digest" ] || echo "${reference#*:}@${digest#*@}"
}

former_version() {
    local containers reference id
    containers=$("${compose[@]}" ps --all --quiet "$service") || return
    [ -n "$containers" ] || return 0
    read -r reference id < <(
        docker inspect --format '{{.Config.Image}} {{.Image}}' "${containers%%$'\n'*}"
    )
    pinned "$reference" "$id"
}

image() {
    local images
    images=$("${compose[@]}" config --images) || return
    grep --max-count=1 "/$service:" <<<"$images"
}

start() {
    run "${compose[@]}" up --detach --wait --wait-timeout "$timeout"
}

roll_out() {
    say "Starting $VERSION"
    start || return
    say "Trying it out through the gateway"
    run "${compose[@]}" exec -T "$service" python manage.py smoke_test \
        --base-url http://gateway:8003 --environment staging --character "$character"
}

roll_back() {
    say "It failed. The version goes back; the database does not: migrations only go forward"
    [ -n "$former" ] || stop 6 "this was the first release: there is no former version to return to"
    [ "$former" != "$VERSION" ] || stop 6 "the former version is the same: there is nothing to undo"
    VERSION=$former start || stop 6 "$former does not become healthy either"
    stop 5 "$VERSION failed; $former serves again"
}

export VERSION=$version
say "Checking"
image=$(image) || stop 3 "docker/compose.staging.yaml is not complete"
former=$(former_version) || stop 3 "Docker does not answer"

say "Pulling $image"
run docker pull --quiet "$image" || stop 3 "$image cannot be pulled"
if [ "$dry_run" = false ]; then
    VERSION=$(pinned "$image" "$image") || stop 3 "$image is not here after it was pulled"
fi

say "Preparing: migrations and indexes, while ${former:-nothing} serves"
run "${compose[@]}" run --rm --no-TTY prepare ||
    stop 4 "preparing failed; the former version still serves"
roll_out || roll_back
say "Released $VERSION to staging"
