#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

usage() {
    cat <<'END'
Usage: scripts/deploy-k8s.sh --context NAME --environment staging|production \
                             --image REPOSITORY@sha256:DIGEST

Release one image to one cluster: check, migrate, roll out, try out; restore if that fails.

  --context NAME       the context of kubectl; never the current one by accident
  --environment NAME   the overlay in k8s/overlays, and what the namespace must be labelled with
  --image REFERENCE    by digest: what was tested is what runs
  --character ID       the smoke test begins a conversation with it; luna
  --token-secret NAME  a Secret with the `token` for the smoke test, if only Auth can sign tokens
  --diff               show what would differ first (the server tries it out: needs leave to patch)
  --timeout SECONDS    for the rollout, the smoke test, and the start of a job; 600
  --dry-run            only read, and print every command that would change something
  --help

 1. The context, the namespace and the Secret are checked. The Secret is never
    written: the operators own it. The objects that will be applied are read and kept.
 2. Namespace, service account, configuration and network policies are applied.
 3. The release job runs `migrate` and `setup_indexes`, once, before any new pod.
 4. Everything else is applied. When the rollout of each Deployment is complete, the smoke job
    calls the service from inside the cluster.
 5. The CronJobs follow: if 4 fails, they still run the former image.
 6. Objects of former releases that the manifests no longer contain are deleted. The
    configurations of former revisions stay.

If 2, 3 or 4 fails or is interrupted (SIGINT, SIGTERM, SIGHUP), each object that was applied gets
its former state back, and each object that did not exist before is deleted. After 4, the script
also waits for the rollouts and runs the smoke job again with the former image. It ignores signals
while it restores. The database is not restored: migrations only go forward, and each must leave
the former version able to run.

Exit codes:
  0  released
  2  wrong usage
  3  refused by a check, or interrupted before the first change; nothing was changed
  4  preparing failed, and its objects are restored: the new version may have migrated in part,
     the former still serves
  5  the new version failed; all objects are restored, and the former passed the smoke test
  6  an operator must act: an object could not be restored, the former version does not become
     ready or fails the smoke test, there is no former version, the CronJobs were not updated, or
     an object that the manifests no longer contain was not deleted
END
}

readonly name=conversation-service
readonly secret=conversation-service-secrets
readonly revision='.metadata.annotations.deployment\.kubernetes\.io/revision'
# On every object that this script applies. An operator's own objects do not have it.
readonly managed=app.kubernetes.io/managed-by=deploy-k8s
# The kinds of the manifests; without Jobs, which end and expire.
readonly kinds=(deployments services serviceaccounts configmaps cronjobs networkpolicies
    horizontalpodautoscalers poddisruptionbudgets)
readonly custom_kinds='^(servicemonitors|prometheusrules)\.'
# The text of a line of a log.
readonly messages='s/^\{"@timestamp":"[^"]*","log.level":"[^"]*","message":"(([^"\\]|\\.)*)".*/\1/; s/\\(["\\])/\1/g'
readonly unschedulable='..conditions[?(@.reason=="Unschedulable")].message'
readonly first_container='.spec.template.spec.containers[0]'
# Patches for the snapshot. An object with these fields could not be applied again, or would take
# them away from the server and the controllers.
readonly no_server_fields='{"metadata": {"uid": null, "resourceVersion": null, "generation": null,
    "creationTimestamp": null, "managedFields": null}, "status": null}'
readonly no_controller_fields='{
    "metadata": {"annotations": {"deployment.kubernetes.io/revision": null}},
    "spec": {"template": {"metadata": {"labels": {"pod-template-hash": null}}}}}'

context='' environment='' image='' character=luna token_secret='' diff=false timeout=600
while [ $# -gt 0 ]; do
    case $1 in
        --context | --environment | --image | --character | --token-secret | --timeout)
            [ $# -gt 1 ] || stop 2 "$1 needs a value; see --help"
            option=${1#--}
            declare "${option//-/_}=$2"
            shift
            ;;
        --diff) diff=true ;;
        --dry-run) dry_run=true ;;
        --help)
            usage
            exit
            ;;
        *) stop 2 "$1 is unknown; see --help" ;;
    esac
    shift
done
[ -n "$context" ] || stop 2 "--context is missing; see --help"
[[ $environment =~ ^[a-z]+$ && -d k8s/overlays/$environment ]] ||
    stop 2 "--environment must be one of: $(cd k8s/overlays && echo *)"
