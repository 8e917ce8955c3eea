"""manage.py deliver_webhooks as a process: changes, signals, other processes, a lost MongoDB."""

import signal
import urllib.request
from datetime import timedelta
from threading import Event
from time import sleep

from conversation_service import clock
from conversation_service.development.process import free_port
from conversations.webhooks import deliveries, endpoints, leases
from tests.config.processes import eventually
from tests.conversation_service import loopback
from tests.conversations.webhooks.receivers import (
    append,
    by_conversation,
    delivering,
    receiving,
    register,
)
from tests.failpoints import failing


def stored(endpoint_id):
    return endpoints.endpoints().find_one({"_id": endpoint_id})


def is_leased(endpoint_id):
    return "lease" in stored(endpoint_id)


def test_a_running_process_notices_new_changed_disabled_enabled_and_deleted_endpoints(mongo):
    with receiving() as first, receiving() as second, receiving() as moved, delivering(mongo):
        one, two = register(first.url), register(second.url)
        eventually(lambda: is_leased(one) and is_leased(two))
        ids = append(conversations=3)
        eventually(lambda: {*ids} == {*first.ids} == {*second.ids})

        endpoints.endpoints().update_one({"_id": one}, {"$set": {"url": moved.url}})
        eventually(lambda: append() and moved.requests)

        endpoints.endpoints().update_one({"_id": one}, {"$set": {"state": "disabled"}})
        eventually(lambda: not is_leased(one))
        [late] = append()
        eventually(lambda: late in second.ids)
        assert late not in moved.ids

        endpoints.endpoints().update_one({"_id": one}, {"$set": {"state": "enabled"}})
        eventually(lambda: late in moved.ids)

        moved.behaviour = lambda r: 500
        append()
        eventually(lambda: deliveries.collection().count_documents({"endpoint_id": one}))
        endpoints.endpoints().delete_one({"_id": one})
        eventually(lambda: not deliveries.collection().count_documents({"endpoint_id": one}))
        [last] = append()
        eventually(lambda: last in second.ids)


def test_a_running_process_notices_that_an_endpoint_was_disabled_and_enabled_at_once(mongo):
    with receiving(lambda r: 500) as receiver, delivering(mongo):
        endpoint = register(receiver.url)
        append(versions=3)
        records = deliveries.collection()
        eventually(lambda: records.count_documents({"state": "waiting"}) == 2)
        conversation = records.find_one()["conversation_id"]
        receiver.behaviour = lambda r: 204
        endpoints.disable(endpoint, endpoints.STAFF, by="staff:ana")
        deliveries.enable(endpoint, from_now=True)
        [new] = append(first=4, ids=[conversation])
        eventually(lambda: receiver.ids[-1:] == [new])


def test_a_running_process_notices_a_redelivery(mongo):
    with receiving() as receiver, delivering(mongo):
        endpoint = register(receiver.url)
        [id_] = append()
        eventually(lambda: stored(endpoint)["cursor"] == 1)
        for count in (2, 3):
            deliveries.redeliver(endpoint, id_)
            eventually(lambda: deliveries.read(endpoint, id_)["state"] == "delivered")
            assert receiver.ids == count * [id_]


def test_sigterm_ends_it_after_the_requests_in_flight(mongo):
    arrived, release = Event(), Event()

    def wait(received):
        arrived.set()
        release.wait()
        return 204

    with receiving(wait) as receiver, delivering(mongo) as (process, lines):
        endpoint = register(receiver.url)
        ids = append(conversations=5)
        arrived.wait()
        process.send_signal(signal.SIGTERM)
        eventually(lambda: "Stopping" in "".join(lines))
        release.set()
        assert process.wait() == 0

    assert receiver.ids == ids[:1]
    found = stored(endpoint)
    assert (found["cursor"], found["delivered"]) == (1, 1)
    assert not is_leased(endpoint)


