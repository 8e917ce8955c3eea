"""Services manage webhook endpoints."""

import json

import pytest
from bson import Int64
from standardwebhooks import Webhook

from conversation_service import clock
from conversations.events import log
from conversations.webhooks import secrets
from tests.conversations.test_internal import service_with
from tests.conversations.webhooks.receivers import deliver, receiving
from tests.documented import DOCUMENT, validator

WEBHOOKS = "/internal/v1/webhooks"
URL = "https://hooks.example.org/in"
ABSENT = f"we_{'0' * 24}"
SECRET = secrets.PREFIX + "A" * 32


@pytest.fixture
def service(mongo):
    return service_with("webhooks:manage")


@pytest.fixture
def webhook(service):
    return service.post(WEBHOOKS, {"url": URL}).json()


def test_an_endpoint_is_created_with_a_secret_that_is_shown_once(service):
    response = service.post(WEBHOOKS, {"url": URL})

    created = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{WEBHOOKS}/{created['id']}"
    assert response.headers["Cache-Control"] == "private, no-store"
    secret = created.pop("secret")
    assert len(secrets.key(secret)) == 32
    assert created["created_by"] == "service:message-service"
    assert (created["state"], created["types"], created["in_flight"]) == ("enabled", [], 8)
    assert service.get(f"{WEBHOOKS}/{created['id']}").json() == created
    listed = service.get(WEBHOOKS)
    assert listed.json() == {"webhooks": [created]}
    assert secret not in listed.content.decode()


def test_all_fields_can_be_set(service):
    body = {
        "url": URL,
        "description": "Search",
        "types": ["conversation.created", "conversation.archived"],
        "format": "cloudevents",
        "in_flight": 32,
    }

    created = service.post(WEBHOOKS, {**body, "secret": SECRET}).json()

    assert created["secret"] == SECRET
    assert {name: created[name] for name in body} == body


BAD = [
    ({}, "/url", "required"),
    ({"url": None}, "/url", "null"),
    ({"url": 1}, "/url", "invalid"),
    ({"url": ""}, "/url", "blank"),
    ({"url": "https://example.org/" + "a" * 2_048}, "/url", "max_length"),
    ({"url": "https://example.org/a b"}, "/url", "url_characters"),
    ({"url": "example.org"}, "/url", "url_form"),
    ({"url": "http://example.org/"}, "/url", "url_scheme"),
    ({"url": "https://a:b@example.org/"}, "/url", "url_credentials"),
    ({"url": "https://example.org/#a"}, "/url", "url_fragment"),
    ({"url": "https://localhost/"}, "/url", "url_host"),
    ({"url": "https://example.org:22/"}, "/url", "url_port"),
    ({"url": "https://169.254.169.254/"}, "/url", "url_address"),
    ({"url": URL, "types": ["conversation.exploded"]}, "/types/0", "invalid_choice"),
    ({"url": URL, "types": "conversation.created"}, "/types", "invalid"),
    ({"url": URL, "format": "xml"}, "/format", "invalid_choice"),
    ({"url": URL, "in_flight": 0}, "/in_flight", "min_value"),
    ({"url": URL, "in_flight": 33}, "/in_flight", "max_value"),
    ({"url": URL, "description": "x" * 201}, "/description", "max_length"),
    ({"url": URL, "secret": "whsec_" + "A" * 28}, "/secret", "invalid"),
    ({"url": URL, "secret": "whsec_" + "A" * 88}, "/secret", "invalid"),
    ({"url": URL, "secret": "A" * 32}, "/secret", "invalid"),
    ({"url": URL, "secret": "whsec_" + "?" * 32}, "/secret", "invalid"),
    ({"url": URL, "state": "disabled"}, "/state", "unknown_field"),
]


@pytest.mark.parametrize(("body", "pointer", "code"), BAD)
def test_bad_input_is_rejected_with_the_broken_rule(service, body, pointer, code):
    response = service.post(WEBHOOKS, body)

    [error] = response.json()["error"]["details"]["errors"]
    assert response.status_code == 400
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert service.get(WEBHOOKS).json() == {"webhooks": []}


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [row for row in BAD if row[0] and "secret" not in row[0]]  # type: ignore[operator]
    + [({"secret": SECRET}, "/secret", "unknown_field")],
)
def test_an_edit_has_the_same_rules(service, webhook, body, pointer, code):
    path = f"{WEBHOOKS}/{webhook['id']}"

    [error] = service.patch(path, body).json()["error"]["details"]["errors"]

    assert (error["pointer"], error["code"]) == (pointer, code)
    assert service.get(path).json()["url"] == URL


def test_an_edit_changes_the_sent_fields_only(service, webhook):
    path = f"{WEBHOOKS}/{webhook['id']}"

    changed = service.patch(path, {"description": "Search", "types": ["conversation.purged"]})

    assert changed.json() == service.get(path).json()
    assert changed.json()["description"] == "Search"
    assert changed.json()["url"] == URL