[[ $image =~ ^[^@[:space:]]+@sha256:[0-9a-f]{64}$ ]] ||
    stop 2 "--image must name a digest: repository@sha256:…"
[[ $character =~ ^[A-Za-z0-9_-]+$ ]] || stop 2 "--character must be an id"
[[ $token_secret =~ ^[a-z0-9.-]*$ ]] || stop 2 "--token-secret must be the name of a Secret"
[[ $timeout =~ ^[1-9][0-9]*$ ]] || stop 2 "--timeout must be a number of seconds"

# The folders of manifests, in the order in which they are applied. The first three are restored
# after a failure. `former` has the former state of each, and of each Deployment a file of its own.
readonly applied=(foundation service deployment)
readonly all=("${applied[@]}" schedule)
readonly not_pruned="but objects that the manifests no longer contain may still exist"
manifests=$(mktemp -d)
trap 'rm -rf "$manifests"' EXIT
stage=check stage_pid=''

# Build the overlay with this image, and sort it by when it is needed.
render() {
    cp -R k8s "$manifests/k8s"
    cat >"$manifests/kustomization.yaml" <<END
resources: [k8s/overlays/$environment]
labels:
  - pairs: {${managed/=/: }}
images:
  - {name: registry.invalid/conversation-service, newName: "${image%@*}", digest: "${image#*@}"}
END
    mkdir "$manifests"/{foundation,release,smoke,service,deployment,schedule,former}
    kubectl kustomize "$manifests" --output "$manifests/service"
    ! grep -rh ' image:' "$manifests/service" | grep -vF "image: $image" ||
        stop 3 "the manifests name another image than $image"
    (
        cd "$manifests/service"
        mv v1_{namespace,serviceaccount,configmap}_*.yaml ../foundation
        mv networking.k8s.io_v1_networkpolicy_*.yaml ../foundation
        mv "batch_v1_job_$name-release.yaml" ../release/job.yaml
        mv apps_v1_deployment_*.yaml ../deployment
        mv batch_v1_cronjob_*.yaml ../schedule
    )
    render_smoke >"$manifests/smoke/job.yaml"
}

# The pod of the release with another command: the same image, settings, secrets and rights.
render_smoke() {
    cat >"$manifests/release/kustomization.yaml" <<END
resources: [job.yaml]
patches:
  - target: {kind: Job}
    patch: |-
      - {op: replace, path: /metadata/name, value: $name-smoke}
      - {op: replace, path: /spec/activeDeadlineSeconds, value: $timeout}
      - {op: remove, path: /spec/template/spec/initContainers}
      - {op: replace, path: /spec/template/spec/containers/0/name, value: smoke}
      - op: replace
        path: /spec/template/spec/containers/0/command
        value:
          - python
          - manage.py
          - smoke_test
          - --base-url=http://$name:8003
          - --environment=$environment
          - --character=$character
          - --metrics
$(credential)
END
    kubectl kustomize "$manifests/release"
}

# Where we sign tokens ourselves, what no gateway lets through is tried too.
credential() {
    if [ -z "$token_secret" ]; then
        echo "          - --internal"
        return
    fi
    cat <<END
          - --token=@/run/secrets/smoke/token
      - op: add
        path: /spec/template/spec/volumes/-
        value: {name: token, secret: {secretName: $token_secret, defaultMode: 0440}}
      - op: add
        path: /spec/template/spec/containers/0/volumeMounts/-
        value: {name: token, mountPath: /run/secrets/smoke, readOnly: true}
END
}

ask() {
    "${kubectl[@]}" get "$@" || stop 3 "the cluster of $context does not answer"
}

check_context() {
    kubectl config get-contexts "$context" --output name >/dev/null ||
        stop 3 "kubectl knows no context $context"
    local found
    found=$(ask namespace "$namespace" --ignore-not-found \
        --output jsonpath='{.kind}:{.metadata.labels.environment}')
    case $found in
        "" | "Namespace:$environment") ;;
        Namespace:) stop 3 "namespace $namespace in $context has no label environment: if it is for\
 $environment, kubectl --context $context label namespace $namespace environment=$environment" ;;
        *) stop 3 "namespace $namespace in $context is for ${found#*:}, not for $environment" ;;
    esac
}

