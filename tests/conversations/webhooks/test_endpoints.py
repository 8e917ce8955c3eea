"""Webhook endpoints in the database: what each operation leaves."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from pymongo.errors import WriteError

from conversations.events import log
from conversations.webhooks import deliveries, endpoints, secrets
from conversations.webhooks.deliveries import Delivery
from tests.conversations.webhooks.receivers import new_events

URL = "https://hooks.example.org/in"


def create(**values):
    return endpoints.create({"url": URL, **values}, created_by="staff:ana")


def test_a_new_endpoint_starts_at_the_end_of_the_log(mongo):
    endpoints.disable(create()[0]["_id"], endpoints.STAFF, by="staff:ana")  # an event

    endpoint, secret = create()

    assert endpoint["cursor"] == log.newest_seq() == 1
    assert len(secrets.key(secret)) == 32
    assert endpoints.live_secrets(endpoint) == [secret]
    assert endpoints.get(endpoint["_id"])["url"] == URL


def test_after_a_rotation_both_secrets_sign_for_a_day(mongo):
    endpoint, first = create()
    with time_machine.travel("2026-01-01T00:00:00Z", tick=False):
        _, second = endpoints.rotate_secret(endpoint["_id"])
    found = endpoints.get(endpoint["_id"])

    with time_machine.travel("2026-01-01T23:59:59Z", tick=False):
        assert endpoints.live_secrets(found) == [second, first]
    with time_machine.travel("2026-01-02T00:00:00Z", tick=False):
        assert endpoints.live_secrets(found) == [second]


def test_a_second_rotation_ends_the_oldest_secret(mongo):
    endpoint, _first = create()
    _, second = endpoints.rotate_secret(endpoint["_id"])
    rotated, third = endpoints.rotate_secret(endpoint["_id"])

    assert endpoints.live_secrets(rotated) == [third, second]


def test_disabling_publishes_one_event_each_time(mongo):
    id_ = create()[0]["_id"]

    for _ in range(2):
        endpoints.disable(id_, endpoints.GONE, by="service:webhooks")
        endpoints.disable(id_, endpoints.FAILING, by="service:webhooks")  # already disabled
        assert endpoints.get(id_)["disabled_reason"] == endpoints.GONE
        endpoints.enable(id_, from_now=False)

    events = log.read(0, limit=10)
    assert [event["_id"] for event in events] == [f"{id_}_disabled_1", f"{id_}_disabled_2"]
    assert {event["type"] for event in events} == {log.WEBHOOK_DISABLED}


def test_it_is_disabled_while_others_disable_and_enable_it(mongo):
    id_ = create()[0]["_id"]

    def alternate(number):
        for _ in range(20):
            assert endpoints.disable(id_, endpoints.STAFF, by="staff:ana")["state"] == "disabled"
            endpoints.enable(id_, from_now=False)

    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(alternate, range(3))] == [None] * 3


def test_a_failure_before_it_was_enabled_again_does_not_disable_it(mongo):
    id_ = create()[0]["_id"]
    endpoints.disable(id_, endpoints.STAFF, by="staff:ana")
    endpoints.enable(id_, from_now=False)

    found = endpoints.disable(id_, endpoints.GONE, by="service:webhooks", times=0)

    assert (found["state"], found["disabled_times"]) == ("enabled", 1)


def test_an_endpoint_is_enabled_at_its_position_or_at_the_end(mongo):
    id_ = create()[0]["_id"]
    endpoints.disable(id_, endpoints.STAFF, by="staff:ana")

    assert endpoints.enable(id_, from_now=False)["cursor"] == 0
    endpoints.disable(id_, endpoints.STAFF, by="staff:ana")
    enabled = endpoints.enable(id_, from_now=True)

    assert enabled["cursor"] == log.newest_seq() == 2
    assert enabled["ramp_from"] is not None


@pytest.mark.parametrize("name", sorted(endpoints.Endpoint.__required_keys__ - {"_id"}))
def test_the_database_rejects_an_endpoint_that_lacks_a_field(mongo, name):
    """Otherwise it would end the process that delivers to all endpoints."""
    id_ = create()[0]["_id"]

    with pytest.raises(WriteError):
        endpoints.endpoints().update_one({"_id": id_}, {"$unset": {name: True}})


@pytest.mark.parametrize("lease", [None, "x", {}, {"owner": "a"}, {"owner": 1, "until": None}])
def test_the_database_rejects_a_malformed_lease(mongo, lease):
    id_ = create()[0]["_id"]

    with pytest.raises(WriteError):
        endpoints.endpoints().update_one({"_id": id_}, {"$set": {"lease": lease}})


@pytest.mark.parametrize(
    "name", ["conversation_id", "format", "is_redelivery", "tries", "next_at", "attempts"]
)
def test_the_database_rejects_a_delivery_that_lacks_a_field(mongo, name):
    [event] = new_events(1, 1)
    delivery = Delivery.from_event({**event, "seq": 1, "published_at": event["at"]}, "standard")
    deliveries.record("we_1", waiting=[delivery])

    with pytest.raises(WriteError):
        deliveries.collection().update_one({}, {"$unset": {name: True}})


def test_deleting_an_endpoint_deletes_the_records_of_its_deliveries(mongo):
    id_, other = create()[0]["_id"], create()[0]["_id"]
    [event] = new_events(1, 1)
    delivery = Delivery.from_event({**event, "seq": 1, "published_at": event["at"]}, "standard")
    for each in (id_, other):
        deliveries.record(each, waiting=[delivery])

    deliveries.delete_endpoint(id_)

    assert [row["endpoint_id"] for row in deliveries.collection().find()] == [other]
    assert [endpoint["_id"] for endpoint in endpoints.list_all()] == [other]
