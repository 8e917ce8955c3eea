"""Logins: limited for clients that guess, and stored with indexes."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client

from conversation_service.http import ratelimit
from conversations.admin import login
from tests.conversations.admin.browser import PASSWORD, staff, text

LOGIN = "/admin/login/"


@pytest.fixture
def ana(mongo):
    return User.objects.create_user("ana", password=PASSWORD, is_staff=True)


def log_in(password=PASSWORD, name="ana"):
    return Client().post(LOGIN, {"username": name, "password": password, "next": "/admin/"})


def test_five_failures_lock_an_account_out(ana):
    statuses = [log_in("wrong").status_code for _ in range(5)]
    locked = log_in()

    assert statuses == [200, 200, 200, 200, 429]
    assert locked.status_code == 429
    assert "Too many attempts" in text(locked)


def test_another_account_can_still_log_in(ana):
    for _ in range(5):
        log_in("wrong", name="eve")

    assert log_in().status_code == 302


def test_a_lock_expires_even_with_further_attempts(ana):
    now = datetime.now(UTC)
    for _ in range(5):
        log_in("wrong")
    with time_machine.travel(now + timedelta(minutes=14)):
        assert log_in().status_code == 429
    with time_machine.travel(now + timedelta(minutes=16)):
        assert log_in().status_code == 302


def test_a_successful_login_resets_the_failures(ana):
    for _ in range(4):
        log_in("wrong")
    log_in()

    assert [log_in("wrong").status_code for _ in range(4)] == [200] * 4


def test_logins_are_limited_without_redis(ana, settings):
    settings.REDIS_URL = ""

    assert [log_in("wrong").status_code for _ in range(5)][-1] == 429


@pytest.fixture
def limit(settings):
    """Three requests a minute, counted in this process: each test starts at zero."""
    settings.LOGIN_REQUESTS_PER_MINUTE = 3
    settings.REDIS_URL = ""
    ratelimit._local_counts = ratelimit.LocalCounts()


def guess(times, **address):
    """Try unknown names, which no lock of an account limits."""
    form = {"password": "wrong", "next": "/admin/"}
    return [
        Client().post(LOGIN, form | {"username": f"unknown{n}"}, **address) for n in range(times)
    ]


@pytest.mark.usefixtures("limit")
def test_attempts_are_limited_by_address_for_all_names(ana):
    responses = guess(5)

    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
    refused = responses[-1]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["Content-Type"].startswith("text/html")
    assert "Too many attempts" in text(refused)
    assert "script-src 'self'" in refused.headers["Content-Security-Policy"]


@pytest.fixture
def delays(settings, monkeypatch):
    """The seconds of each delay, which pass at once."""
    settings.LOGIN_FAILURE_DELAY_S = 2
    delays = []
    monkeypatch.setattr(login, "time", SimpleNamespace(sleep=delays.append))
    return delays


def test_a_failed_login_is_delayed_and_a_successful_one_is_not(ana, delays):
    log_in("wrong")
    assert delays == [2]

    log_in()
    Client().get(LOGIN)
    assert delays == [2]


@pytest.mark.usefixtures("limit")
def test_a_rejected_request_for_the_login_page_is_delayed(ana, delays):
    statuses = [Client().get(LOGIN).status_code for _ in range(4)]

    assert statuses == [200, 200, 200, 429]
    assert delays == [2]


@pytest.mark.usefixtures("ana")
def test_responses_above_the_maximum_of_delayed_ones_are_sent_at_once(delays, monkeypatch):
    monkeypatch.setattr(login, "MAX_DELAYED", 0)

    assert log_in("wrong").status_code == 200
    assert delays == []


@pytest.mark.usefixtures("limit")
def test_a_rejected_login_hashes_no_password_and_reads_no_account(ana, commands, settings):
    guess(3)
    settings.PASSWORD_HASHERS = ["nothing.can.be.hashed"]
    commands.clear()

    assert log_in().status_code == 429
    assert not [command for command in commands if "auth_user" in command.values()]


@pytest.mark.usefixtures("limit")
def test_requests_for_the_login_page_count(ana):
    pages = [Client().get(LOGIN).status_code for _ in range(4)]

    assert pages == [200, 200, 200, 429]


@pytest.mark.usefixtures("limit")
def test_the_error_is_in_the_language_of_the_browser(ana):
    guess(3)

    refused = Client().get(LOGIN, headers={"Accept-Language": "es"})

    assert "Demasiados intentos" in text(refused)


@pytest.mark.usefixtures("limit")
def test_another_address_can_log_in_during_a_lock(ana):
    guess(4)
    form = {"username": "ana", "password": PASSWORD}

    assert Client().post(LOGIN, form, REMOTE_ADDR="192.0.2.7").status_code == 302
    forwarded = {"X-Forwarded-For": "192.0.2.8"}
    assert Client().post(LOGIN, form, headers=forwarded).status_code == 302


@pytest.mark.usefixtures("limit")
def test_the_address_is_that_seen_by_the_nearest_proxy(ana):
    forged = [f"198.51.100.{n}, 192.0.2.7" for n in range(4)]

    responses = [guess(1, HTTP_X_FORWARDED_FOR=addresses)[0] for addresses in forged]

    assert [response.status_code for response in responses] == [200, 200, 200, 429]


@pytest.mark.usefixtures("limit")
def test_open_sessions_work_while_logins_are_rejected(viewer):
    guess(4)

    assert viewer.get("/admin/").status_code == 200


def test_an_operator_can_remove_a_lock_by_the_name_of_the_account(ana, capsys):
    form = {"username": "ana", "password": "wrong"}
    for n in range(5):  # the pods of a gateway
        Client().post(LOGIN, form, REMOTE_ADDR=f"192.0.2.{n}")
    assert log_in().status_code == 429

    call_command("axes_reset_username", "ana")

    assert capsys.readouterr().out == "1 attempts removed.\n"
    assert log_in().status_code == 302


def test_sessions_and_failures_are_read_by_index_and_expire(ana, mongo):
    client = Client()
    client.post(LOGIN, {"username": "ana", "password": PASSWORD})
    log_in("wrong")
    mongo.command("profile", 2)
    client.get("/admin/")
    log_in("wrong")
    mongo.command("profile", 0)
    read = {"op": {"$ne": "insert"}, "planSummary": {"$exists": True}}
    plans = {
        row["planSummary"]
        for name in ("django_session", "cache")
        for row in mongo["system.profile"].find({"ns": f"{mongo.name}.{name}", **read})
    }
    mongo.drop_collection("system.profile")

    assert plans
    assert all(plan.startswith(("IXSCAN", "EXPRESS_IXSCAN", "IDHACK")) for plan in plans), plans
    for name, index in [
        ("django_session", "django_session_expire_date_a5c62663"),
        ("cache", "cache_expiry"),
    ]:
        assert mongo[name].index_information()[index]["expireAfterSeconds"] == 0


def test_logout_ends_the_session(mongo):
    client = staff("view_conversation")
    stolen = Client()
    stolen.cookies = client.cookies.copy()
    client.post("/admin/logout/")

    assert stolen.get("/admin/").status_code == 302
    assert not Session.objects.exists()
