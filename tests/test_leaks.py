"""The check of logs and errors in tests/leaks.py finds each text that a client can send."""

import json
from dataclasses import replace

import pytest
import requests
from django.test import Client

from tests import leaks
from tests.conversation_service import loopback
from tests.factories import PATH, token

MARKER = "marker-of-this-test"
USER = {"Authorization": f"Bearer {token(MARKER)}"}
JSON = "application/json"
REQUESTS = {
    "title": {"data": {"title": MARKER}, "content_type": JSON},
    "tag": {"data": {"tags": [MARKER]}, "content_type": JSON},
    "key of an object": {"data": {"custom": {MARKER: 1}}, "content_type": JSON},
    "broken JSON": {"data": f'{{"title": "{MARKER}"', "content_type": JSON},
    "import": {"data": f'{{}}\n{{"title": "{MARKER}"}}', "content_type": "application/x-ndjson"},
    "form": {"data": {"password": MARKER}},
    "plain form": {
        "data": f"a=b&password={MARKER}",
        "content_type": "application/x-www-form-urlencoded",
    },
    "search": {"query_params": {"search": MARKER}},
    "idempotency key": {"headers": {"Idempotency-Key": MARKER}},
    "session": {"headers": {"Cookie": f"a=b; sessionid={MARKER}"}},
    "token": {"headers": {"Authorization": f"Bearer {MARKER}"}},
    "user id": {"headers": USER},
}


@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS)
def test_a_text_of_a_request_in_the_log_is_found(options):
    with leaks.requests_sent() as sent:
        Client().post(PATH, **options)

    with pytest.raises(AssertionError, match=MARKER):
        leaks.check_log(f"INFO a line with {MARKER}", sent)
    leaks.check_log("INFO a line with another text", sent)


def test_a_text_of_a_request_to_a_server_is_found():
    with leaks.requests_sent() as sent, loopback.serving(loopback.respond()) as address:
        requests.post(f"http://{address}/?q={MARKER}-a", json={"title": f"{MARKER}-b"}, timeout=60)

    for text in (f"{MARKER}-a", f"{MARKER}-b"):
        with pytest.raises(AssertionError, match=text):
            leaks.check_log(text, sent)


def test_a_stored_text_in_the_log_is_found():
    with pytest.raises(AssertionError, match=MARKER):
        leaks.check_log(MARKER, [], [{"title": MARKER}])


def test_ids_and_words_of_the_api_are_no_texts_of_a_user():
    body = json.dumps({"status": "archived", "character_id": "65f0c0ffee65f0c0ffee65f0"})
    with leaks.requests_sent() as sent:
        Client().post(PATH, body, content_type=JSON)

    leaks.check_log(f"POST {PATH}: {body}", sent)


def test_an_error_with_a_text_of_another_user_is_found(alice, bob):
    with leaks.requests_sent() as sent:
        alice.post(PATH, {"title": MARKER})
        assert bob.post(PATH, {"unknown": "x"}).status_code == 400
    leaks.check_errors(sent)

    sent.append(replace(sent[-1], error=f"A foreign text: {MARKER}"))
    with pytest.raises(AssertionError, match=MARKER):
        leaks.check_errors(sent)
