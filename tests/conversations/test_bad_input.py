"""Invalid bodies are rejected, and no part of them is stored."""

import gzip

import pytest

from tests.factories import PATH, conversation

NOT_STRINGS = [1, 1.5, True, [], {"$gt": ""}]


def refused(response, code="VALIDATION_ERROR"):
    body = response.json()
    assert response.status_code == 400, body
    assert body["error"]["code"] == code
    return {error["pointer"]: error["code"] for error in body["error"]["details"]["errors"]}


# Blanks, format characters, fillers, combining marks and noncharacters.
INVISIBLE = [
    "\u3164", "\u200b", "\u2800\u00ad", "\ufe0f", "\u2065", "\ufff0", "\u200d", "\u115f", "\u202e",
    "\u0301", "\u0301\u0302", "\u093e", "\u20dd", "\u00a0\u0301", "\u3099", "\U000e0100",
    "\ufffe", "\uffff", "\ufdd0", "\ufdef", "\U0001fffe", "\U0010ffff", "\u0301\ufdd0",
]  # fmt: skip
CONTROLS = "\n\r\t\v\f\x00\x1b\x1c\x85\u2028\u2029"

FIELDS = [
    *[({"title": value}, "/title", "invalid") for value in NOT_STRINGS],
    ({"title": ""}, "/title", "blank"),
    ({"title": "   "}, "/title", "blank"),
    ({"title": "x" * 201}, "/title", "max_length"),
    ({"title": "bell\a"}, "/title", "control"),
    ({"title": "unit\x1fhere"}, "/title", "control"),
    *(({"title": text}, "/title", "invisible") for text in INVISIBLE),
    ({"title": "nul\0"}, "/title", "control"),
    ({"tags": "casual"}, "/tags", "invalid"),
    ({"tags": {"$ne": 1}}, "/tags", "invalid"),
    ({"tags": [1]}, "/tags/0", "invalid"),
    ({"tags": ["ok", ""]}, "/tags/1", "blank"),
    ({"tags": ["x" * 51]}, "/tags/0", "max_length"),
    ({"tags": ["a,b"]}, "/tags/0", "comma"),
    ({"tags": ["nul\0"]}, "/tags/0", "control"),
    *(({"tags": [text]}, "/tags/0", "invisible") for text in INVISIBLE),
    *(({"tags": [f"a{c}b"]}, "/tags/0", "control") for c in CONTROLS),
    *(({"tags": [text]}, "/tags/0", "control") for text in ("a\n", "\na", "a\u2028", "a\t")),
    ({"tags": ["\n"]}, "/tags/0", "blank"),
    ({"tags": [str(n) for n in range(11)]}, "/tags", "max_length"),
    ({"tags": [None]}, "/tags/0", "null"),
    ({"custom": []}, "/custom", "invalid"),
    ({"custom": {"k": 1}}, "/custom/k", "invalid"),
    ({"custom": {"k": {"$gt": ""}}}, "/custom/k", "invalid"),
    ({"custom": {"k": "x" * 513}}, "/custom/k", "max_length"),
    ({"custom": {"k": "\0"}}, "/custom/k", "control"),
    ({"custom": {"$where": "1"}}, "/custom/$where", "key"),
    ({"custom": {"a.b": "1"}}, "/custom/a.b", "key"),
    ({"custom": {"a/b": "1"}}, "/custom/a~1b", "key"),
    ({"custom": {"~1": 1}}, "/custom/~01", "key"),
    ({"custom": {"": "1"}}, "/custom/", "key"),
    ({"custom": {"k\n": "1"}}, "/custom/k\n", "key"),
    ({"custom": {"k" * 65: "1"}}, f"/custom/{'k' * 65}", "key"),
    ({"custom": {str(n): "" for n in range(17)}}, "/custom", "max_length"),
    ({"settings": []}, "/settings", "invalid"),
    ({"settings": {"temperature": "1"}}, "/settings/temperature", "invalid"),
    ({"settings": {"temperature": True}}, "/settings/temperature", "invalid"),
    ({"settings": {"temperature": -0.1}}, "/settings/temperature", "min_value"),
    ({"settings": {"temperature": 2.1}}, "/settings/temperature", "max_value"),
    ({"settings": {"max_tokens": 0}}, "/settings/max_tokens", "min_value"),
    ({"settings": {"max_tokens": 4097}}, "/settings/max_tokens", "max_value"),
    ({"settings": {"max_tokens": 2**63}}, "/settings/max_tokens", "max_value"),
    ({"settings": {"max_tokens": 2**64}}, "/settings/max_tokens", "invalid"),
    ({"settings": {"max_tokens": 10.5}}, "/settings/max_tokens", "invalid"),
    ({"settings": {"max_tokens": False}}, "/settings/max_tokens", "invalid"),
    ({"settings": {"context_window": 8193}}, "/settings/context_window", "max_value"),
    ({"settings": {"top_p": 1.01}}, "/settings/top_p", "max_value"),
    ({"settings": {"frequency_penalty": -2.1}}, "/settings/frequency_penalty", "min_value"),
    ({"settings": {"presence_penalty": 2.1}}, "/settings/presence_penalty", "max_value"),
    ({"settings": {"stop_sequences": ["x"] * 11}}, "/settings/stop_sequences", "max_length"),
    ({"settings": {"stop_sequences": ["x" * 65]}}, "/settings/stop_sequences/0", "max_length"),
    ({"settings": {"stop_sequences": [""]}}, "/settings/stop_sequences/0", "blank"),
]