def test_the_rule_is_named_in_spanish(service):
    response = service.post(
        WEBHOOKS, {"url": "http://example.org/"}, headers={"Accept-Language": "es"}
    )

    [error] = response.json()["error"]["details"]["errors"]
    assert error["message"] == "Usar https."


def test_a_rotated_secret_is_shown_once(service, webhook):
    path = f"{WEBHOOKS}/{webhook['id']}"

    rotated = service.post(f"{path}/rotate-secret", {"secret": SECRET}).json()
    generated = service.post(f"{path}/rotate-secret").json()

    assert rotated["secret"] == SECRET
    assert generated["secret"] not in (SECRET, webhook["secret"])
    stored = service.get(path)
    assert [each["expires_at"] is None for each in stored.json()["secrets"]] == [True, False]
    assert "whsec_" not in stored.content.decode()


def test_an_endpoint_is_disabled_and_enabled(service, webhook):
    path = f"{WEBHOOKS}/{webhook['id']}"

    disabled = service.post(f"{path}/disable").json()
    again = service.post(f"{path}/disable").json()
    assert (disabled["state"], disabled["disabled_reason"]) == ("disabled", "staff")
    assert again == disabled | {"pending_events": 1}

    resumed = service.post(f"{path}/enable", {"from": "cursor"}).json()
    assert (resumed["state"], resumed["disabled_reason"]) == ("enabled", None)
    assert resumed["pending_events"] == 1
    service.post(f"{path}/disable")
    assert service.post(f"{path}/enable", {"from": "now"}).json()["pending_events"] == 0


@pytest.mark.parametrize("body", [{}, {"from": "yesterday"}, {"from": None}, {"from": []}])
def test_enabling_needs_a_start(service, webhook, body):
    response = service.post(f"{WEBHOOKS}/{webhook['id']}/enable", body)

    [error] = response.json()["error"]["details"]["errors"]
    assert error["pointer"] == "/from"


def test_a_deleted_endpoint_is_gone(service, webhook):
    path = f"{WEBHOOKS}/{webhook['id']}"

    assert service.delete(path).status_code == 204
    assert service.get(path).status_code == 404
    assert service.get(WEBHOOKS).json() == {"webhooks": []}


@pytest.mark.parametrize("id_", [ABSENT, "x", "507f1f77bcf86cd799439014", "$where"])
@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("get", "", None),
        ("patch", "", {"description": "x"}),
        ("delete", "", None),
        ("post", "/rotate-secret", {}),
        ("post", "/enable", {"from": "now"}),
        ("post", "/disable", None),
        ("post", "/test", None),
        ("get", "/deliveries", None),
        ("post", "/deliveries/a_v1/redeliver", None),
    ],
)
def test_an_absent_endpoint_is_not_found(service, id_, method, action, body):
    response = getattr(service, method)(f"{WEBHOOKS}/{id_}{action}", body)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("post", "", {"url": URL}),
        ("get", "/{id}", None),
        ("patch", "/{id}", {"description": "x"}),
        ("delete", "/{id}", None),
        ("post", "/{id}/rotate-secret", {}),
        ("post", "/{id}/enable", {"from": "now"}),
        ("post", "/{id}/disable", None),
        ("post", "/{id}/deliveries/a_v1/redeliver", None),
    ],
)
def test_a_parameter_that_does_not_exist_is_rejected(service, webhook, method, action, body):
    path = WEBHOOKS + action.format(id=webhook["id"])

    response = getattr(service, method)(f"{path}?dry_run=true", body)

    assert response.status_code == 400
    assert service.get(WEBHOOKS).json()["webhooks"] == [
        service.get(f"{WEBHOOKS}/{webhook['id']}").json()
    ]


@pytest.mark.parametrize("body", [{"from": "now"}, [], "x"])
@pytest.mark.parametrize(
    ("method", "action"),
    [("delete", ""), ("post", "/disable"), ("post", "/deliveries/a_v1/redeliver")],
)
def test_a_request_without_fields_rejects_a_body(service, webhook, method, action, body):
    response = getattr(service, method)(f"{WEBHOOKS}/{webhook['id']}{action}", body)

    assert response.status_code == 400
    assert service.get(f"{WEBHOOKS}/{webhook['id']}").json()["state"] == "enabled"


def test_the_number_of_endpoints_is_bounded(service, mongo):
    created = service.post(WEBHOOKS, {"url": URL}).json()
    stored = mongo["webhook_endpoints"].find_one({"_id": created["id"]})
    mongo["webhook_endpoints"].insert_many(
        stored | {"_id": f"we_{number:024x}"} for number in range(99)
    )

    response = service.post(WEBHOOKS, {"url": URL})

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "WEBHOOK_LIMIT_REACHED"


