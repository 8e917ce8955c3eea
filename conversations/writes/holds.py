"""Legal holds: staff prevent that a conversation is purged.

Users must not see a hold. So unlike an update it has no version, and neither the history nor the
change feed shows it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from conversations.collection import (
    ID_INDEX,
    MAJORITY,
    NOT_HELD,
    conversations,
    find_one,
    own_filter,
)
from conversations.exceptions import ConversationNotFound
from conversations.writes.updates import NOW


def hold(user_id: str, conversation_id: str, *, by: str, reason: str) -> bool:
    """Hold a conversation; return False if already held. Raises ConversationNotFound."""
    held = {"by": {"$literal": by}, "reason": {"$literal": reason}, "at": NOW}
    return _write(user_id, conversation_id, NOT_HELD, [{"$set": {"hold": held}}])


def release(user_id: str, conversation_id: str, *, only: Mapping[str, Any] | None = None) -> bool:
    """End a hold that matches the filter `only`; return False if there was none.

    Raises ConversationNotFound.
    """
    held = {"hold": {"$ne": None}, **(only or {})}
    return _write(user_id, conversation_id, held, [{"$set": {"hold": None}}])


def _write(
    user_id: str,
    conversation_id: str,
    condition: Mapping[str, Any],
    pipeline: Sequence[Mapping[str, Any]],
) -> bool:
    own = own_filter(user_id, conversation_id)
    written = conversations().update_one({**own, **condition}, pipeline, hint=ID_INDEX)
    if written.matched_count:
        return True
    if find_one(own, {"_id": 1}, hint=ID_INDEX, readConcern=MAJORITY) is None:
        raise ConversationNotFound
    return False
