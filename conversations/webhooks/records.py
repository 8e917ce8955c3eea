"""An endpoint's outstanding records, in the memory of the process that delivers to it."""

from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime
from threading import Event

from conversation_service.clock import naive_now
from conversations.webhooks import deliveries
from conversations.webhooks.deliveries import Attempt, Delivery
from conversations.webhooks.leases import Lease
from conversations.webhooks.window import Conversation

READ = 100  # due records at a time


class Records:
    """Counts the records that block each conversation's later events, and has the due records.

    Each change is first written to MongoDB, while the lease is valid. Raises LeaseLost.
    """

    def __init__(self, endpoint_id: str, lease: Lease) -> None:
        self.outstanding = 0  # without redeliveries
        self.redelivered = Event()  # another process has changed records
        self._endpoint_id = endpoint_id
        self._lease = lease
        self._blocked: dict[Conversation, int] = {}  # outstanding records
        self._due: deque[Delivery] = deque()
        self._next_due: datetime | None = naive_now()

    def load(self) -> None:
        self._blocked = self._lease.insist(lambda: deliveries.outstanding(self._endpoint_id))
        self.outstanding = sum(self._blocked.values())

    # Due records

    @property
    def has_due(self) -> bool:
        is_due = self._next_due is not None and self._next_due <= naive_now()
        return bool(self._due) or is_due or self.redelivered.is_set()

    def read(self, in_flight: Collection[Delivery]) -> None:
        """Read due records that are not in flight, if no record is left from the last read."""
        if self._due or not self.has_due:
            return
        self.redelivered.clear()
        now = naive_now()
        sent = {delivery.event_id for delivery in in_flight}
        limit = READ + len(sent)
        rows = self._lease.insist(lambda: deliveries.upcoming(self._endpoint_id, limit=limit))
        due = [row for row in rows if row["next_at"] <= now]
        self._due.extend(Delivery.from_record(row) for row in due if row["event_id"] not in sent)
        if len(due) < len(rows):
            self._next_due = rows[len(due)]["next_at"]
        else:
            self._next_due = now if len(rows) == limit else None

    def take(self, busy: Collection[Conversation]) -> Delivery | None:
        """Return a due record; its conversation is not busy."""
        for _ in range(len(self._due)):
            delivery = self._due.popleft()
            if delivery.conversation_id not in busy:
                return delivery
            self._due.append(delivery)
        return None

    # Changes

    def blocks(self, conversation: Conversation) -> bool:
        return conversation in self._blocked

    def add_waiting(self, waiting: Sequence[Delivery]) -> None:
        self._lease.insist(lambda: deliveries.record(self._endpoint_id, waiting=waiting))
        for delivery in waiting:
            self._block(delivery.conversation_id, 1)

    def add_failed(
        self, lane: Sequence[Delivery], attempt: Attempt, next_at: datetime | None
    ) -> None:
        """Record a failed event, and the events behind it in its lane, which wait."""
        first, *others = lane
        failed = (first, attempt, next_at)
        self._lease.insist(
            lambda: deliveries.record(self._endpoint_id, failed=failed, waiting=others)
        )
        self._block(first.conversation_id, len(lane))
        self._attempt_at(next_at)

    def postpone(self, delivery: Delivery, attempt: Attempt, next_at: datetime) -> None:
        self._lease.insist(
            lambda: deliveries.postpone(self._endpoint_id, delivery, attempt, next_at)
        )
        self._attempt_at(next_at)

    def finish(self, delivery: Delivery, attempt: Attempt, state: str) -> None:
        """End a record, and make the next record in its conversation due."""
        id_, conversation = self._endpoint_id, delivery.conversation_id
        self._lease.insist(lambda: deliveries.finish(id_, delivery, attempt, state))
        if delivery.is_redelivery:
            return
        self._block(conversation, -1)
        if self._blocked[conversation] > 0:
            if self._lease.insist(lambda: deliveries.promote(id_, conversation)):
                self._attempt_at(naive_now())
                return
            self._block(conversation, -self._blocked[conversation])  # deleted by hand
        del self._blocked[conversation]

    def _block(self, conversation: Conversation, records: int) -> None:
        self._blocked[conversation] = self._blocked.get(conversation, 0) + records
        self.outstanding += records

    def _attempt_at(self, next_at: datetime | None) -> None:
        if next_at:
            self._next_due = min(self._next_due or next_at, next_at)