def test_another_process_takes_over_when_the_lease_of_a_killed_one_has_ended(mongo):
    with receiving() as receiver:
        endpoint = register(receiver.url)
        with delivering(mongo):
            eventually(lambda: is_leased(endpoint))
        ids = append(conversations=3, versions=2)
        former = stored(endpoint)["lease"]["owner"]
        with delivering(mongo):
            ended = clock.now() - timedelta(seconds=1)
            endpoints.endpoints().update_one({}, {"$set": {"lease.until": ended}})
            eventually(lambda: {*ids} == {*receiver.ids})
            assert not leases.is_owner(stored(endpoint), former)


def test_two_processes_share_the_endpoints_until_one_ends(mongo):
    def owned():
        owners = [each["lease"]["owner"] for each in endpoints.list_all() if "lease" in each]
        return sorted(owners.count(owner) for owner in {*owners})

    with receiving() as receiver, delivering(mongo):
        for _ in range(3):
            register(receiver.url)
        eventually(lambda: owned() == [3])
        with delivering(mongo) as (second, _):
            eventually(lambda: owned() == [1, 2])
            ids = append(conversations=4, versions=5)
            eventually(lambda: len(receiver.requests) == 3 * len(ids))
            second.send_signal(signal.SIGTERM)
            assert second.wait() == 0
        eventually(lambda: owned() == [3])

    for versions in by_conversation(receiver.ids).values():
        assert sorted(versions) == [n for n in range(1, 6) for _ in range(3)]


def test_bad_endpoints_delay_no_other_endpoint(mongo):
    large = (200, {}, bytes(100_000_000))
    with (
        loopback.serving(loopback.trickle) as trickling,
        receiving(lambda r: 500) as failing_one,
        receiving(lambda r: (302, {"Location": "http://169.254.169.254/"}, b"")) as redirecting,
        receiving(lambda r: large) as endless,
        receiving() as good,
        receiving() as other,
    ):
        urls = [receiver.url for receiver in (failing_one, redirecting, endless, good, other)]
        ids = [register(url) for url in [f"http://{trickling}/hook", *urls]]
        with delivering(mongo):
            eventually(lambda: all(map(is_leased, ids)))
            sent = append(conversations=20, versions=5)
            for receiver in (good, other, endless):
                eventually(lambda receiver=receiver: {*sent} == {*receiver.first_successes})
                found = by_conversation(receiver.first_successes)
                assert {*map(tuple, found.values())} == {(1, 2, 3, 4, 5)}


def test_it_waits_while_mongodb_is_unavailable_and_says_so_once(mongo):
    with receiving() as receiver, delivering(mongo) as (_, lines):
        register(receiver.url)
        first = append()
        eventually(lambda: receiver.ids == first)
        with failing(closeConnection=True):
            eventually(lambda: "deliveries wait" in "".join(lines))
        second = append()
        eventually(lambda: receiver.ids == first + second)
        eventually(lambda: "deliveries continue" in "".join(lines))

    assert "".join(lines).count("deliveries wait") == 1


def test_it_serves_its_metrics_and_its_health(mongo):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with receiving() as receiver, delivering(mongo, "--port", str(port)):
        endpoint = register(receiver.url)
        append()
        eventually(lambda: receiver.requests)

        def metrics():
            with urllib.request.urlopen(f"{address}/metrics") as response:
                return response.read().decode()

        eventually(lambda: 'webhook_attempts_total{outcome="delivered"} 1.0' in metrics())
        assert "webhook_pending 0.0" in metrics()
        behind = f'webhook_behind_events{{endpoint="{endpoint}"}} '
        eventually(lambda: f"{behind}0.0" in metrics())
        receiver.behaviour = lambda r: sleep(0.01) or 204
        append(conversations=300, versions=5)
        eventually(lambda: float(metrics().partition(behind)[2].split()[0]) > 100)
        deliveries.delete_endpoint(endpoint)
        eventually(lambda: behind not in metrics())
        with urllib.request.urlopen(f"{address}/healthz") as response:
            assert response.status == 200
