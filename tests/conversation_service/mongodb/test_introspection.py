import pytest
from django.db import connection
from pymongo import IndexModel


@pytest.fixture
def notes(mongo):
    yield mongo["notes"]
    mongo.drop_collection("notes")


def test_indexes_of_every_kind_can_be_read(notes):
    notes.create_indexes(
        [
            IndexModel([("text", "text")], name="words"),
            IndexModel([("owner", "hashed")], name="shards"),
            IndexModel("expires_at", name="expiry", expireAfterSeconds=0),
        ]
    )

    constraints = connection.introspection.get_constraints(None, "notes")

    assert constraints["shards"]["columns"] == ["owner"]
    assert constraints["expiry"]["orders"] == ["ASC"]
    assert constraints["words"]["orders"] == ["TEXT", "ASC"]