def test_the_request_that_receivers_get_is_documented():
    receive = DOCUMENT["webhooks"]["event"]["post"]
    contents = receive["requestBody"]["content"]
    example = contents["application/json"]["examples"]["An edit"]["value"]

    assert {parameter["name"] for parameter in receive["parameters"]} == {
        *("webhook-id", "webhook-timestamp", "webhook-signature")
    }
    assert [*contents] == ["application/json", "application/cloudevents+json"]
    assert validator(contents["application/json"]["schema"]).is_valid(example)
    assert "conversation.purged" in json.dumps(DOCUMENT["components"]["schemas"]["Event"])


def deliver_later(webhook, mongo, count):
    """Record deliveries of events of the log, as if they had failed."""
    row = {"endpoint_id": webhook["id"], "conversation_id": None, "format": "standard"}
    row |= {"type": "webhook.disabled", "body": b"secret text", "tries": 1, "is_redelivery": False}
    attempt = {"at": clock.now(), "status": 500, "reason": None, "duration_ms": 12}
    row |= {"attempts": [attempt], "next_at": None, "created_at": clock.now(), "expires_at": None}
    mongo["webhook_deliveries"].insert_many(
        row
        | {
            "_id": f"{webhook['id']}:e{seq}",
            "event_id": f"e{seq}",
            "seq": Int64(seq),
            "state": "failed" if seq % 2 else "delivered",
        }
        for seq in range(1, count + 1)
    )


def test_deliveries_are_listed_with_their_attempts_and_without_a_body(service, webhook, mongo):
    deliver_later(webhook, mongo, 5)
    path = f"{WEBHOOKS}/{webhook['id']}/deliveries"

    first = service.get(f"{path}?limit=3")
    second = service.get(f"{path}?limit=3&before={first.json()['next_before']}").json()

    rows = [*first.json()["deliveries"], *second["deliveries"]]
    assert [row["sequence"] for row in rows] == [5, 4, 3, 2, 1]
    assert second["next_before"] is None
    [attempt] = rows[0]["attempts"]
    assert (attempt["status"], attempt["reason"], attempt["duration_ms"]) == (500, None, 12)
    assert b"secret text" not in first.content
    failed = service.get(f"{path}?state=failed").json()["deliveries"]
    assert [row["sequence"] for row in failed] == [5, 3, 1]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "state=late", "before=x", "unknown=1"])
def test_a_wrong_parameter_is_rejected(service, webhook, query):
    assert service.get(f"{WEBHOOKS}/{webhook['id']}/deliveries?{query}").status_code == 400


def test_an_event_is_delivered_again(service, webhook, mongo):
    deliver_later(webhook, mongo, 1)
    path = f"{WEBHOOKS}/{webhook['id']}/deliveries"

    assert service.post(f"{path}/e1/redeliver").json() == {"state": "pending"}
    [row] = service.get(path).json()["deliveries"]
    assert (row["state"], row["is_redelivery"]) == ("pending", True)
    absent = service.post(f"{path}/absent/redeliver")
    assert (absent.status_code, absent.json()["error"]["code"]) == (404, "EVENT_NOT_FOUND")


def test_a_test_event_is_attempted_once_whatever_the_types_are(service, settings):
    settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1"]
    with receiving() as receiver:
        values = {"url": receiver.url, "types": ["conversation.purged"], "secret": SECRET}
        path = f"{WEBHOOKS}/{service.post(WEBHOOKS, values).json()['id']}"

        response = service.post(f"{path}/test")
        deliver()
        receiver.behaviour = lambda r: 503
        failed = service.post(f"{path}/test").json()
        deliver()

    assert response.status_code == 202
    [received, _] = receiver.requests
    assert received.id == response.json()["event_id"]
    assert (received.event["type"], received.event["data"]["version"]) == ("webhook.test", None)
    assert received.event["data"]["by"] == "service:message-service"
    assert Webhook(SECRET).verify(received.body, dict(received.headers))
    rows = service.get(f"{path}/deliveries").json()["deliveries"]
    assert {row["event_id"]: (row["state"], len(row["attempts"])) for row in rows} == {
        received.id: ("delivered", 1),
        failed["event_id"]: ("failed", 1),
    }
    assert log.read(0, limit=10) == []


def test_a_disabled_endpoint_gets_no_test_event(service, webhook):
    path = f"{WEBHOOKS}/{webhook['id']}"
    service.post(f"{path}/disable")

    response = service.post(f"{path}/test")

    assert (response.status_code, response.json()["error"]["code"]) == (409, "WEBHOOK_DISABLED")
    assert service.get(f"{path}/deliveries").json()["deliveries"] == []


def test_enabling_from_now_gives_up_what_is_outstanding(service, webhook, mongo):
    deliver_later(webhook, mongo, 1)
    path = f"{WEBHOOKS}/{webhook['id']}"
    service.post(f"{path}/deliveries/e1/redeliver")
    service.post(f"{path}/disable")

    service.post(f"{path}/enable", {"from": "now"})

    [row] = service.get(f"{path}/deliveries").json()["deliveries"]
    assert row["state"] == "failed"
