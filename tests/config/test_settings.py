"""The settings of each environment, loaded by a new process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.env import env

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-of-more-than-thirty-two-bytes-and-than-fifty"
FIT = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": f"{SECRET}-1",
    "JWT_SECRET_KEY": f"{SECRET}-2",
    "MONGODB_URL": "mongodb://127.0.0.1:1/?replicaSet=rs0",
    "ALLOWED_HOSTS": "console.example.org",
}


def manage(*arguments, **variables):
    return python("manage.py", *arguments, **variables)


def python(*arguments, **variables):
    """Run Python in an environment of these variables only."""
    path = {"PATH": os.environ["PATH"]}  # noqa: TID251
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=path | variables,
        capture_output=True,
        text=True,
        check=False,
    )


SHOW = """
import sys
from config.env import choose_settings
choose_settings()
from django.conf import settings
print(eval(sys.argv[1], {"settings": settings}))
"""


def load(expression="settings.DEBUG", **variables):
    """Read the settings as a new process does, without Django's own start."""
    return python("-c", SHOW, expression, **variables)


def show(expression, **variables):
    done = load(expression, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_all_unfit_settings_are_listed_together(environment):
    done = load(ENVIRONMENT=environment, DEBUG="true", JWT_SECRET_KEY="dev-secret-key")

    assert done.returncode != 0
    for fault in [
        "SECRET_KEY is not set.",
        "JWT_SECRET_KEY is a published default.",
        "MONGODB_URL is not set.",
        "ALLOWED_HOSTS must name the hosts of the console.",
        "DEBUG must be off.",
    ]:
        assert fault in done.stderr
    assert "dev-secret-key" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"SECRET_KEY": "x" * 31}, "SECRET_KEY is shorter than 32 bytes."),
        (
            {"JWT_SECRET_KEY": "dev-secret-key-change-in-production-0123456789"},
            "JWT_SECRET_KEY is a published default.",
        ),
        (
            {"SECRET_KEY_FALLBACKS": f"{SECRET},short"},
            "SECRET_KEY_FALLBACKS is shorter than 32 bytes.",
        ),
        (
            {"JWT_SECRET_KEY_FALLBACKS": "dev-secret-key"},
            "JWT_SECRET_KEY_FALLBACKS is a published default.",
        ),
        ({"JWT_JWKS_URL": "https://auth/jwks"}, "JWT_ALGORITHM is HS256, but"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS must name"),
    ],
)
def test_one_unfit_setting_stops_the_start(variables, fault):
    done = load(**(FIT | variables))

    assert done.returncode != 0
    assert fault in done.stderr


def test_valid_production_settings_pass_the_deployment_check_of_django():
    done = manage("check", "--deploy", "--fail-level", "INFO", **FIT)

    assert (done.returncode, done.stdout) == (
        0,
        "System check identified no issues (8 silenced).\n",
    )


def test_public_keys_need_no_shared_secret():
    keys = {"JWT_JWKS_URL": "https://auth/jwks", "JWT_ALGORITHM": "RS256", "JWT_SECRET_KEY": ""}

    assert load(**(FIT | keys)).returncode == 0


def test_a_secret_may_come_from_a_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}-from-a-file\n")
    variables = FIT | {"SECRET_KEY_FILE": str(secret)}
    del variables["SECRET_KEY"]

    assert show("settings.SECRET_KEY", **variables) == f"{SECRET}-from-a-file"


def test_former_keys_may_come_from_a_file_even_an_empty_one(tmp_path):
    former = tmp_path / "former"
    former.write_text(f"{SECRET}-1,{SECRET}-2\n")
    none = tmp_path / "none"
    none.write_text("")
    variables = FIT | {
        "SECRET_KEY_FALLBACKS_FILE": str(former),
        "JWT_SECRET_KEY_FALLBACKS_FILE": str(none),
    }

    shown = show("(settings.SECRET_KEY_FALLBACKS, settings.JWT_SECRET_KEY_FALLBACKS)", **variables)
    assert shown == str(([f"{SECRET}-1", f"{SECRET}-2"], []))


