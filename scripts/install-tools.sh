#!/usr/bin/env bash
# Bring what `make check-deploy` needs into one folder, without touching the system.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/install-tools.sh FOLDER

Fills FOLDER/bin with the programs that check deployment files: from PyPI those of
requirements/deployment.txt, from Debian the real Prometheus, Alertmanager, Docker Compose and
kubectl, from npm the schemas of custom resources. Nothing is installed into the system, and
root is not needed; but for apt-get and dpkg of Debian or a system made from it, and npm.
PYTHON chooses the Python (python3); DEBIAN_MIRROR a mirror, where the system itself names none.
TEXT
}

# Programs for Debian 13 that need nothing but a C library, so they run on Debian 12 as well.
SUITE=trixie
PACKAGES=(
    prometheus promtool prometheus-alertmanager shfmt docker-compose docker-buildx kubectl
)
PROGRAMS=(
    usr/bin/prometheus usr/bin/promtool usr/bin/prometheus-alertmanager usr/bin/amtool
    usr/bin/shfmt usr/bin/kubectl
    usr/libexec/docker/cli-plugins/docker-compose usr/libexec/docker/cli-plugins/docker-buildx
)
SCHEMAS=(@kubernetes-models/prometheus-operator@6.0.0 @kubernetes-models/external-secrets@2.0.0)

main() {
    case "${1:-}" in
        "" | -h | --help) usage && exit ;;
    esac
    mkdir -p "$1/bin"
    local tools here
    tools=$(cd "$1" && pwd)
    here=$(cd "$(dirname "$0")/.." && pwd)
    from_pypi "$tools" "$here/requirements/deployment.txt"
    from_debian "$tools"
    from_npm "$tools"
}

from_pypi() {
    "${PYTHON:-python3}" -m venv "$1/venv"
    "$1/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$2"
    find "$1/venv/bin" -type f -executable ! -name 'python*' ! -name 'pip*' \
        -exec ln -sf --target-directory "$1/bin" {} +
}

# A package system of its own, beside that of the machine: the same mirror and keys, another suite.
from_debian() {
    local apt="$1/apt"
    mkdir -p "$apt"/{lists/partial,archives/partial,parts}
    : >"$apt/status"
    sources >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "$apt/parts";
Dir::Etc::Preferences "$apt/preferences";
Dir::Etc::PreferencesParts "$apt/parts";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
    export APT_CONFIG="$apt/apt.conf"
    apt-get update --quiet=2
    (cd "$apt/archives" && apt-get download --quiet=2 "${PACKAGES[@]}")
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --extract "$package" "$1/debian"
    done
    rm -r "$apt"
    for program in "${PROGRAMS[@]}"; do
        ln -sf "$1/debian/$program" "$1/bin"
    done
}

sources() {
    local list=/etc/apt/sources.list.d/debian.sources mirror=${DEBIAN_MIRROR:-}
    if [ -z "$mirror" ] && [ -f "$list" ]; then
        mirror=$(sed -n 's/^URIs: *\([^ ]*debian\) *$/\1/p' "$list" | head -n 1)
    fi
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "${mirror:?set DEBIAN_MIRROR to the address of a Debian mirror} $SUITE main"
}

from_npm() {
    npm install --prefix "$1/schemas" --ignore-scripts --no-audit --no-fund --silent \
        "${SCHEMAS[@]}"
}

main "$@"