# The Secret must have the keys that the pods mount; former and future keys may be empty. Only the
# names of the keys are printed.
check_secret() {
    local present mounted missing=() key
    mounted=$(field "$manifests/deployment/apps_v1_deployment_$name.yaml" '..secret.items[*].key') ||
        stop 3 "the manifests cannot be read"
    # shellcheck disable=SC2016 # the variables are the template's
    present=$(ask secret "$secret" --ignore-not-found \
        --output go-template='{{range $key, $value := .data}}{{$key}}{{if $value}}+{{end}} {{end}}')
    for key in $mounted; do
        [[ $key == *_FALLBACKS ]] || key+=+
        [[ " $present" == *" $key"[\ +]* ]] || missing+=("${key%+}")
    done
    [ ${#missing[@]} = 0 ] ||
        stop 3 "secret $secret in namespace $namespace lacks ${missing[*]}: see k8s/README.md"
}

check_that_no_release_runs() {
    local active
    active=$(ask job "$name-release" --ignore-not-found --output jsonpath='{.status.active}')
    [ "${active:-0}" = 0 ] || stop 3 "another release is running: job/$name-release"
}

# The server tries everything out, admission included, and keeps nothing.
check_manifests() {
    "${kubectl[@]}" apply --server-side --force-conflicts --dry-run=server \
        "${all[@]/#/--filename=$manifests/}" >/dev/null ||
        stop 3 "the cluster does not accept the manifests"
}

show_differences() {
    if [ -z "$former" ]; then
        say "All objects are new"
        echo "$rendered"
        return
    fi
    "${kubectl[@]}" diff --server-side --force-conflicts "${all[@]/#/--filename=$manifests/}" ||
        [ $? = 1 ] || stop 3 "the cluster does not accept the manifests"
    local removed
    removed=$(removed_objects) || stop 3 "the objects of former releases cannot be read"
    [ -z "$removed" ] || say "Will be deleted: ${removed//$'\n'/ }"
}

# Print the objects of former releases that the manifests no longer contain. The configurations of
# revisions that `kubectl rollout undo` can return to are in use.
removed_objects() {
    local present used existing
    mapfile -t existing < <(
        printf '%s\n' "${kinds[@]}"
        "${kubectl[@]}" api-resources --api-group=monitoring.coreos.com --output name |
            grep -E "$custom_kinds"
    )
    present=$(ask "$(IFS=, && echo "${existing[*]}")" --selector "$managed" --output name) || return
    used=$(ask replicasets --selector "app.kubernetes.io/name=$name" \
        --output jsonpath='{range ..configMapRef}configmap/{.name}{"\n"}{end}') || return
    comm -23 <(sort <<<"$present") <(sort <<<"$rendered"$'\n'"$used")
}

# The manifests override fields that others changed meanwhile, also by `rollout undo`.
apply() {
    run "${kubectl[@]}" apply --server-side --force-conflicts -f "$manifests/$1"
}

# run_job NAME FILE
# A Job cannot be changed, so the former one goes. Of two created at once, one is refused.
run_job() {
    run "${kubectl[@]}" delete job "$name-$1" --ignore-not-found || return
    run "${kubectl[@]}" create -f "$2" || return
    [ "$dry_run" = true ] || job_succeeds "$name-$1"
}

# A Job that has started ends by itself, at its activeDeadlineSeconds at the latest. If it does not
# start, for lack of space or of an object that it mounts, it has changed nothing, and is deleted
# after the timeout. Its pods are selected by its uid, as pods of a deleted Job of the same name can
# still be terminating.
job_succeeds() {
    local ended='' pod='' reason='' said='' uid started=false deadline=$((SECONDS + timeout))
    uid=$(ask job "$1" --output jsonpath='{.metadata.uid}') || return
    while true; do
        ended=$(ask job "$1" \
            --output jsonpath='{.status.conditions[?(@.status=="True")].type}') || return
        [[ $ended != *Complete* && $ended != *Failed* ]] || break
        pod=$(ask pods --selector "batch.kubernetes.io/controller-uid=$uid" \
            --output jsonpath="{..startedAt}|{..state.waiting.reason}|{$unschedulable}") || return
        if [[ $pod == *ImagePullBackOff* || $pod == *InvalidImageName* ]]; then
            say "The cluster cannot pull $(ask job "$1" --output jsonpath="{$first_container.image}")"
            "${kubectl[@]}" delete job "$1"
            return 1
        fi
        reason=${pod##*|}
        if [ -n "$reason" ] && [ "$reason" != "$said" ]; then
            say "job/$1 cannot be scheduled: $reason"
            said=$reason
        fi
        [[ $pod == "|"* ]] || started=true
        if [ $started = false ] && [ $SECONDS -ge $deadline ]; then
            say "job/$1 has not started within $timeout s"
            "${kubectl[@]}" get events --field-selector type=Warning --sort-by=.lastTimestamp
            "${kubectl[@]}" delete job "$1"
            return 1
        fi
        sleep 2
    done
    "${kubectl[@]}" logs "job/$1" --all-containers --tail=50 | sed -E "$messages" ||
        say "Its log cannot be read"
    [[ $ended == *Complete* ]]
}

# wait_for_rollouts DEPLOYMENT...
wait_for_rollouts() {
    local each
    for each in "$@"; do
        run "${kubectl[@]}" rollout status "deployment/$each" --timeout="${timeout}s" || return
    done
}

# The ReplicaSets of a Deployment have the labels of its pods.
selector() {
    local component
    component=$(ask deployment "$1" --ignore-not-found \
        --output jsonpath='{.spec.selector.matchLabels.app\.kubernetes\.io/component}') || return
    echo "app.kubernetes.io/name=$name,app.kubernetes.io/component=$component"
}

# Print the newest revision of a Deployment that has an available pod, or else the current one. An
# interrupted release can have left a newer revision that never served.
former_revision() {
    local serving selected
    selected=$(selector "$1") || return
    serving=$(ask replicasets --selector "$selected" \
        --output jsonpath="{.items[?(@.status.availableReplicas>0)]$revision}") || return
    if [ -n "$serving" ]; then
        tr ' ' '\n' <<<"$serving" | sort -n | tail -n 1
    else
        ask deployment "$1" --ignore-not-found --output jsonpath="{$revision}"
    fi
}

# Keep each object that will be applied as it is now, and the names of those that do not exist yet.
take_snapshot() {
    local folder kept present each
    present=$("${kubectl[@]}" get "${all[@]/#/--filename=$manifests/}" --ignore-not-found \
        --output name) || return
    mapfile -t created < <(comm -23 <(echo "$rendered") <(sort <<<"$present"))
    for folder in foundation service; do
        kept=$manifests/former/$folder.json
        "${kubectl[@]}" get -f "$manifests/$folder" --ignore-not-found --output json >"$kept" ||
            return
        [ ! -s "$kept" ] || patch_file "$kept" merge "$no_server_fields" || return
    done
    for each in "${deployments[@]}"; do
        [[ " ${created[*]} " == *" deployment.apps/$each "* ]] || keep_deployment "$each" || return
    done
    [ -z "$former" ] || keep_smoke_job
}

# A Deployment is kept with the pods of the revision that serves. Its revision belongs to its
# controller; the number of replicas of the API belongs to the autoscaler.
keep_deployment() {
    local kept=$manifests/former/deployment-$1.json template
    existing+=("$1")
    "${kubectl[@]}" get deployment "$1" --output json >"$kept" || return
    patch_file "$kept" merge "$no_server_fields" || return
    template=$(former_template "$1") || return
    [ -z "$template" ] || patch_file "$kept" json \
        "[{op: replace, path: /spec/template, value: $template}]" || return
    patch_file "$kept" merge "$no_controller_fields" || return
    [ "$1" != "$name" ] || patch_file "$kept" merge '{"spec": {"replicas": null}}'
}

# The former pods get a smoke job of their own.
keep_smoke_job() {
    local deployment=$manifests/former/deployment-$name.json
    local smoke=$manifests/former/smoke.json path=/spec/template/spec/containers/0
    cp "$manifests/smoke/job.yaml" "$smoke"
    patch_file "$smoke" json "[
        {op: replace, path: $path/image, value: $(field "$deployment" "$first_container.image")},
        {op: replace, path: $path/envFrom, value: $(field "$deployment" "$first_container.envFrom")}
    ]"
}

former_template() {
    local selected newest
    selected=$(selector "$1") || return
    newest=$(former_revision "$1") || return
    ask replicasets --selector "$selected" \
        --output jsonpath="{.items[?(@$revision==\"$newest\")].spec.template}"
}

# patch_file FILE TYPE PATCH
# Change each object in a local file, without a request to the cluster.
patch_file() {
    "${kubectl[@]}" patch --local -f "$1" --type "$2" --patch "$3" --output json >"$1.new" &&
        mv "$1.new" "$1"
}

# field FILE JSONPATH
field() {
    "${kubectl[@]}" patch --local -f "$1" --type merge --patch '{}' --output jsonpath="{$2}"
}

prepare() {
    say "Preparing: configuration, then migrations and indexes"
    apply foundation || return
    run_job release "$manifests/release/job.yaml"
}

roll_out() {
    say "Rolling out"
    apply service || return
    apply deployment || return
    wait_for_rollouts "${deployments[@]}" || return
    say "Trying it out from inside the cluster"
    run_job smoke "$manifests/smoke/job.yaml"
}

schedule() {
    say "Updating what runs by the clock"
    apply schedule
}

prune() {
    local removed
    removed=$(removed_objects) || return
    if [ -n "$removed" ]; then
        say "Deleting what the manifests no longer contain"
        mapfile -t removed <<<"$removed"
        run "${kubectl[@]}" delete --ignore-not-found "${removed[@]}"
    fi
}

# run_stage FUNCTION
# Run it in its own process group: an interruption ends it at once, with the command that it runs.
run_stage() {
    [ "$dry_run" = true ] || stage=$1
    set -m
    "$1" &
    stage_pid=$!
    set +m
    wait "$stage_pid"
}

# restore FOLDER...
# Give the objects of these folders their former state, and delete new objects. Continue after an
# error, to restore as many objects as possible.
restore() {
    local folder kept result=0
    for folder in "$@"; do
        for kept in "$manifests/former/$folder"*.json; do
            [ ! -s "$kept" ] || "${kubectl[@]}" apply --server-side --force-conflicts \
                -f "$kept" || result=1
        done
    done
    if [ ${#created[@]} != 0 ]; then
        "${kubectl[@]}" delete --ignore-not-found "${created[@]}" || result=1
    fi
    return "$result"
}

undo_preparation() {
    trap '' INT TERM HUP
    say "It failed. Configuration and network policies are restored; the database is not"
    restore foundation || stop 6 "preparing failed, and not everything could be restored"
    stop 4 "preparing failed; the former version still serves"
}

roll_back() {
    trap '' INT TERM HUP
    say "It failed. All objects are restored; the database is not: migrations only go forward"
    restore "${applied[@]}" || stop 6 "$image failed, and not everything could be restored"
    [ -n "$former" ] || stop 6 "this was the first release: there is no former version to return to"
    wait_for_rollouts "${existing[@]}" ||
        stop 6 "revision $former does not become ready either: see scripts/diagnose.sh"
    say "Trying the former version out"
    run_job smoke "$manifests/former/smoke.json" ||
        stop 6 "revision $former is restored but fails the smoke test too: see scripts/diagnose.sh"
    stop 5 "$image failed; revision $former serves again"
}

interrupted() {
    trap '' INT TERM HUP
    say "Interrupted"
    if [ -n "$stage_pid" ]; then
        kill -- "-$stage_pid" 2>/dev/null || true
        wait "$stage_pid" || true
    fi
    case $stage in
        check) stop 3 "interrupted; nothing was changed" ;;
        prepare)
            # A Job that is still running would hold up the next release.
            "${kubectl[@]}" delete job "$name-release" --ignore-not-found || true
            undo_preparation
            ;;
        roll_out) roll_back ;;
        schedule) stop 6 "interrupted: the new version serves, its CronJobs may be the former ones" ;;
        prune) stop 6 "interrupted: the new version serves, $not_pruned" ;;
    esac
}

