#!/usr/bin/env bash
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/diagnose.sh --context NAME [--namespace conversation-service]
       scripts/diagnose.sh --help

Show how the service does in a cluster, from the outside in: versions, rollout, pods, why they
restarted or wait, events, who gets requests, limits, use, readiness, what manage.py diagnose prints
in one pod, and the names of the secrets.

It only reads. What cannot be read is said, and the rest follows. Of the Secret it prints the names
of the keys, never a value. Ready from inside is requested with Python in each pod, as the image has no
curl; that requires the permission to `exec`.

Exit codes: 0 shown; 2 wrong usage or no such context.
END
}

readonly name=conversation-service
context='' namespace=conversation-service
while [ $# -gt 0 ]; do
    case $1 in
        --context | --namespace)
            if [ $# -lt 2 ]; then
                echo "diagnose.sh: $1 needs a value" >&2
                exit 2
            fi
            declare "${1#--}=$2"
            shift
            ;;
        --help)
            usage
            exit
            ;;
        *)
            echo "diagnose.sh: $1 is unknown; see --help" >&2
            exit 2
            ;;
    esac
    shift
done
kubectl config get-contexts "$context" --output name >/dev/null || exit 2

readonly kubectl=(kubectl --context "$context" --namespace "$namespace")
readonly ours=app.kubernetes.io/name=$name
readonly serving=$ours,app.kubernetes.io/component=api

section() {
    printf '\n--- %s\n' "$1"
    shift
    "$@" 2>&1 || echo "This cannot be read."
}

k() {
    "${kubectl[@]}" "$@"
}

versions() {
    local columns='KIND:.kind,NAME:.metadata.name'
    columns+=',REVISION:.metadata.annotations.deployment\.kubernetes\.io/revision,IMAGE:..image'
    k get deployments,cronjobs --selector "$ours" --output custom-columns="$columns"
    columns='POD:.metadata.name,RUNS:.status.containerStatuses[*].imageID'
    k get pods --selector "$ours" --output custom-columns="$columns"
}

rollouts() {
    local each
    for each in $(k get deployments --selector "$ours" --output name); do
        k rollout status "$each" --watch=false
    done
}

readonly state='POD:.metadata.name,PHASE:.status.phase,READY:.status.containerStatuses[*].ready'
readonly restarts='RESTARTS:.status.containerStatuses[*].restartCount'

pods() {
    local columns="$state,$restarts,WAITS:..state.waiting.reason,NODE:.spec.nodeName"
    columns+=',ENDED:..lastState.terminated.reason,CODE:..lastState.terminated.exitCode'
    k get pods --selector "$ours" --output custom-columns="$columns"
}

log() {
    k logs "$@" --all-containers --prefix --tail=30 </dev/null || true
}

# Of pods that are not ready, and of those that have restarted: how the former container ended.
failing_logs() {
    local pod phase ready restarted
    k get pods --selector "$ours" --no-headers --output custom-columns="$state,$restarts" |
        while read -r pod phase ready restarted; do
            case "$phase $ready $restarted" in
                *[1-9]*) log "$pod" --previous ;;
                Succeeded* | "Running true "*) continue ;;
            esac
            log "$pod"
        done
}

readiness() {
    local pod
    for pod in $(k get pods --selector "$serving" --output jsonpath='{.items[*].metadata.name}'); do
        printf '%s: ' "$pod"
        k exec "$pod" -- python -c "$ask_itself" </dev/null || true
    done
}

diagnosis() {
    local pod
    pod=$(k get pods --selector "$serving" --output jsonpath='{.items[0].metadata.name}')
    k exec "$pod" -- python manage.py diagnose </dev/null || true
}

readonly ask_itself='
from http.client import HTTPConnection
from config.env import env, own_address
connection = HTTPConnection(own_address(), env("PORT"), timeout=3)
connection.request("GET", "/health/ready")
answer = connection.getresponse()
print(answer.status, answer.read().decode())
'

secret_keys() {
    # shellcheck disable=SC2016 # the variables are the template's
    k get secret "$name-secrets" \
        --output go-template='{{range $key, $value := .data -}}
            {{$key}}{{if not $value}} (empty){{end}}{{"\n"}}
        {{- end}}'
}

readonly addresses='ADDRESSES:.endpoints[*].addresses[*],READY:.endpoints[*].conditions.ready'
echo "Context $context, namespace $namespace, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
section "Versions" versions
section "Rollout" rollouts
section "Former revisions" k rollout history "deployment/$name"
section "Pods" pods
section "Logs of what is not ready or has restarted" failing_logs
section "Events that warn" k get events --field-selector type=Warning --sort-by=.lastTimestamp
section "Endpoints" k get endpointslices --selector "kubernetes.io/service-name=$name" \
    --output custom-columns="SLICE:.metadata.name,$addresses"
section "Autoscaler" k get horizontalpodautoscaler "$name" --output wide
section "Disruption budgets" k get poddisruptionbudgets --selector "$ours"
section "Jobs" k get jobs,cronjobs --selector "$ours"
section "Quotas and limits" k get resourcequotas,limitranges
section "Network policies" k get networkpolicies
section "Use" k top pods --selector "$ours" --containers
section "Ready, from inside" readiness
section "Diagnosis by one pod" diagnosis
section "Keys in the Secret" secret_keys
