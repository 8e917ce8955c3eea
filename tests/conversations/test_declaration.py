"""Each field is declared once, in the model; everything else derives from it."""

import pytest
from django.db import models
from rest_framework.exceptions import ValidationError

from conversation_service import clock
from conversation_service.http.fields import StrictSerializer
from conversations import documents, schema
from conversations.declaration import Declaration
from conversations.models import Conversation
from conversations.serializers.fields import imported_field


def test_a_new_document_has_the_declared_fields_and_no_other():
    new = documents.new(user_id="alice", character_id="luna", now=clock.now())

    # Only an import writes `imported`.
    assert new.keys() == documents.FIELDS.keys() - {"imported"} | {"_id"}
    assert new["settings"].keys() == {n for n, s in documents.SETTINGS.items() if not s.since}
    assert documents.complete(new)["settings"].keys() == documents.SETTINGS.keys()
    assert new["metadata"].keys() == documents.METADATA.keys()


def test_the_validator_has_a_rule_for_each_declared_field():
    rules = schema.CONVERSATION["properties"]

    assert rules.keys() == documents.FIELDS.keys() | {"_id"}
    assert rules["settings"]["properties"].keys() == documents.SETTINGS.keys()
    assert rules["metadata"]["properties"].keys() == documents.METADATA.keys()


def test_new_documents_share_no_list_and_no_object():
    one, other = (
        documents.new(user_id="alice", character_id="luna", now=clock.now()) for _ in range(2)
    )

    shared = {
        name
        for name, value in (one | one["settings"]).items()
        if isinstance(value, list | dict) and value is (other | other["settings"])[name]
    }
    assert shared == set()


def test_the_orm_loads_only_fields_with_a_column():
    loaded = {field.name for field in Conversation._meta.concrete_fields}

    assert {"title", "tags", "hold"} <= loaded
    assert not loaded & {"title_source", "forked_from", "revisions", "keys", "search"}


@pytest.mark.parametrize("kind", [models.CharField, models.TextField])
def test_an_import_accepts_a_line_without_a_field_of_a_later_release(kind):
    def imported(line, **options):
        declared = Declaration(field=kind(max_length=3), is_public=True, **options)

        class Line(StrictSerializer):
            def get_fields(self):
                return {"language": imported_field(declared)}

        return Line().run_validation(line)

    assert imported({}, default="und", since="0.2.0") == {"language": "und"}
    assert imported({"language": "es"}, default="und", since="0.2.0") == {"language": "es"}
    for line in ({"language": "long"}, {"language": 1}, {"language": ""}):
        with pytest.raises(ValidationError):
            imported(line, default="und", since="0.2.0")
    with pytest.raises(ValidationError):
        imported({}, default="und")