@pytest.mark.parametrize(("body", "pointer", "code"), FIELDS)
def test_create_and_patch_reject_the_same_values(alice, body, pointer, code):
    created = conversation(alice)

    for response in (
        alice.post(PATH, {"character_id": "luna"} | body),
        alice.patch(f"{PATH}/{created['id']}", body),
    ):
        errors = refused(response)
        assert errors == {pointer: code}
    assert alice.get(PATH).json()["conversations"] == [created]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/character_id", "required"),
        ({"character_id": None}, "/character_id", "null"),
        *[({"character_id": value}, "/character_id", "invalid") for value in NOT_STRINGS],
        ({"character_id": ""}, "/character_id", "blank"),
        ({"character_id": "a b"}, "/character_id", "invalid"),
        ({"character_id": "luna\n"}, "/character_id", "invalid"),
        ({"character_id": "x" * 256}, "/character_id", "invalid"),
    ],
)
def test_the_character_must_have_an_id(alice, body, pointer, code):
    assert refused(alice.post(PATH, body)) == {pointer: code}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"title": None}, "/title"),
        ({"pinned": None}, "/pinned"),
        ({"pinned": "true"}, "/pinned"),
        ({"pinned": 1}, "/pinned"),
        ({"status": "deleted"}, "/status"),
        ({"status": {"$ne": "active"}}, "/status"),
        ({"status": None}, "/status"),
        ({"tags": ["a"], "tags_add": ["b"]}, "/tags"),
        ({"tags_add": None}, "/tags_add"),
    ],
)
def test_patch_rejects_more_values_than_create(alice, body, pointer):
    created = conversation(alice)

    assert list(refused(alice.patch(f"{PATH}/{created['id']}", body))) == [pointer]


@pytest.mark.parametrize(
    "name",
    ["titel", "id", "user_id", "status", "version", "metadata", "$set", "a.b", "__proto__", ""],
)
def test_unknown_fields_are_rejected(alice, name):
    response = alice.post(PATH, {"character_id": "luna", name: "x"})

    assert refused(response, "UNKNOWN_FIELD") == {f"/{name}": "unknown_field"}


def test_unknown_settings_are_rejected(alice):
    response = alice.post(PATH, {"character_id": "luna", "settings": {"temprature": 1}})

    assert refused(response, "UNKNOWN_FIELD") == {"/settings/temprature": "unknown_field"}


def test_each_faulty_key_and_value_of_an_object_is_named(alice):
    wrong = {"a.b": "1", "b/c": 2, "k": 3, "ok": "4"}

    errors = refused(alice.post(PATH, {"character_id": "luna", "custom": wrong}))

    assert errors == {"/custom/a.b": "key", "/custom/b~1c": "key", "/custom/k": "invalid"}


