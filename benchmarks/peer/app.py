"""The usual alternative to this service: FastAPI, PyMongo's asynchronous API, Pydantic.

Four of our calls over our documents, with our fields in the answers. It has no history, no
preconditions, no idempotency, no rate limits; what it derives for search and sorting is simpler.
"""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import jwt
import orjson
from bson import ObjectId
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, BeforeValidator, Field
from pymongo import AsyncMongoClient, ReturnDocument

JWT_SECRET_KEY = os.environ["JWT_SECRET_KEY"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        os.environ["MONGODB_URL"], minPoolSize=5, maxPoolSize=20, tz_aware=True
    )
    app.state.conversations = client[os.environ["MONGODB_DATABASE"]].conversations
    yield
    await client.close()


app = FastAPI(lifespan=lifespan)


class LLMSettings(BaseModel):
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int = Field(2048, ge=1, le=4096)
    context_window: int = Field(4000, ge=1, le=8192)
    top_p: float = Field(0.9, ge=0, le=1)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    stop_sequences: list[Annotated[str, Field(max_length=64)]] = Field([], max_length=10)
    model: str | None = Field(None, max_length=128)
    reasoning_effort: str | None = Field(None, max_length=64)
    extra: dict[str, str | float | bool | None] = Field({}, max_length=16)


SETTINGS_OF_0_1_0 = [*LLMSettings.model_fields][:7]


class Metadata(BaseModel):
    message_count: int
    total_tokens: int
    total_input_tokens: int
    total_output_tokens: int
    first_message_at: datetime | None
    last_message_at: datetime | None
    last_activity: datetime
    created_at: datetime
    updated_at: datetime


class Retention(BaseModel):
    policy: str
    acts_at: datetime


HexId = Annotated[str, BeforeValidator(str)]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=50)]], Field(max_length=10)]


class Conversation(BaseModel):
    id: HexId = Field(validation_alias="_id")
    object: str = "conversation"
    user_id: str
    character_id: str
    character_status: str
    title: str
    title_source: str
    status: str
    pinned_at: datetime | None
    settings: LLMSettings
    settings_given: list[str] = SETTINGS_OF_0_1_0
    tags: list[str]
    custom: dict[str, str]
    metadata: Metadata
    archived_at: datetime | None
    deleted_at: datetime | None
    purge_at: datetime | None
    forked_from: HexId | None
    version: int
    is_archived: bool
    retention: Retention | None


class Pagination(BaseModel):
    total_count: int | None
    has_next: bool
    has_prev: bool
    next_cursor: str | None
    prev_cursor: str | None
    limit: int


class Page(BaseModel):
    conversations: list[Conversation]
    pagination: Pagination


class Create(BaseModel):
    character_id: str = Field(pattern=r"^[!-~]{1,255}$")
    title: Title | None = None
    settings: LLMSettings = LLMSettings()
    tags: Tags = []
    custom: dict[str, str] = {}


class Patch(BaseModel):
    title: Title | None = None
    tags: Tags | None = None


SHOWN = [name for name in Conversation.model_fields if name not in {"id", "is_archived"}]


async def user_id(authorization: Annotated[str, Header()]) -> str:
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), JWT_SECRET_KEY, ["HS256"])
        return str(claims["user_id"])
    except (jwt.PyJWTError, KeyError) as error:
        raise HTTPException(401) from error


User = Annotated[str, Depends(user_id)]


def shown(document: dict[str, Any]) -> dict[str, Any]:
    document["is_archived"] = document["status"] == "archived"
    purge_at = document["purge_at"]
    document["retention"] = {"policy": "purge", "acts_at": purge_at} if purge_at else None
    return document


