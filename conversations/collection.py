"""The collection of conversations: how a statement addresses it.

Every statement that serves a user carries `user_id`: the database decides whether a conversation
is theirs, and a sharded cluster sends the statement to one shard. Tombstones of purged
conversations serve the change feed only.
"""

from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from pymongo import ReadPreference
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from conversation_service.mongodb.connection import Document, collection, first_batch
from conversations.exceptions import ConversationNotFound
from conversations.states import PURGED

ID_INDEX = "_id_"
STAFF_USER = "staff_user"
NOT_PURGED = {"status": {"$ne": PURGED}}
# Read only data that a majority of the replica set has: a failover cannot roll it back.
MAJORITY = {"level": "majority"}
# Retries when a document changes between a write and the read that explains its failure.
ATTEMPTS = 5


def conversations() -> Collection[Document]:
    return collection("conversations")


def committed() -> Collection[Document]:
    """Return the collection for reads of data that a majority of the replica set has.

    A response that confirms an earlier write must come from here: a failover rolls back data
    that only the primary has. The service's own acknowledged writes are visible, as each of them
    waits for the same majority.
    """
    return conversations().with_options(
        read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
    )


def await_majority(user_id: str) -> None:
    """Wait until a majority of the replica set has all data that the primary has now.

    MongoDB does this after an update that matches nothing. On a sharded cluster it does it on
    the shard of this user. Raises pymongo.errors.PyMongoError with `timeout` set.
    """
    nothing = {"_id": None, "user_id": user_id}
    conversations().update_one(nothing, {"$set": {"only": None}}, hint=ID_INDEX)


def find_one(
    where: Mapping[str, Any], projection: Mapping[str, Any], **find: Any
) -> Document | None:
    return next(
        iter(first_batch("conversations", where, projection=projection, limit=1, **find)), None
    )


def is_id(conversation_id: str) -> bool:
    return ObjectId.is_valid(conversation_id)


def existing_filter(conversation_id: str) -> dict[str, Any]:
    if not is_id(conversation_id):
        raise ConversationNotFound
    return {"_id": ObjectId(conversation_id), **NOT_PURGED}


def own_filter(user_id: str, conversation_id: str) -> dict[str, Any]:
    return {**existing_filter(conversation_id), "user_id": user_id}