def test_an_unknown_field_beside_another_fault_is_a_validation_error(alice):
    response = alice.post(PATH, {"titel": "x"})

    assert refused(response) == {
        "/character_id": "required",
        "/titel": "unknown_field",
    }


WITHOUT_FIELDS = {
    **{name: ("POST", f"/{name}") for name in ("archive", "restore", "pin", "unpin")},
    "trash": ("DELETE", ""),
    "purge": ("DELETE", "?mode=purge"),
}


@pytest.mark.parametrize("name", WITHOUT_FIELDS)
def test_a_request_without_fields_rejects_each_field(alice, bob, name):
    method, end = WITHOUT_FIELDS[name]
    states = ["deleted"] if name in {"restore", "purge"} else []
    created = conversation(alice, *states)
    path = f"{PATH}/{created['id']}"

    def send(client, body, content_type="application/json"):
        return client.generic(method, path + end, body, content_type=content_type)

    unknown = refused(send(alice, b'{"mode": "purge", "a/b": null}'), "UNKNOWN_FIELD")
    assert unknown == {"/mode": "unknown_field", "/a~1b": "unknown_field"}
    for body in (b"[]", b"[1]", b"null", b'"x"', b"1"):
        assert list(refused(send(alice, body))) == [""]
    assert send(alice, b"{").status_code == 400
    assert send(alice, b"a=b", "application/x-www-form-urlencoded").status_code == 415
    assert send(alice, b" " * 65_537).status_code == 413
    assert send(bob, b'{"mode": "purge"}').status_code == 404
    assert alice.get(path).json() == created
    assert send(alice, b"{}").status_code in {200, 204}


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
def test_a_request_without_fields_needs_no_body(alice, content_type):
    path = f"{PATH}/{conversation(alice)['id']}"

    for method, end in (("POST", "/pin"), ("POST", "/archive"), ("DELETE", "")):
        assert alice.generic(method, path + end, content_type=content_type).status_code == 200


@pytest.mark.parametrize("body", ["[]", '"x"', "1", "null", "[{}]"])
def test_a_body_must_be_an_object(alice, body):
    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert list(refused(response)) == [""]


def test_the_number_of_reported_errors_is_limited(alice):
    response = alice.post(PATH, {f"field {n:04}" * 50: 1 for n in range(1000)} | {"x": "y"})

    assert response.status_code == 413 or len(response.content) < 20_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'title': 1}",
        b'{"character_id": "luna", "settings": {"temperature": NaN}}',
        b'{"character_id": "luna", "settings": {"temperature": Infinity}}',
        b'{"character_id": "luna", "settings": {"temperature": 1e999}}',
        b'{"character_id": "\\ud800"}',
        b'{"character_id": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"character_id": "luna"}'.encode("utf-16"),
        b"[" * 2000 + b"]" * 2000,
        b'{"character_id": "luna"}{}',
    ],
)
def test_a_body_that_is_not_json_is_rejected(alice, body):
    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"
    assert alice.get(PATH).json()["conversations"] == []


# Each with the start of the error, in English and in Spanish, and the column of the fault.
NOT_JSON = [
    *(
        (
            f'{{"custom": {{"k": {number}}}}}',
            "The body has a number beyond",
            "El cuerpo tiene un",
            18,
        )
        for number in ("1E400", "-1e999", "9" * 400)
    ),
    *(
        (f'{{"title": {word}}}', "The body has NaN or Infinity", "El cuerpo tiene NaN o", 11)
        for word in ("NaN", "Infinity", "nan")
    ),
    ('{"tags": [-Infinity]}', "The body has NaN or Infinity", "El cuerpo tiene NaN o", 12),
    (
        "[" * 1_100 + "]" * 1_100,
        "The body is nested too deeply",
        "El cuerpo tiene demasiados",
        1_026,
    ),
    ('{"title": "x\\ud83d"}', "The body has half of a", "El cuerpo tiene la mitad", 13),
    ("{'title': 1}", "The body is not valid JSON", "El cuerpo no es JSON", 2),
    ('{"titulo_ñ😀": 1,}', "The body is not valid JSON", "El cuerpo no es JSON", 16),
]