def object_id(text: str) -> ObjectId:
    if not ObjectId.is_valid(text):
        raise HTTPException(404)
    return ObjectId(text)


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/api/v1/conversations", response_model=Page)
async def list_(
    user: User,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: str = "active",
    cursor: str | None = None,
) -> Any:
    wanted: dict[str, Any] = {"user_id": user, "status": status}
    if cursor:
        moment, last_id = orjson.loads(base64.urlsafe_b64decode(cursor))
        at = datetime.fromisoformat(moment)
        wanted["$or"] = [
            {"metadata.last_activity": {"$lt": at}},
            {"metadata.last_activity": at, "_id": {"$lt": ObjectId(last_id)}},
        ]
    found = app.state.conversations.find(wanted, SHOWN)
    found = found.sort([("metadata.last_activity", -1), ("_id", -1)]).limit(limit + 1)
    rows = await found.to_list()
    more, rows = len(rows) > limit, rows[:limit]
    return {
        "conversations": [shown(row) for row in rows],
        "pagination": {
            "total_count": None if more or cursor else len(rows),
            "has_next": more,
            "has_prev": cursor is not None,
            "next_cursor": cursor_after(rows[-1]) if more else None,
            "prev_cursor": None,
            "limit": limit,
        },
    }


def cursor_after(row: dict[str, Any]) -> str:
    position = [row["metadata"]["last_activity"], str(row["_id"])]
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


@app.get("/api/v1/conversations/{id}", response_model=Conversation)
async def get(id: str, user: User) -> Any:
    wanted = {"_id": object_id(id), "user_id": user}
    document = await app.state.conversations.find_one(wanted, SHOWN)
    if document is None:
        raise HTTPException(404)
    return shown(document)


@app.post("/api/v1/conversations", response_model=Conversation, status_code=201)
async def create(body: Create, user: User) -> Any:
    document = new(user, body)
    await app.state.conversations.insert_one(document)
    return shown(document)


@app.patch("/api/v1/conversations/{id}", response_model=Conversation)
async def patch(id: str, body: Patch, user: User) -> Any:
    changed = body.model_dump(exclude_none=True)
    now = datetime.now(UTC)
    document = await app.state.conversations.find_one_and_update(
        {"_id": object_id(id), "user_id": user},
        {
            "$set": changed | keys(changed) | {"metadata.updated_at": now, "changed_at": now},
            "$inc": {"version": 1},
        },
        projection=SHOWN,
        return_document=ReturnDocument.AFTER,
    )
    if document is None:
        raise HTTPException(404)
    return shown(document)


def keys(named: dict[str, Any]) -> dict[str, Any]:
    """Return what our indexes hold of a title and of tags."""
    found: dict[str, Any] = {}
    if "title" in named:
        found["title_key"] = named["title"].lower()
    if "tags" in named:
        found["tag_keys"] = [tag.lower() for tag in named["tags"]]
        found["tag_line"] = "\n".join(sorted(found["tag_keys"]))
    return found


def new(user: str, body: Create) -> dict[str, Any]:
    """Return a document that our validator accepts and our indexes hold."""
    now = datetime.now(UTC)
    title = body.title or body.character_id
    return {
        "_id": ObjectId(),
        "user_id": user,
        "character_id": body.character_id,
        "character_name": None,
        "character_status": "unverified",
        "title": title,
        "title_source": "user" if body.title else "auto",
        "status": "active",
        "previous_status": None,
        "pinned_at": None,
        "settings": body.settings.model_dump(),
        "settings_given": [*body.settings.model_fields_set],
        "tags": body.tags,
        **keys({"title": title, "tags": body.tags}),
        "search": [{"words": text.lower().split()} for text in [title, *body.tags]],
        "custom": body.custom,
        "metadata": {
            "message_count": 0,
            "total_tokens": 0,
            "total_input_tokens": 0,
            "total_output_tokens": 0,
            "first_message_at": None,
            "last_message_at": None,
            "last_activity": now,
            "created_at": now,
            "updated_at": now,
        },
        "archived_at": None,
        "deleted_at": None,
        "purge_at": None,
        "forked_from": None,
        "version": 1,
        "changed_at": now,
        "activity_sequence": 0,
        "activity_batch": None,
        "revisions_by_version": {},
        "revisions": [],
        "keys_by_scope": {},
        "keys": [],
        "only": None,
        "hold": None,
    }
