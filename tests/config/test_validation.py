"""Wrong variables stop every start, and one start lists them all."""

import os
import re
import subprocess
import sys

import pytest

from config.env import COMMON_NAMES, Env, env
from config.validation import FaultyConfiguration, require_valid
from conversations import limits
from conversations.documents import WITH_CEILING
from tests.config.test_settings import FIT, ROOT, SECRET, load, manage, python, show

SECRET_PIECE = "Zm9vYmFy"


def faults(**variables: str) -> list[str]:
    """Return the errors of a start with only these variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(env, "environ", variables)
        try:
            require_valid()
        except FaultyConfiguration as error:
            return [line.removeprefix("- ") for line in str(error).splitlines()[1:]]
    return []


def named(**variables: str) -> set[str]:
    return {fault.split()[0] for fault in faults(**variables)}


WRONG = {
    "words that are neither true nor false": {
        "RATE_LIMIT_ENABLED": "ture",
        "AUTH_REMOTE_VALIDATION": "enabled",
        "ACCESS_LOG": "",
        "RELOAD": "2",
        "DEBUG": "t",
    },
    "numbers that are none": {
        "RATE_LIMIT_LIST": "abc",
        "RATE_LIMIT_CREATE": "",
        "RATE_LIMIT_PATCH": "1.5",
        "RATE_LIMIT_DELETE": "1_000",
        "RATE_LIMIT_ALL": "٣",
        "CHANGES_STREAM_S": "10s",
        "NEIGHBOUR_BUDGET_S": "nan",
        "CHANGES_LOOK_S": "inf",
        "CHANGES_HEARTBEAT_S": "1,5",
        "TOMBSTONE_DAYS": "9" * 30,
        "CLIENT_HEAD_TIMEOUT_S": "9" * 400,
    },
    "numbers out of range": {
        "PORT": "70000",
        "EMBEDDED_MONGODB_PORT": "-1",
        "WEB_CONCURRENCY": "0",
        "REQUEST_TIMEOUT": "0.5",
        "MONGODB_TIMEOUT_MS": "0",
        "RATE_LIMIT_WINDOW_S": "0",
        "RATE_LIMIT_LIST": "-1",
        "AUTH_CACHE_TTL": "-1",
        "AUTH_BREAKER_THRESHOLD": "0",
        "MESSAGE_READ_TIMEOUT_S": "0",
        "CHARACTERS_RETRIES": "-1",
        "JWT_LEEWAY_S": "-10",
        "TRASH_DAYS": "-1",
        "TOMBSTONE_DAYS": "0",
        "RETENTION_ARCHIVE_IDLE_DAYS": "99999999",
        "MAX_CONVERSATIONS_PER_USER": "-1",
        "MAX_TOKENS_CEILING": "0",
        "MODEL_CEILINGS": "gpt-4o:max_tokens=0",
        "CHANGES_WAITING": "0",
        "CHANGES_LOOK_S": "0",
        "CONNECTION_POOL_MAX": "0",
    },
    "words that are not among the choices": {
        "ENVIRONMENT": "prod",
        "LOG_LEVEL": "verbose",
        "LOG_FORMAT": "json",
        "AUTH_FAIL_MODE": "",
        "JWT_ALGORITHM": "none",
        "CHARACTER_CHECK": "maybe",
    },
    "texts of the wrong form": {
        "SERVICE_NAME": "a\r\nb",
        "HOST": "0.0.0.0:8003",
        "MONGODB_DATABASE": "a.b",
        "JWT_USER_ID_CLAIM": "  ",
        "JWT_ISSUER": " x",
        "JWT_AUDIENCE": " ",
        "VAR_DIR": "",
        "AUTH_VALIDATE_PATH": "api/validate",
        "CHARACTER_PATH": "/api/v1/characters",
        "MESSAGE_STATS_PATH": "/api/{conversation}/stats",
    },
    "addresses of the wrong form": {
        "AUTH_SERVICE_URL": "nonsense",
        "CHARACTERS_SERVICE_URL": "http://:8002",
        "MESSAGE_SERVICE_URL": "",
        "JWT_JWKS_URL": "ftp://auth/keys",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
        "ALLOWED_HOSTS": "https://console.example.org",
        "CSRF_TRUSTED_ORIGINS": "console.example.org",
        "MONGODB_URL": "localhost:27017",
        "REDIS_URL": "redis:6379",
    },
}


@pytest.mark.parametrize("kind", WRONG)
def test_all_wrong_values_are_listed_together(kind):
    assert named(**WRONG[kind]) == set(WRONG[kind])


def test_weak_secrets_and_wrong_values_are_in_one_list():
    found = faults(ENVIRONMENT="production", TRASH_DAYS="x", REDIS_URL="redis:1", DEBUG="yes")

    assert {line.split()[0] for line in found} == {
        *("TRASH_DAYS", "REDIS_URL", "DEBUG"),
        *("SECRET_KEY", "JWT_SECRET_KEY", "MONGODB_URL", "ALLOWED_HOSTS"),
    }


def test_an_error_says_which_value_is_valid():
    assert faults(TRASH_DAYS="-1", RATE_LIMIT_ENABLED="ture") == [
        "RATE_LIMIT_ENABLED is 'ture' and must be true or false (yes or no, on or off, 1 or 0).",
        "TRASH_DAYS is '-1' and must be an integer from 1 to 36500.",
    ]


def test_no_error_contains_a_secret(tmp_path):
    secret = f"{SECRET_PIECE}/{SECRET_PIECE}#{SECRET_PIECE}"
    variables = dict.fromkeys(env.scheme, f"://{secret}@{secret}")
    variables |= {"SECRET_KEY_FILE": f"/{secret}", "JWT_SECRET_KEY_FALBACKS": secret}
    shown = "\n".join(faults(**variables))

    assert shown.count("\n") > 50
    assert SECRET_PIECE not in shown


@pytest.mark.parametrize(
    ("words", "value"),
    [(["true", "YES", "On", "1"], True), (["false", "No", "OFF", "0"], False)],
)
def test_booleans_accept_two_sets_of_words(words, value):
    names = ["RATE_LIMIT_ENABLED", "ACCESS_LOG", "RELOAD", "AUTH_REMOTE_VALIDATION"]
    expression = f"[getattr(settings, name) for name in {names}]"

    assert show(expression, **dict(zip(names, words, strict=True))) == str([value] * 4)


def test_lists_lose_blanks_and_empty_items():
    variables = FIT | {
        "ALLOWED_HOSTS": " a.example.org , b.example.org,,",
        "JWT_SECRET_KEY_FALLBACKS": f"{SECRET}-3, {SECRET}-4 ,",
        "IF_MATCH_REQUIRED_FOR": "web, ios",
    }
    expression = (
        "(settings.ALLOWED_HOSTS, settings.JWT_SECRET_KEY_FALLBACKS, "
        "settings.IF_MATCH_REQUIRED_FOR)"
    )

    assert show(expression, **variables) == str(
        (
            ["a.example.org", "b.example.org"],
            [f"{SECRET}-3", f"{SECRET}-4"],
            ["web", "ios"],
        )
    )


def test_a_dollar_is_kept_in_variables_and_files(tmp_path):
    former = tmp_path / "former"
    former.write_text(f"$SECRET_KEY-{SECRET},$x{SECRET}\n")
    variables = FIT | {
        "SECRET_KEY": f"$q*eo{SECRET}",
        "JWT_SECRET_KEY_FALLBACKS_FILE": str(former),
    }

    shown = show("(settings.SECRET_KEY, settings.JWT_SECRET_KEY_FALLBACKS)", **variables)
    assert shown == str((f"$q*eo{SECRET}", [f"$SECRET_KEY-{SECRET}", f"$x{SECRET}"]))


def test_a_dotenv_keeps_dollars_and_reports_lines_without_an_assignment(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.delenv("JWT_SECRET_KEY", raising=False)
    monkeypatch.setenv("JWT_ISSUER", "of-the-environment")
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        f"# a comment\n\nSECRET_KEY=$x{SECRET}\nJWT_SECRET_KEY = {SECRET}\nJWT_ISSUER=x\n"
    )

    read = Env(dotenv, **env.scheme)

    assert read("SECRET_KEY") == f"$x{SECRET}"
    assert read("JWT_ISSUER") == "of-the-environment"
    assert read.faults() == {
        ".env:4": ".env, line 4, must be NAME=value without blanks around the =."
    }


def test_a_missing_file_is_named(tmp_path):
    variables = {"SECRET_KEY_FILE": "/none", "REDIS_URL_FILE": str(tmp_path)}

    assert faults(**variables) == [
        "SECRET_KEY_FILE names a file that cannot be read: No such file or directory.",
        "REDIS_URL_FILE names a file that cannot be read: Is a directory.",
    ]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("RATE_LIMT_LIST", "RATE_LIMIT_LIST"),
        ("rate_limit_list", "RATE_LIMIT_LIST"),
        ("TRASHDAYS", "TRASH_DAYS"),
        ("AUTH_REMOTE_VALIDATON", "AUTH_REMOTE_VALIDATION"),
        ("JWT_SECRET_KEY_FALBACKS", "JWT_SECRET_KEY_FALLBACKS"),
        ("JWT_SECRET_KEY_FLIE", "JWT_SECRET_KEY_FILE"),
        ("JWT_AUDIANCE", "JWT_AUDIENCE"),
        ("REDIS_ULR", "REDIS_URL"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("ENVIRONMEN", "ENVIRONMENT"),
        ("WEB_CONCURENCY", "WEB_CONCURRENCY"),
    ],
)
def test_a_name_close_to_a_variable_is_rejected(name, right):
    assert faults(**{name: "1"}) == [
        f"{name} is not a variable of this service; {right} is similar."
    ]


# Kubernetes' links to services, CI, shells, conda, desktops, platforms, and programs near by.
FOREIGN = re.findall(
    r"\S+",
    """
    AUTH_SERVICE_PORT AUTH_SERVICE_PORT_8001_TCP AUTH_SERVICE_PORT_8001_TCP_ADDR
    AUTH_SERVICE_SERVICE_HOST AUTH_SERVICE_SERVICE_PORT CHARACTERS_SERVICE_PORT
    CHARACTERS_SERVICE_SERVICE_HOST MESSAGE_SERVICE_PORT MESSAGE_SERVICE_SERVICE_PORT_HTTP
    CONVERSATION_SERVICE_PORT CONVERSATION_SERVICE_SERVICE_HOST KUBERNETES_SERVICE_HOST
    KUBERNETES_SERVICE_PORT_HTTPS REDIS_PORT REDIS_PORT_6379_TCP REDIS_SERVICE_HOST MONGODB_PORT
    MONGODB_SERVICE_HOST MONGODB_PORT_27017_TCP_ADDR REDIS_HOST REDIS_PASSWORD REDIS_URI
    REDIS_TLS_URL REDISCLOUD_URL MONGODB_URI MONGO_URL MONGO_URI MONGOHQ_URL
    MONGO_INITDB_DATABASE MONGO_INITDB_ROOT_PASSWORD MONGODB_VERSION MONGODB_DATA_DIR
    DATABASE_URL DATABASE_HOST CACHE_URL GITHUB_ACTIONS GITHUB_REF_NAME GITHUB_SERVER_URL
    GITHUB_RETENTION_DAYS RUNNER_TEMP RUNNER_DEBUG CI CI_ENVIRONMENT_NAME CI_SERVER_URL
    CI_SERVER_HOST CI_DEBUG_TRACE GITLAB_CI BUILD_REVISION JENKINS_URL HOSTNAME HOSTTYPE HOSTS
    VENDOR MACHTYPE OSTYPE SHLVL PWD OLDPWD LOGNAME USER HOME SHELL TERM LANG EDITOR
    CONDA_PREFIX CONDA_BACKUP_HOST BUILD HOST_ALIAS _CONDA_PYTHON_SYSCONFIGDATA_NAME
    CONDA_DEFAULT_ENV XDG_SESSION_TYPE XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS SSH_AUTH_SOCK
    GPG_AGENT_INFO DEBUGINFOD_URLS LOGLEVEL LOG_LEVELS LOGFORMAT LOG_DIR LOG_FILE
    DJANGO_LOG_LEVEL DJANGO_DEBUG DJANGO_SETTINGS_MODULE DJANGO_SECRET_KEY DJANGO_ALLOWED_HOSTS
    SECRET_KEYS SECRETKEY SECRET_KEY_BASE PORTS NODE_ENV RAILS_ENV ENVIRONMENTS ENV APP_ENV
    SERVICE_ID SERVICES_NAME SERVICE_NAMES OTEL_SERVICE_NAME OTEL_LOG_LEVEL
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
    OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TIMEOUT PROMETHEUS_MULTIPROC_DIRS
    PROMETHEUS_URL GUNICORN_CMD_ARGS GUNICORN_PID WEB_CONCURRENCY_MAX REQUESTS_TIMEOUT
    REQUEST_TIMEOUT_MS REQUESTS_CA_BUNDLE SSL_CERT_FILE CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY
    NO_PROXY http_proxy https_proxy no_proxy all_proxy PIP_INDEX_URL PIP_NO_INDEX PYTHONPATH
    PYTHONHASHSEED PYTHONDEVMODE VIRTUAL_ENV UV_CACHE_DIR COVERAGE_PROCESS_START PYTEST_VERSION
    PYTEST_CURRENT_TEST JWT_SECRET JWT_EXPIRES_IN JWT_PRIVATE_KEY JWT_ACCESS_TOKEN_EXPIRES
    AUTH_SECRET AUTH_URL AUTH_TOKEN AUTH0_DOMAIN NEXTAUTH_URL MESSAGE_QUEUE_URL RATE_LIMIT
    RATE_LIMIT_MAX RATE_LIMIT_SEND CONNECTION_POOL_SIZE CONNECTION_STRING
    MAX_TOKENS MAX_CONNECTIONS CONTEXT_WINDOW DYNO K_SERVICE K_REVISION K_CONFIGURATION
    FLY_APP_NAME RENDER_SERVICE_NAME RAILWAY_ENVIRONMENT RAILWAY_ENVIRONMENT_NAME AWS_REGION
    AWS_SECRET_ACCESS_KEY ECS_CONTAINER_METADATA_URI GOOGLE_CLOUD_PROJECT TMPDIR TEMP WORKER_ID
    WORKERS COMPOSE_PROJECT_NAME DOCKER_HOST VERSION REGISTRY SECRETS_DIR
    """,
)


def test_names_of_other_programs_are_accepted():
    assert faults(**dict.fromkeys(FOREIGN, "x")) == []


def test_common_names_are_names_of_variables():
    assert set(env.scheme) > COMMON_NAMES


@pytest.mark.parametrize(
    "wrong",
    [
        {"AUTH_SERVICE_URL": f"http://user:{SECRET_PIECE}@auth:8001"},
        {"MESSAGE_SERVICE_URL": "https://token@message"},
        {"CHARACTERS_SERVICE_URL": "https://@characters"},
        {"AUTH_VALIDATE_PATH": "/validate#token"},
        {"CHARACTER_PATH": "/characters#{id}"},
        {"MESSAGE_STATS_PATH": "/{id}/stats#"},
    ],
)
def test_an_upstream_gets_the_token_and_the_whole_path(wrong):
    """`requests` sends a user name in place of the token, and no fragment."""
    [fault] = faults(**wrong)

    assert fault.startswith(f"{next(iter(wrong))} must be a ")
    assert SECRET_PIECE not in fault


def test_other_addresses_may_have_a_user_name():
    assert faults(OTEL_EXPORTER_OTLP_ENDPOINT="https://user:password@collector:4318") == []


def test_connection_pool_min_is_at_most_connection_pool_max():
    [fault] = faults(CONNECTION_POOL_MIN="30")

    assert fault == (
        "CONNECTION_POOL_MIN is 30 and must not be more than CONNECTION_POOL_MAX, which is 20."
    )


def test_public_keys_and_algorithm_must_match_in_every_environment():
    assert named(JWT_ALGORITHM="RS256") == {"JWT_JWKS_URL"}
    assert named(JWT_JWKS_URL="https://auth/keys?p=x") == {"JWT_ALGORITHM"}


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://u:p@ss/{SECRET_PIECE}@h:27017/?replicaSet=rs0",
        f"mongodb://u:p%ss{SECRET_PIECE}@h/",
        f"mongodb://u:{SECRET_PIECE}?x@h/",
        f"mongodb://u:{SECRET_PIECE}@h:70000/",
        f"mongo://u:{SECRET_PIECE}@h/",
        f"mongodb://u:{SECRET_PIECE}@h/\nmongodb://h",
        "mongodb://",
        "mongodb://h/other_database",
        "mongodb://h/?replicaSt=rs0",
        "mongodb://h/?w=majority&journal=maybe",
        "mongodb://h/?tls=true&tlsCAFile=/nowhere/ca.pem",
        "mongodb://a,b/?directConnection=true",
        "mongodb+srv://h.example.org:27017/",
        "mongodb+srv://a.example.org,b.example.org/",
        "mongodb+srv://h.example.org/?retryWrites=sometimes",
    ],
)
def test_an_unusable_mongodb_url_is_rejected(url):
    found = faults(MONGODB_URL=url)

    assert {line.split()[0] for line in found} == {"MONGODB_URL"}
    assert SECRET_PIECE not in "".join(found)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://u:p%40ss%2Fw0rd@a:1,b,[::1]:27017/conversation_service?replicaSet=rs0&w=majority",
        "mongodb://u:p@h/?authSource=admin&readPreference=secondaryPreferred&tls=true",
        "mongodb+srv://u:p@cluster0.example.invalid/?retryWrites=true&w=majority&appName=x",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock/",
    ],
)
def test_a_usable_mongodb_url_is_accepted_without_a_dns_query(url):
    assert faults(MONGODB_URL=url) == []


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET_PIECE}/{SECRET_PIECE}@127.0.0.1:6379/0",
        f"redis://:123/{SECRET_PIECE}@127.0.0.1:6379/0",
        f"redis://:{SECRET_PIECE}#x@h/0",
        f"redis://:{SECRET_PIECE}?x@h/0",
        f"redis://:{SECRET_PIECE}[x@h/0",
    ],
)
def test_a_redis_password_without_percent_encoding_is_rejected_with_the_remedy(url):
    [fault] = faults(REDIS_URL=url)

    assert fault.startswith("REDIS_URL ")
    assert "percent-encoded" in fault
    assert SECRET_PIECE not in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h/0",
        "redis:6379",
        "redis://",
        "redis://h:70000/0",
        "redis://h:0/0",
        "redis://h/zero",
        "redis://h?db=x",
        "redis://h?no_such_option=1",
        "rediss://h?ssl_cert_reqs=no_such_word",
        "redis://h h/0",
        f"redis://{'a' * 64}/0",
        "unix://",
    ],
)
def test_an_unusable_redis_url_is_rejected(url):
    assert named(REDIS_URL=url) == {"REDIS_URL"}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("valkey://:p%2Fw@h:6379/1", "redis://:p%2Fw@h:6379/1"),
        ("valkeys://h", "rediss://h"),
        ("rediss://u:p@h:6380/0?ssl_cert_reqs=none", "rediss://u:p@h:6380/0?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_a_usable_redis_url_is_accepted(given, used):
    assert show("settings.REDIS_URL", REDIS_URL=given) == used


def test_production_settings_keep_their_rules_in_every_environment():
    done = python("-c", "import config.settings.production")

    assert "SECRET_KEY is not set." in done.stderr


@pytest.mark.parametrize("environment", ["development", "test", "staging", "production"])
def test_settings_are_not_loaded_with_a_wrong_value(environment):
    done = load(**FIT | {"ENVIRONMENT": environment, "TRASH_DAYS": "-1"})

    assert done.returncode != 0
    assert "TRASH_DAYS is '-1'" in done.stderr


@pytest.mark.parametrize("command", [["check"], ["setup_indexes", "--check"], ["no_such_command"]])
def test_a_command_prints_the_list_without_a_traceback(command):
    done = manage(*command, TRASH_DAYS="-1", REDIS_URL="redis:1")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "This configuration cannot be used. Wrong or missing:",
        "- TRASH_DAYS is '-1' and must be an integer from 1 to 36500.",
        "- REDIS_URL must begin with redis://, rediss://, valkey://, valkeys:// or unix://.",
    ]


def test_gunicorn_prints_the_list_before_it_listens():
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "config.wsgi"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORT": "none", "REDIS_URL": "redis:1"},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "- PORT is 'none' and must be an integer from 1 to 65535." in done.stderr
    assert "- REDIS_URL must begin with" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Listening" not in done.stdout


def test_ceilings_are_read_by_model():
    text = " gpt-4o : max_tokens = 16384 , context_window=128000 ;\n llama3:8b:max_tokens=1;;a*:"
    with pytest.MonkeyPatch.context() as patch:
        variables = {"MODEL_CEILINGS": text + "context_window=2147483647;"}
        patch.setattr(env, "environ", variables)

        assert env("MODEL_CEILINGS") == {
            "gpt-4o": {"max_tokens": 16384, "context_window": 128000},
            "llama3:8b": {"max_tokens": 1},
            "a*": {"context_window": 2147483647},
        }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("gpt-4o", "entry 1: the model must be a name"),
        (":max_tokens=1", "entry 1: the model must be a name"),
        ("*:max_tokens=1", "entry 1: the model must be a name"),
        ("a*b:max_tokens=1", "entry 1: the model must be a name"),
        ("a**:max_tokens=1", "entry 1: the model must be a name"),
        ("x" * 129 + ":max_tokens=1", "entry 1: the model must have at most 128 printable"),
        ("a\tb:max_tokens=1", "entry 1: the model must have at most 128 printable"),
        ("a:max_token=1", "entry 1: the settings are max_tokens and context_window"),
        ("a:temperature=1", "entry 1: the settings are max_tokens and context_window"),
        ("a:max_tokens=1,max_tokens=2", "entry 1: a setting is repeated"),
        ("a:max_tokens=1;a:context_window=2", "entry 2: the model is repeated"),
        ("a:max_tokens", "entry 1: a maximum must be an integer from 1 to 2147483647"),
        ("a:max_tokens=", "entry 1: a maximum must be"),
        ("a:max_tokens=0", "entry 1: a maximum must be"),
        ("a:max_tokens=-1", "entry 1: a maximum must be"),
        ("a:max_tokens=1.5", "entry 1: a maximum must be"),
        ("a:max_tokens=2147483648", "entry 1: a maximum must be"),
        ("a:max_tokens=\u0663", "entry 1: a maximum must be"),
        ("a:max_tokens=1,", "entry 1: the settings are"),
        ("a:", "entry 1: the settings are"),
        ('{"a": {"max_tokens": 1}}', "entry 1: the settings are"),
    ],
)
def test_each_fault_of_a_ceiling_is_named(text, fault):
    [found] = faults(MODEL_CEILINGS=text)

    assert found.startswith("MODEL_CEILINGS must be entries MODEL:SETTING=NUMBER, such as ")
    assert fault in found


def test_all_faults_of_all_ceilings_are_named_together():
    [found] = faults(MODEL_CEILINGS="a:max_tokens=0,x=1;b:max_tokens=1;*:max_tokens=1;a:top_p=y")

    for fault in (
        "entry 1: the settings are max_tokens and context_window; entry 1: a maximum must be",
        "entry 3: the model must be a name",
        "entry 4: the settings are",
        "entry 4: the model is repeated",
    ):
        assert fault in found
    assert "entry 2" not in found


def test_every_setting_with_a_ceiling_can_have_ceilings_by_model():
    everything = ",".join(f"{name}=1" for name in WITH_CEILING)
    longest = "x" * limits.MODEL_LENGTH

    assert faults(MODEL_CEILINGS=f"a:{everything};{longest}:max_tokens=1") == []
