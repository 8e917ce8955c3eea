"""manage.py webhooks."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from conversations.webhooks import endpoints
from tests.conversations.webhooks.receivers import delivering, receiving, register

URL = "https://hooks.example.org/in"


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("webhooks", *arguments, stdout=output)
    return output.getvalue()


def as_json(*arguments: str):
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


@pytest.fixture
def added(mongo):
    [endpoint] = as_json("add", URL, "--type", "conversation.created", "--in-flight", "2")
    return endpoint


def test_an_endpoint_is_added_with_its_secret_and_listed_without(added):
    stored = endpoints.get(added["id"])

    assert endpoints.live_secrets(stored) == [added["secret"]]
    assert (stored["types"], stored["in_flight"]) == (["conversation.created"], 2)
    assert as_json("list") == [
        {name: value for name, value in added.items() if name != "secret"},
        {"webhooks": 1},
    ]
    listed = run("list") + run("show", added["id"])
    assert listed.count(URL) == 2
    assert "whsec_" not in listed


def test_the_list_names_an_endpoint_that_fails(added, mongo):
    since = datetime(2026, 1, 15, 9, tzinfo=UTC)
    mongo["webhook_endpoints"].update_one({}, {"$set": {"failing_since": since}})

    assert "failing since 2026-01-15 09:00 UTC" in run("list")


def test_the_secret_is_printed_once(mongo):
    printed = run("add", URL)

    [endpoint] = endpoints.list_all()
    assert endpoints.live_secrets(endpoint)[0] in printed
    assert endpoint["created_by"] == "service:webhooks"


def test_each_action_changes_the_endpoint(added):
    id_ = added["id"]

    [rotated] = as_json("rotate", id_)
    assert rotated["secret"] != added["secret"]
    assert as_json("disable", id_)[0]["state"] == "disabled"
    assert as_json("enable", id_, "--from", "cursor")[0]["pending_events"] == 1
    run("disable", id_)
    assert as_json("enable", id_, "--from", "now")[0]["pending_events"] == 0
    assert as_json("delete", id_) == [{"id": id_}]
    assert as_json("list") == [{"webhooks": 0}]


def test_a_test_event_is_sent_and_its_result_is_printed(mongo):
    with receiving() as receiver, delivering(mongo):
        endpoint = register(receiver.url)
        [result] = as_json("test", endpoint)
        assert receiver.ids == [result["event_id"]]
        assert (result["state"], result["status"]) == ("delivered", 204)

        receiver.behaviour = lambda r: 500
        with pytest.raises(CommandError, match=r"_test_\w+ failed: status 500"):
            run("test", endpoint)


def test_a_test_event_without_a_deliverer_is_an_error(added, monkeypatch):
    monkeypatch.setattr("conversations.management.commands.webhooks.WAIT_S", 0.5)

    with pytest.raises(CommandError, match="was not sent within"):
        run("test", added["id"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["add", "http://example.org/"], "url: Use https."),
        (["add", URL, "--in-flight", "33"], "in_flight: .*32"),
        (["add"], "add needs a URL or an ID."),
        (["list", "x"], "list takes no URL and no ID."),
        (["enable", "x"], "--from cursor or --from now"),
        (["disable", "x", "--from", "now"], "--from cursor or --from now"),
        *(([action, "x"], "Webhook endpoint not found") for action in ("show", "rotate", "delete")),
        (["enable", "x", "--from", "now"], "Webhook endpoint not found"),
        (["disable", "x"], "Webhook endpoint not found"),
        (["test", "x"], "Webhook endpoint not found"),
    ],
)
def test_a_wrong_use_exits_with_1_and_the_reason(mongo, arguments, text):
    with pytest.raises(CommandError, match=text) as failed:
        run(*arguments)

    assert failed.value.returncode == 1