def test_values_signed_with_a_former_key_are_accepted():
    sealed = python("-c", SEAL, "seal(['x'], binding='b')", **FIT).stdout.strip()
    renewed = FIT | {"SECRET_KEY": f"{SECRET}-new"}
    kept = renewed | {"SECRET_KEY_FALLBACKS": FIT["SECRET_KEY"]}
    read = f"unseal({sealed!r}, binding='b')"

    assert python("-c", SEAL, read, **kept).stdout.strip() == "['x']"
    assert "InvalidCursor" in python("-c", SEAL, read, **renewed).stderr


SEAL = f"""{SHOW.rpartition("print")[0]}
from conversation_service.http.cursors import seal, unseal
print(eval(sys.argv[1]))
"""


def test_an_unknown_environment_is_named_in_the_error():
    done = load(ENVIRONMENT="prod")

    assert "ENVIRONMENT is 'prod' and must be one of" in done.stderr


def test_development_starts_without_any_variable():
    assert show("(settings.JWT_ALGORITHM, settings.DEBUG)") == "(['HS256'], True)"
    assert show("settings.DEBUG", DEBUG="false") == "False"


def test_development_has_a_rate_limit_for_reading_the_guide():
    expression = "settings.RATE_LIMITS['create']"

    assert show(expression) == "100"
    assert show(expression, RATE_LIMIT_CREATE="7") == "7"
    assert show(expression, **FIT) == "10"


def test_management_commands_have_no_time_limit():
    code = "from django.conf import settings; print(settings.DATABASES['default']['OPTIONS'])"

    done = manage("shell", "--no-imports", "-c", code, MONGODB_TIMEOUT_MS="5000")

    assert "'timeoutMS': 0" in done.stdout


def test_variables_of_the_previous_guide_keep_their_names():
    database = "settings.DATABASES['default']"
    pool = f"{database}['OPTIONS']['minPoolSize'], {database}['OPTIONS']['maxPoolSize']"
    variables = {
        "CONNECTION_POOL_MIN": "3",
        "CONNECTION_POOL_MAX": "7",
        "MONGODB_DATABASE": "other",
    }

    assert show(f"({pool}, {database}['NAME'])", **variables) == "(3, 7, 'other')"


def test_the_example_lists_every_variable_and_no_other():
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]

    assert sorted(named) == sorted(env.scheme)


def test_development_starts_with_the_example(tmp_path):
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))

    assert manage("check", **dict(pairs)).returncode == 0


def test_a_command_without_mongodb_exits_with_3_and_the_reason():
    done = manage(
        "setup_indexes",
        "--check",
        MONGODB_URL="mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=200",
    )

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("MongoDB is unavailable: 127.0.0.1:1: ")
    assert "Traceback" not in done.stderr


def test_manage_works_in_the_shell_of_another_project():
    for module in ("another.settings", "config.settings.local"):
        done = manage("version", DJANGO_SETTINGS_MODULE=module, PYTHONSAFEPATH="1")

        assert done.returncode == 0, done.stderr
        assert done.stderr == (
            f"DJANGO_SETTINGS_MODULE is {module}, not found here: "
            "config.settings.development is used.\n"
        )


def test_make_installs_into_the_virtual_environment_only():
    variables = {"PIP_USER": "1", "PIP_TARGET": "/elsewhere", "DJANGO_SETTINGS_MODULE": "another"}
    rule = 'include Makefile\nshow: ; @env | grep -E "^(PIP_|DJANGO_)"\n'
    shown = subprocess.run(
        ["make", "--file=-", "show"],  # noqa: S607
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},  # noqa: TID251
        input=rule,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.stdout == "PIP_USER=0\n", shown.stderr
