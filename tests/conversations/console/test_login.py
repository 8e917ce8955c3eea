"""Logging in: slowed down for who guesses, and remembered where an index leads."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from tests.conversations.console.browser import PASSWORD, staff, text

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


def test_another_account_still_comes_in(ana):
    for _ in range(5):
        log_in("wrong", name="eve")

    assert log_in().status_code == 302


def test_it_opens_again_by_itself_however_often_one_tries_meanwhile(ana):
    now = datetime.now(UTC)
    for _ in range(5):
        log_in("wrong")
    with time_machine.travel(now + timedelta(minutes=14)):
        assert log_in().status_code == 429
    with time_machine.travel(now + timedelta(minutes=16)):
        assert log_in().status_code == 302


def test_a_success_forgives_the_failures_before_it(ana):
    for _ in range(4):
        log_in("wrong")
    log_in()

    assert [log_in("wrong").status_code for _ in range(4)] == [200] * 4


def test_nobody_is_locked_out_or_let_through_for_want_of_redis(ana, settings):
    settings.REDIS_URL = ""

    assert [log_in("wrong").status_code for _ in range(5)][-1] == 429


def test_sessions_and_failures_are_found_by_their_key_and_removed_by_mongodb(ana, mongo):
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


def test_logging_out_ends_the_session_for_good(mongo):
    client = staff("view_conversation")
    stolen = Client()
    stolen.cookies = client.cookies.copy()
    client.post("/admin/logout/")

    assert stolen.get("/admin/").status_code == 302
    assert not Session.objects.exists()
