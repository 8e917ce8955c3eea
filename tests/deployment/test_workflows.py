"""The workflows: their permissions, their actions, and the files that they call."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    str(path.relative_to(ROOT / ".github")): path.read_text()
    for pattern in ("workflows/*.yml", "actions/*/action.yml")
    for path in sorted((ROOT / ".github").glob(pattern))
}
# YAML 1.1 reads the key `on` as true.
FILES = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
WORKFLOWS = {name: file for name, file in FILES.items() if "jobs" in file}
JOBS = {
    f"{name}: {job}": content
    for name, file in WORKFLOWS.items()
    for job, content in file["jobs"].items()
}
STEPS = [
    (name, step)
    for name, file in FILES.items()
    for part in [file.get("runs", {}), *file.get("jobs", {}).values()]
    for step in part.get("steps", [])
]
RUNS = [(name, step["run"]) for name, step in STEPS if "run" in step]

each_file = pytest.mark.parametrize("name", FILES)
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)
each_job = pytest.mark.parametrize("job", JOBS)


def test_the_workflows_equal_those_of_the_guide():
    assert {Path(name).name for name in WORKFLOWS} == {
        "main.yml",
        "test.yml",
        "build.yml",
        "deploy-staging.yml",
        "deploy-production.yml",
    }


@each_file
def test_actions_of_others_are_pinned_by_commit_with_version(name):
    used = re.findall(r"uses: *(.+)", TEXTS[name])
    others = [line for line in used if not line.startswith("$/")]

    assert used
    pinned = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in others if not pinned.fullmatch(line)] == []


def test_an_action_has_one_version_everywhere():
    used = set(re.findall(r"uses: *([^$\s]\S+)@(\S+ # \S+)", "\n".join(TEXTS.values())))

    assert len({action for action, _ in used}) == len(used)


@each_file
def test_local_actions_and_workflows_exist(name):
    for place in re.findall(r"uses: \$/(\S+)", TEXTS[name]):
        found = ROOT / place
        assert found.is_file() or (found / "action.yml").is_file()


@each_workflow
def test_no_permission_is_given_by_default(name):
    assert WORKFLOWS[name]["permissions"] == {}


@each_job
def test_a_job_has_only_the_write_permissions_that_it_needs(job):
    writes = {scope for scope, right in JOBS[job]["permissions"].items() if right == "write"}

    assert writes == {
        "build.yml: publish": {"id-token", "attestations"},
        "main.yml: build": {"id-token", "attestations"},
        "deploy-staging.yml: deploy": {"id-token"},
        "main.yml: staging": {"id-token"},
        "deploy-production.yml: deploy": {"id-token"},
        "main.yml: production": {"id-token"},
    }.get(job.removeprefix("workflows/"), set())


@each_job
def test_every_job_has_a_timeout(job):
    assert "uses" in JOBS[job] or JOBS[job]["timeout-minutes"] <= 90


@each_workflow
def test_concurrent_runs_are_excluded(name):
    assert WORKFLOWS[name]["concurrency"]["group"]


@pytest.mark.parametrize(("name", "command"), RUNS)
def test_a_command_contains_no_expression(name, command):
    assert "${{" not in command


def test_checkout_leaves_no_credentials():
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]

    assert checkouts
    assert {step["with"]["persist-credentials"] for step in checkouts} == {False}


@pytest.mark.parametrize(("name", "command"), RUNS)
def test_files_that_a_command_calls_exist(name, command):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)", command)) <= targets
    assert all((ROOT / script).is_file() for script in re.findall(r"scripts/[\w-]+\.sh", command))


def test_every_check_is_made_before_a_merge():
    commands = [command for name, command in RUNS if name.endswith("/test.yml")]

    assert {"make check", "make docs", "make coverage", "make check-clients"} <= set(commands)
    assert {"make check-deploy", "make check-image REGISTRY=1", "make test"} <= set(commands)


def test_the_tests_run_with_every_recommended_version_of_mongodb():
    job = WORKFLOWS["workflows/test.yml"]["jobs"]["mongodb"]
    versions = job["strategy"]["matrix"]["mongodb"]
    compose = (ROOT / "docker/compose.yaml").read_text()
    steps = {step["name"]: step for step in job["steps"]}

    assert [version.rpartition(".")[0] for version in versions] == ["7.0", "8.0"]
    assert f"docker.io/library/mongo:{versions[0]}" in compose
    assert "mongo:$VERSION" in steps["Get mongod"]["run"]
    assert steps["Get mongod"]["env"] == {"VERSION": "${{ matrix.mongodb }}"}
    assert 'MONGOD_BIN=$RUNNER_TEMP/mongod" >>"$GITHUB_ENV"' in steps["Get mongod"]["run"]
    assert steps["Test"] == {"name": "Test", "run": "make test"}


def test_a_pull_request_with_a_vulnerable_package_stops():
    [review] = (step for _, step in STEPS if "dependency-review-action@" in step.get("uses", ""))
    workflow = WORKFLOWS["workflows/test.yml"]

    assert review in workflow["jobs"]["dependencies"]["steps"]
    assert "pull_request" in workflow[True]
    assert review["if"] == "github.event_name == 'pull_request'"
    assert review["with"] == {
        "fail-on-severity": "low",
        "fail-on-scopes": "runtime, development, unknown",
    }
    assert "continue-on-error" not in review.keys() | workflow["jobs"]["dependencies"].keys()


def test_packages_are_updated_by_the_tool_that_locks_them():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    ecosystems = {each["package-ecosystem"]: each.get("directory") for each in updates}
    [lock] = re.findall(
        r"^COMPILE := \$\(BIN\)/(\w+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )

    assert ecosystems[lock] == "/requirements"
    assert "pip" not in ecosystems
    assert "make lock && git diff --exit-code requirements" in [command for _, command in RUNS]


@pytest.mark.parametrize("name", ["staging", "production"])
def test_a_deployment_waits_only_for_its_own_environment(name):
    workflow = WORKFLOWS[f"workflows/deploy-{name}.yml"]

    assert workflow["jobs"]["deploy"]["environment"] == name
    assert workflow["concurrency"] == {"group": f"deploy-{name}", "cancel-in-progress": False}


def test_production_gets_the_image_tested_in_staging():
    jobs = WORKFLOWS["workflows/main.yml"]["jobs"]

    assert jobs["build"]["needs"] == "test"
    assert jobs["staging"]["needs"] == "build"
    assert set(jobs["production"]["needs"]) == {"build", "staging"}
    assert jobs["production"]["with"] == jobs["staging"]["with"]
    assert jobs["production"]["with"] == {"image": "${{ needs.build.outputs.image }}"}


def test_only_main_pushes_an_image():
    jobs = WORKFLOWS["workflows/build.yml"]["jobs"]
    pushing = {
        name
        for name, job in jobs.items()
        for step in job["steps"]
        if step.get("with", {}).get("push")
    }

    assert pushing == {"publish"}
    assert jobs["publish"]["if"] == "github.event_name == 'push' && github.ref == 'refs/heads/main'"


def steps(file: str, job: str = "") -> dict[str, dict]:
    found = FILES[file]["jobs"][job] if job else FILES[file]["runs"]
    return {step["name"]: step for step in found["steps"]}


def test_no_step_can_fail_unnoticed():
    for name, step in STEPS:
        assert "continue-on-error" not in step, name
        assert not re.search(r"\|\||set \+e", step.get("run", "")), name
        assert step.get("shell", "bash") == "bash", name
    assert not [job for job in JOBS.values() if "continue-on-error" in job]


def test_only_these_jobs_and_steps_have_conditions():
    assert {(step["name"], step["if"]) for _, step in STEPS if "if" in step} == {
        ("Show what is wrong", "failure()"),
        (
            "Stop a pull request that adds a package with a known vulnerability",
            "github.event_name == 'pull_request'",
        ),
    }
    assert {job for job, content in JOBS.items() if "if" in content} == {
        "workflows/build.yml: try",
        "workflows/build.yml: publish",
    }


def test_pull_requests_and_merges_start_the_checks():
    assert WORKFLOWS["workflows/test.yml"][True] == {
        "pull_request": {"branches": ["main"]},
        "workflow_call": None,
    }
    assert WORKFLOWS["workflows/main.yml"][True] == {"push": {"branches": ["main"]}}


def test_a_published_image_is_scanned_before_it_is_signed():
    found = steps("workflows/build.yml", "publish")
    image = "${{ steps.name.outputs.image }}"

    assert list(found)[-6:] == [
        *("Build and push", "Name it by digest", "Scan", "Install cosign", "Sign"),
        "Attest provenance",
    ]
    assert found["Name it by digest"]["run"] == (
        'echo "image=$REGISTRY/conversation-service@$DIGEST" >>"$GITHUB_OUTPUT"'
    )
    assert found["Scan"]["with"] == {
        "image-ref": image,
        "severity": "HIGH,CRITICAL",
        "ignore-unfixed": True,
        "exit-code": "1",
    }
    assert found["Sign"]["run"] == 'cosign sign --yes "$IMAGE"'
    assert found["Sign"]["env"] == {"IMAGE": image}
    assert found["Build and push"]["with"]["sbom"] is True
    assert found["Build and push"]["with"]["provenance"] == "mode=max"
    assert found["Attest provenance"]["with"]["subject-digest"] == (
        "${{ steps.build.outputs.digest }}"
    )


def test_the_signature_of_main_is_verified_before_the_image_is_deployed():
    found = steps("actions/deploy/action.yml")
    verify, release = found["Verify that main built it"], found["Release"]

    assert list(found).index(verify["name"]) < list(found).index(release["name"])
    assert verify["run"].replace("\\\n", "").split() == [
        *("cosign", "verify", '"$IMAGE"', '--certificate-identity="$BUILDER"'),
        "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
        ">/dev/null",
    ]
    assert verify["env"] == {
        "IMAGE": "${{ inputs.image }}",
        "BUILDER": "https://github.com/${{ github.repository }}"
        "/.github/workflows/build.yml@refs/heads/main",
    }
    assert release["run"].replace("\\\n", "").split() == [
        *("scripts/deploy-k8s.sh", "--context", '"$TARGET"', "--environment", '"$TARGET"'),
        *("--image", '"$IMAGE"', "--character", '"$CHARACTER"'),
        *("--token-secret", '"$TOKEN_SECRET"', "--diff"),
    ]
    assert release["env"] == {
        "TARGET": "${{ inputs.environment }}",
        "IMAGE": "${{ inputs.image }}",
        "CHARACTER": "${{ inputs.character }}",
        "TOKEN_SECRET": "${{ inputs.token-secret }}",
    }


@pytest.mark.parametrize("name", ["staging", "production"])
def test_a_deployment_has_the_values_of_its_environment(name):
    given = steps(f"workflows/deploy-{name}.yml", "deploy")["Deploy"]["with"]

    assert given == {
        "environment": name,
        "image": "${{ inputs.image }}",
        "cluster-url": "${{ vars.CLUSTER_URL }}",
        "cluster-certificate": "${{ vars.CLUSTER_CERTIFICATE }}",
        "character": "${{ vars.SMOKE_CHARACTER }}",
        "token-secret": "${{ vars.SMOKE_TOKEN_SECRET }}",
        "registry-username": "${{ secrets.REGISTRY_USERNAME }}",
        "registry-password": "${{ secrets.REGISTRY_PASSWORD }}",
    }


def test_the_registry_is_that_of_the_compose_file():
    registry = WORKFLOWS["workflows/build.yml"]["env"]["REGISTRY"]

    assert f"${{REGISTRY:-{registry}}}/" in (ROOT / "docker/compose.staging.yaml").read_text()