trap interrupted INT TERM HUP
render
namespace=$(basename "$manifests"/foundation/v1_namespace_*.yaml .yaml)
namespace=${namespace#v1_namespace_}
readonly namespace kubectl=(kubectl --context "$context" --namespace "$namespace")

say "Checking $context, namespace $namespace"
check_context
check_secret
check_that_no_release_runs
rendered=$("${kubectl[@]}" create --dry-run=client --output name \
    "${all[@]/#/--filename=$manifests/}" | sort) || stop 3 "the manifests cannot be read"
readonly rendered # as KIND/NAME, like `kubectl get`
mapfile -t deployments < <(sed -n 's|^deployment.apps/||p' <<<"$rendered")
existing=() # those of `deployments` that the cluster has already
former=$(former_revision "$name")
[ "$diff" = false ] || show_differences
[ "$dry_run" = true ] || check_manifests
take_snapshot || stop 3 "what the cluster runs now cannot be read in full; nothing was changed"

run_stage prepare || undo_preparation
run_stage roll_out || roll_back
run_stage schedule || stop 6 "the new version serves, but its CronJobs may be the former ones"
[ -n "$former" ] || say "The autoscaler starts the other pods within a minute"
run_stage prune || stop 6 "the new version serves, $not_pruned"
say "Released $image to $environment"
