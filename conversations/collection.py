"""The collection `conversations`: its handles, and filters that statements share.

Every statement that serves a user carries `user_id`: the database decides about ownership, and a
sharded cluster sends the statement to a single shard. Purged conversations leave tombstones, which
only the change feed reads.
"""

from functools import partial
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import ReadPreference
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from conversation_service.mongodb import connection
from conversation_service.mongodb.connection import Document
from conversations.exceptions import ConversationNotFound
from conversations.states import PURGED

ID_INDEX = "_id_"
STAFF_USER = "staff_user"
CHARACTERS_INDEX = "user_characters"
NOT_PURGED = {"status": {"$ne": PURGED}}
NOT_HELD = {"hold": None}  # also matches a document without the field
# Read only data that a majority in the replica set has: a failover cannot roll back that data.
MAJORITY = {"level": "majority"}
# Retries when a document changes between a write and the read that explains its failure.
ATTEMPTS = 5


conversations = partial(connection.collection, "conversations")
find_one = partial(connection.find_one, "conversations")


def committed() -> Collection[Document]:
    """Return the collection with read concern "majority".

    A response that confirms an earlier write must come from here: a failover rolls back data that
    only the primary has. The service's own acknowledged writes are visible, as each waits for the
    same majority.
    """
    return conversations().with_options(
        read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
    )


def await_majority(user_id: str) -> None:
    """Wait until a majority in the replica set has all data that the primary has now.

    MongoDB does this after an update without a match; on a sharded cluster, on this user's shard.
    Raises pymongo.errors.PyMongoError with `timeout` set.
    """
    no_match = {"_id": None, "user_id": user_id}
    conversations().update_one(no_match, {"$set": {"only": None}}, hint=ID_INDEX)


def existing_filter(conversation_id: str) -> dict[str, Any]:
    try:
        id_ = ObjectId(conversation_id)
    except InvalidId:
        raise ConversationNotFound from None
    return {"_id": id_, **NOT_PURGED}


def own_filter(user_id: str, conversation_id: str) -> dict[str, Any]:
    return {**existing_filter(conversation_id), "user_id": user_id}
