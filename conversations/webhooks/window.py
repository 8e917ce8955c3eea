"""The events after an endpoint's cursor, and how many requests it gets at a time."""

from collections import deque

from bson import ObjectId

from conversations.webhooks.deliveries import Delivery

SIZE = 1_000  # events that are read, and neither delivered nor recorded
SPAN = 10_000  # positions after the cursor: the most that a crash repeats

Conversation = ObjectId | None  # None: webhook.disabled, an event without a conversation


class Window:
    """The events that were read, and are neither delivered nor recorded.

    Each conversation has a lane, with its events in order. The first event can be in flight.
    Up to `position`, all events were read, or have a type that the endpoint does not get.
    """

    def __init__(self, cursor: int) -> None:
        self.position = cursor
        self._open: dict[int, None] = {}  # the positions in all lanes, in order
        self._lanes: dict[Conversation, deque[Delivery]] = {}
        self._ready: deque[Conversation] = deque()  # their first event can be sent

    @property
    def cursor(self) -> int:
        """The endpoint's new cursor: the position before the first event in a lane."""
        return next(iter(self._open)) - 1 if self._open else self.position

    @property
    def room(self) -> int:
        """The number of events to read next; 0 until half the window is free."""
        if len(self._open) > SIZE // 2 or self.position - self.cursor >= SPAN:
            return 0
        return SIZE - len(self._open)

    @property
    def is_ready(self) -> bool:
        return bool(self._ready)

    def add(self, delivery: Delivery) -> None:
        self._open[delivery.seq] = None
        lane = self._lanes.setdefault(delivery.conversation_id, deque())
        lane.append(delivery)
        if len(lane) == 1:
            self._ready.append(delivery.conversation_id)

    def take(self, busy: set[Conversation]) -> Delivery | None:
        """Return an event to send, in a conversation that is not busy with a redelivery."""
        for _ in range(len(self._ready)):
            conversation = self._ready.popleft()
            if conversation not in busy:
                return self._lanes[conversation][0]
            self._ready.append(conversation)
        return None

    def remove(self, delivery: Delivery) -> None:
        """Remove a delivered event. The next event in its lane becomes ready."""
        conversation = delivery.conversation_id
        lane = self._lanes[conversation]
        lane.popleft()
        del self._open[delivery.seq]
        if lane:
            self._ready.append(conversation)
        else:
            del self._lanes[conversation]

    def lane(self, first: Delivery) -> list[Delivery]:
        """Return the lane that begins with this event."""
        return [*self._lanes[first.conversation_id]]

    def remove_lane(self, first: Delivery) -> None:
        for delivery in self._lanes.pop(first.conversation_id):
            del self._open[delivery.seq]


class Ramp:
    """Limits the requests in flight after a start, or after the endpoint was enabled.

    The limit begins at 1. It doubles after as many successes as it allows requests. A failure
    resets it to 1. When it reaches the endpoint's maximum, the ramp has ended.
    """

    def __init__(self) -> None:
        self._has_ended = False
        self._limit = 1
        self._successes = 0

    def limit(self, maximum: int) -> int:
        return maximum if self._has_ended else min(self._limit, maximum)

    def ends_with_success(self, maximum: int) -> bool:
        """Count a success; return True if the ramp ends with it."""
        if self._has_ended:
            return False
        self._successes += 1
        if self._successes >= self._limit:
            self._limit, self._successes = self._limit * 2, 0
        self._has_ended = self._limit >= maximum
        return self._has_ended

    def fail(self) -> None:
        """Begin again, unless the ramp has ended."""
        self._limit, self._successes = 1, 0
