"""Only the process with a valid lease writes an endpoint and its deliveries."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from conversation_service.mongodb.leases import LeaseLost
from conversations.webhooks import endpoints
from conversations.webhooks.leases import Lease
from tests.config.processes import eventually
from tests.conversations.webhooks.receivers import register
from tests.failpoints import failing


def test_a_slow_write_is_aborted_at_the_end_of_the_lease(mongo):
    endpoint = register("https://example.org/hook")
    lease = Lease(until=monotonic() + 0.5)

    def write() -> None:
        endpoints.endpoints().update_one({"_id": endpoint}, {"$set": {"description": "late"}})

    slow = failing(commands=["update"], blockConnection=True, blockTimeMS=1_500)
    with ThreadPoolExecutor(1) as pool, slow:
        writing = pool.submit(lease.insist, write)
        eventually(lambda: not lease.outlasts(-2.5))
        lease.lose()
        with pytest.raises(LeaseLost):
            writing.result()

    assert endpoints.get(endpoint)["description"] == ""
