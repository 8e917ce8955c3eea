"""scripts/github-token.sh, run against a stand-in for GitHub."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.config.processes import environment
from tests.conversation_service.loopback import respond, serving

pytestmark = pytest.mark.deployment

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/github-token.sh"


def run_script(talk) -> subprocess.CompletedProcess:
    with serving(talk) as github:
        return subprocess.run(
            [SCRIPT, "https://cluster.company.com"],
            env=environment(
                ACTIONS_ID_TOKEN_REQUEST_URL=f"http://{github}/token?api-version=2",
                ACTIONS_ID_TOKEN_REQUEST_TOKEN="request",
            ),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


def test_the_token_of_the_job_becomes_a_credential():
    done = run_script(respond(b'{"count": 3, "value": "head.body.signature"}'))

    assert json.loads(done.stdout) == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "head.body.signature"},
    }


@pytest.mark.parametrize("talk", [respond(status="403 Forbidden"), respond(b'{"message": "no"}')])
def test_without_a_token_there_is_no_credential(talk):
    done = run_script(talk)

    assert done.returncode != 0
    assert done.stdout == ""


def test_a_release_survives_an_error_of_an_overloaded_github():
    responses = iter([respond(status="503 Service Unavailable"), respond(b'{"value": "a.b.c"}')])

    def talk(channel):
        next(responses)(channel)

    done = run_script(talk)

    assert json.loads(done.stdout)["status"] == {"token": "a.b.c"}
