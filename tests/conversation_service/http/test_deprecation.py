"""Deprecated endpoints, parameters and fields: headers and documentation."""

from datetime import date

import pytest
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.test import APIRequestFactory

from conversation_service.http.deprecation import Deprecated, mark_deprecated
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.rendering import JSONResponse
from tests.documented import DOCUMENT, resolved
from tests.factories import PATH, client_of

MARKS = {
    "Deprecation": "@1796083200",
    "Sunset": "Sat, 01 Jan 2028 00:00:00 GMT",
    "Link": '</api/redoc>; rel="deprecation"; type="text/html"',
}
DATES = date(2026, 12, 1), date(2028, 1, 1)


class Body(serializers.Serializer):
    old = serializers.CharField()
    new = serializers.CharField()


class View(Endpoint):
    authentication_classes = ()
    permission_classes = ()
    deprecated = {"delete": Deprecated(*DATES), "post": Deprecated(*DATES, names={"old"})}

    @extend_schema(request=Body, responses={200: Body})
    def post(self, request):
        return JSONResponse(request.data)

    @extend_schema(responses={200: Body})
    def delete(self, request):
        return JSONResponse({})


def marks_of(response):
    return {name: response.headers[name] for name in MARKS if name in response.headers}


@pytest.mark.parametrize(
    ("method", "body", "is_marked"),
    [
        ("delete", None, True),
        ("post", {"old": "x"}, True),
        ("post", {"new": "old"}, False),
        ("post", ["old"], False),
    ],
)
def test_a_response_to_a_deprecated_request_has_the_dates(method, body, is_marked):
    request = getattr(APIRequestFactory(), method)("/", body, format="json")

    response = View.as_view()(request)

    assert marks_of(response) == (MARKS if is_marked else {})


def test_deprecated_operations_and_fields_are_documented():
    generator = SchemaGenerator(patterns=[path("x", View.as_view())])
    paths = generator.parse(None, public=True)
    document = {"paths": paths, "components": generator.registry.build({})}
    mark_deprecated(document, generator)

    operations = document["paths"]["/x"]
    assert operations["delete"]["deprecated"] is True
    assert "deprecated" not in operations["post"]
    properties = document["components"]["schemas"]["Body"]["properties"]
    assert properties["old"]["deprecated"] is True
    assert "deprecated" not in properties["new"]
    assert {"Deprecation", "Sunset"} <= operations["delete"]["responses"]["200"]["headers"].keys()


@pytest.mark.parametrize(
    ("query", "is_marked"),
    [
        ("page=1", True),
        ("per_page=5&page=1", True),
        ("page=x", True),  # a 400
        ("page=9999&per_page=100", True),
        ("limit=5", False),
        ("search=page", False),
        ("", False),
    ],
)
def test_a_list_by_page_numbers_is_deprecated(query, is_marked):
    response = client_of("reader").get(f"{PATH}?{query}")

    assert {*marks_of(response)} == ({*MARKS} if is_marked else set())


def test_the_links_to_other_pages_stay():
    client = client_of("reader")
    for _ in range(2):
        client.post(PATH, {"character_id": "luna"}, format="json")

    links = client.get(f"{PATH}?page=1&per_page=1").headers["Link"].split(", ")

    assert [link.rpartition("rel=")[2] for link in links] == [
        '"next"',
        '"deprecation"; type="text/html"',
    ]


def test_page_numbers_are_documented_as_deprecated():
    deprecated = {
        entry["name"]
        for entry in map(resolved, DOCUMENT["paths"][PATH]["get"]["parameters"])
        if entry.get("deprecated")
    }

    assert deprecated == {"page", "per_page"}
