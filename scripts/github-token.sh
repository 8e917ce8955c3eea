#!/usr/bin/env bash
# A credential plugin of kubectl for GitHub Actions: the identity of the job that runs, made anew
# for each command, as such a token is good for some minutes only. Its audience is the argument.
set -euo pipefail

answer=$(curl --fail --silent --show-error --retry 3 --get --data-urlencode "audience=$1" \
    --header "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
    "$ACTIONS_ID_TOKEN_REQUEST_URL")
[[ $answer =~ \"value\":\ ?\"([A-Za-z0-9._-]+)\" ]]
printf '{"apiVersion": "%s", "kind": "ExecCredential", "status": {"token": "%s"}}\n' \
    client.authentication.k8s.io/v1 "${BASH_REMATCH[1]}"