@pytest.mark.parametrize(("body", "english", "spanish", "column"), NOT_JSON)
def test_each_fault_of_json_has_its_text_and_its_place(alice, body, english, spanish, column):
    path = f"{PATH}/{conversation(alice)['id']}"

    for language, text, place in (
        ("en", english, f"(line 3, column {column})"),
        ("es", spanish, f"(línea 3, columna {column})"),
    ):
        headers = {"Accept-Language": language}
        for method, address in (("POST", PATH), ("PATCH", path), ("POST", f"{PATH}/bulk")):
            response = alice.generic(
                method, address, "\n \n" + body, content_type="application/json", headers=headers
            )
            assert response.status_code == 400
            assert response.json()["detail"].startswith(text)
            assert place in response.json()["detail"]


REPEATED = [
    ('{"character_id": "luna", "title": "a", "title": "b"}', "/title"),
    ('{"character_id": "luna", "title": "a", "title": "a"}', "/title"),
    ('{"character_id": "luna", "titl\\u0065": "a:b", "title": "{}:"}', "/title"),
    ('{"custom": {"k": "\\":", "k": "1"}, "character_id": "luna"}', "/custom/k"),
    ('{"settings": {"extra": {"a/b~": 1, "a/b~": 1}}}', "/settings/extra/a~1b~0"),
    ('{"tags": [[{"ñ": {}}, {"a": 1}, {"": 1, "": {"b": 1, "b": 2}}]]}', "/tags/0/2/"),
    ('{"x": {"x": {"x": 1}}, "y": [], "z": {"\\\\": 1, "\\\\": "\\\\"}}', "/z/\\"),
    ('[1, {"a": 1, "a": 1}]', "/1/a"),
    (f'{{"{"k" * 200}": 1, "{"k" * 200}": 1}}', f"/{'k' * 99}"),
    ('{"a":' * 500 + '{"b": 1, "b": 1}' + "}" * 500, "/a" * 50),
]


@pytest.mark.parametrize(("body", "pointer"), REPEATED)
def test_a_repeated_key_is_named(alice, body, pointer):
    created = conversation(alice)

    for method, path in (
        ("POST", PATH),
        ("PATCH", f"{PATH}/{created['id']}"),
        ("POST", f"{PATH}/bulk"),
        ("POST", f"{PATH}/{created['id']}/pin"),
        ("DELETE", f"{PATH}/{created['id']}"),
    ):
        response = alice.generic(method, path, body, content_type="application/json")
        assert refused(response) == {pointer: "repeated"}
    assert alice.get(PATH).json()["conversations"] == [created]


def test_a_repeated_key_in_the_deepest_json_is_rejected(alice):
    body = '{"a":' * 1_020 + '{"b": 1, "b": 1}' + "}" * 1_020

    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert response.status_code == 400


@pytest.mark.parametrize(
    "value",
    [
        '":"',
        '"\\":\\":"',
        '"\\\\"',
        '"{\\"a\\": 1, \\"a\\": 2}"',
        '"\\u003a\\u0022:"',
        '"https://a:b@c:8/"',
    ],
)
def test_equal_keys_in_different_objects_and_colons_in_texts_are_no_repetition(alice, value):
    body = (
        f'{{"character_id": "luna", "title": {value}, "custom": {{"title": {value}, "k": {value}}},'
        f'"settings": {{"extra": {{"title": {value}, "k": {value}}}}}}}'
    )

    created = alice.generic("POST", PATH, body, content_type="application/json")

    assert created.status_code == 201
    assert created.json()["custom"]["k"] == created.json()["title"]


def test_a_huge_integer_is_named_at_its_place(alice):
    rule = "Use an integer from -(2^53 - 1) to 2^53 - 1."
    for number in (2**64, -(2**64), 10**300, -(2**63) - 1):
        body = {"character_id": "luna", "settings": {"max_tokens": number}}
        [error] = alice.post(PATH, body).json()["error"]["details"]["errors"]
        assert (error["pointer"], error["message"]) == ("/settings/max_tokens", rule)


def test_half_of_a_surrogate_pair_is_named(alice):
    for half in (rb"\ud83d", rb"\ude80", rb"\ude80\ud83d", rb"\\\ud83d x"):
        body = b'{"character_id": "luna", "title": "cut %s"}' % half
        response = alice.generic("POST", PATH, body, content_type="application/json")

        assert response.status_code == 400
        assert "half of a surrogate pair" in response.json()["error"]["message"]
    body = rb'{"character_id": "luna", "title": "\ud83d\ude80 \\ud83d"}'
    response = alice.generic("POST", PATH, body, content_type="application/json")
    assert response.json()["title"] == "\U0001f680 \\ud83d"


def test_the_rule_for_tags_is_in_the_error(alice):
    for tag in ("a,b", "a\nb"):
        response = alice.post(PATH, {"character_id": "luna", "tags": [tag]})

        [error] = response.json()["error"]["details"]["errors"]
        rule = "Use printable characters in a tag, without commas and line breaks."
        assert error["message"] == rule


@pytest.mark.parametrize("name", ["tags", "tags_add", "tags_remove"])
def test_a_tag_with_a_line_break_is_rejected_in_every_request(alice, name):
    created = conversation(alice, tags=["a b"])
    bulk = {"action": "tag", "tags": ["a\nb"], "ids": [created["id"]]}

    errors = refused(alice.patch(f"{PATH}/{created['id']}", {name: ["a\nb"]}))
    assert errors == {f"/{name}/0": "control"}
    assert refused(alice.post(f"{PATH}/bulk", bulk)) == {"/tags/0": "control"}
    assert refused(alice.get(PATH, {"tags": "a\nb"})) == {"/tags/0": "control"}
    assert alice.get(f"{PATH}/{created['id']}").json()["tags"] == ["a b"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'\xef\xbb\xbf{"character_id": "luna"}', "Send the body without a byte order mark (BOM)."),
        ('{"character_id": "luna"}'.encode("utf-16"), "The body is not in UTF-8."),
        ('{"title": "Café"}'.encode("latin-1"), "The body is not in UTF-8."),
        (b"{", "The body is not valid JSON (line 1, column 2)."),
    ],
)
def test_the_error_names_what_is_wrong_with_a_body(alice, body, detail):
    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert response.json()["detail"] == detail


def test_deep_nesting_is_rejected(alice):
    nested = '{"a":' * 300 + "1" + "}" * 300
    body = f'{{"character_id": "luna", "custom": {nested}}}'

    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert list(refused(response)) == ["/custom/a"]


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ("text/plain", {}),
        ("application/x-www-form-urlencoded", {}),
        ("multipart/form-data; boundary=x", {}),
        ("application/json; charset=latin-1", {}),
        ("application/json; charset=utf-16", {}),
        ("", {}),
        ("application/json", {"Content-Encoding": "gzip"}),
        ("application/json", {"Content-Encoding": "br"}),
    ],
)
def test_only_json_is_accepted(alice, content_type, headers):
    bomb = gzip.compress(b'{"character_id": "luna"}')

    response = alice.generic("POST", PATH, bomb, content_type=content_type, headers=headers)

    assert response.status_code == 415
    assert response.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=UTF-8", "application/merge-patch+json", "Application/JSON"],
)
def test_other_json_media_types_are_accepted(alice, content_type):
    created = conversation(alice)

    response = alice.generic(
        "PATCH", f"{PATH}/{created['id']}", '{"title": "New"}', content_type=content_type
    )

    assert response.json()["title"] == "New"


def test_a_body_over_64_kib_is_rejected(alice):
    body = b'{"character_id": "luna", "title": "' + b"x" * 64 * 1024 + b'"}'

    response = alice.generic("POST", PATH, body, content_type="application/json")

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_a_body_without_content_length_is_rejected(alice):
    response = alice.post(PATH, headers={"Transfer-Encoding": "chunked"})

    assert response.status_code == 411
    assert response.json()["error"]["code"] == "LENGTH_REQUIRED"
