"""If-Match and If-None-Match, also with the tags that proxies change."""

import re

import pytest

from conversation_service.development.process import free_port
from conversation_service.development.stand_ins.characters import characters
from tests.conversations.test_internal import put, report, service_with
from tests.factories import PATH, conversation

CODINGS = ["gzip", "br", "zstd", "deflate", "df"]
CHANGED_BY_PROXIES = [
    *('W/"v1"', '"v1;gzip"', 'W/"v1;gzip"', '"v1--gzip"', 'W/"v1--gzip"', '"v1--br"'),
    *(f'"v1-{coding}"' for coding in CODINGS),
    *(f'W/"v1-{coding}"' for coding in CODINGS),
]
LISTS = [
    *('"v1"', '"v9", "v1"', 'W/"x", W/"v1"', '"v9",W/"v1-gzip"', '"a,b" , "v1"'),
    *('\t"v1"\t', '"v1",', ',"v1"', ',, "v1" ,,', '"v1", , "v2"', "*", " * ", '"\xe9", "v1"'),
]
OTHERS = [
    *('"v2"', 'W/"v2"', '"v0"', '"v01"', '"v-1"', '"v1.0"', '"V1"', '"1"', '""', 'W/""'),
    *('"v1-"', '"v1-pdf"', '"v1gzip"', '"v1---gzip"', '"v1-gzip-x"', '"v1;x"', '"v1."', '"*"'),
    *('"v99999999999999999999"', '"v\xb2"', '"5f2c"', '"v1x", "v2"'),
]
MALFORMED = [
    *("v1", '"v1', 'v1"', "1", "", " ", ",", "W/v1", 'w/"v1"', 'W/ "v1"', "'v1'", "W/", "**"),
    *('"v1" "v2"', '*, "v1"', '"v1", *', '"v1"; "v2"', '"v 1"', '"v1"-gzip', '"a"b"', '"v1", v2'),
]


def writes():
    """Every request that takes If-Match, for a conversation in a state that accepts it."""
    return {
        "patch": ((), lambda c, p, **o: c.patch(p, {"title": "New"}, **o)),
        "duplicate": ((), lambda c, p, **o: c.post(f"{p}/duplicate", {}, **o)),
        "trash": ((), lambda c, p, **o: c.delete(p, **o)),
        "archive": ((), lambda c, p, **o: c.post(f"{p}/archive", **o)),
        "restore": (("archived",), lambda c, p, **o: c.post(f"{p}/restore", **o)),
        "pin": ((), lambda c, p, **o: c.post(f"{p}/pin", **o)),
        "unpin": (("pinned",), lambda c, p, **o: c.post(f"{p}/unpin", **o)),
        "purge": (("deleted",), lambda c, p, **o: c.delete(f"{p}?mode=purge", **o)),
        "revert": (
            ("pinned",),
            lambda c, p, **o: c.post(f"{p}/revert", {"version": 1, "fields": ["pinned"]}, **o),
        ),
    }


WRITES = writes()


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    "form", ['W/"v{}"', '"v{}-gzip"', 'W/"v{}--gzip"', '"v{};gzip"', '"v9", "v{}"']
)
def test_every_write_accepts_the_tag_that_a_proxy_changed(alice, name, form):
    states, write = WRITES[name]
    created = conversation(alice, *states)

    response = write(
        alice, f"{PATH}/{created['id']}", headers={"If-Match": form.format(created["version"])}
    )

    assert response.status_code in {200, 201, 204}, response.json()


@pytest.mark.parametrize("name", WRITES)
def test_every_write_rejects_other_versions_and_malformed_tags(alice, name):
    states, write = WRITES[name]
    created = conversation(alice, *states)
    path = f"{PATH}/{created['id']}"

    for stale in ('W/"v7"', '"v7-gzip"', '"x"'):
        assert write(alice, path, headers={"If-Match": stale}).status_code == 412
    assert write(alice, path, headers={"If-Match": "v1"}).status_code == 400
    assert alice.get(path).json() == created
    assert len(alice.get(PATH, {"status": "all"}).json()["conversations"]) <= 1


def test_a_duplicate_of_another_version_names_the_changes_since(alice):
    path = f"{PATH}/{conversation(alice)['id']}"
    alice.patch(path, {"title": "Other"})
    key = {"Idempotency-Key": "copy"}
    copy = alice.post(f"{path}/duplicate", {}, headers={"If-Match": '"v2"'} | key)

    stale = alice.post(f"{path}/duplicate", {}, headers={"If-Match": '"v1"'})
    repeated = alice.post(f"{path}/duplicate", {}, headers={"If-Match": '"v1"'} | key)

    details = stale.json()["error"]["details"]
    assert (stale.status_code, details["current"]["title"]) == (412, "Other")
    assert [[*change["changes"]] for change in details["changes"]] == [["title"]]
    assert (repeated.status_code, repeated.json()) == (201, copy.json())
    malformed = alice.post(f"{path}/duplicate", {}, headers={"If-Match": "v2"} | key)
    assert malformed.status_code == 400


def test_a_duplicate_from_the_trash_checks_the_version_before_the_state(alice):
    path = f"{PATH}/{conversation(alice, 'deleted')['id']}"

    statuses = {
        tag: alice.post(f"{path}/duplicate", {}, headers={"If-Match": tag}).status_code
        for tag in ('"v1"', '"v2"', "*")
    }

    assert statuses == {'"v1"': 412, '"v2"': 409, "*": 409}


@pytest.mark.parametrize("tags", CHANGED_BY_PROXIES + LISTS)
def test_if_match_accepts_the_version_in_any_form(alice, tags):
    path = f"{PATH}/{conversation(alice)['id']}"

    assert alice.patch(path, {"title": "New"}, headers={"If-Match": tags}).status_code == 200


@pytest.mark.parametrize("tags", OTHERS)
def test_if_match_with_another_tag_is_412_and_says_so(alice, tags):
    path = f"{PATH}/{conversation(alice)['id']}"

    response = alice.patch(path, {"title": "New"}, headers={"If-Match": tags})

    assert response.status_code == 412
    error = response.json()["error"]
    assert error["details"]["current"]["version"] == 1
    assert error["message"].startswith("If-Match names no version that this conversation has had.")


def test_only_a_former_version_is_said_to_have_changed(alice):
    path = f"{PATH}/{conversation(alice)['id']}"
    alice.patch(path, {"title": "Other"})
    messages = {
        tag: alice.patch(path, {"title": "New"}, headers={"If-Match": tag}).json()["error"][
            "message"
        ]
        for tag in ('"v1"', 'W/"v1"', '"x", "v1"', '"v3"', '"x"')
    }

    changed = {tag for tag, message in messages.items() if "has changed since" in message}
    assert changed == {'"v1"', 'W/"v1"', '"x", "v1"'}


@pytest.mark.parametrize("tags", MALFORMED)
def test_a_malformed_if_match_is_400_and_says_what_is_right(alice, tags):
    path = f"{PATH}/{conversation(alice)['id']}"

    response = alice.patch(path, {"title": "New"}, headers={"If-Match": tags})

    assert response.status_code == 400
    assert "quotation marks" in response.json()["error"]["message"]


def test_a_malformed_if_match_is_read_in_linear_time(alice):
    path = f"{PATH}/{conversation(alice)['id']}"

    for tags in ('"a",' * 1_500 + "x", " ," * 3_000 + "x", '"a"' + " , " * 2_000 + "x"):
        assert alice.patch(path, {}, headers={"If-Match": tags}).status_code == 400


# One conversation and If-None-Match


def revalidated(client, path, tag):
    return client.get(path, headers={"If-None-Match": tag})


@pytest.fixture
def messages():
    return service_with("conversations:activity")


@pytest.mark.parametrize("query", ["", "?include=character", "?as_of=1"])
def test_an_unchanged_conversation_is_304(alice, query):
    path = f"{PATH}/{conversation(alice)['id']}{query}"
    read = alice.get(path)

    again = revalidated(alice, path, read.headers["ETag"])

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == read.headers["ETag"]
    assert again.headers["Cache-Control"] == read.headers["Cache-Control"] == "private, no-store"
    assert "Content-Type" not in again.headers


@pytest.mark.parametrize("query", ["", "?include=character", "?as_of=1"])
@pytest.mark.parametrize("with_messages", [False, True])
def test_each_form_of_the_tag_is_304(alice, messages, query, with_messages):
    created = conversation(alice)
    if with_messages:
        put(messages, created, report(1))
    path = f"{PATH}/{created['id']}{query}"
    tag = alice.get(path).headers["ETag"]
    opaque = tag.strip('"')

    for form in (
        tag,
        f"W/{tag}",
        f'"x", {tag}',
        f"{tag},",
        "*",
        f'"{opaque}-gzip"',
        f'W/"{opaque}--gzip"',
    ):
        assert revalidated(alice, path, form).status_code == 304, form
    for form in ('"x"', '""', opaque, "**", f'"{opaque}0"', f'"{opaque}-x"', f'"{opaque}', ""):
        assert revalidated(alice, path, form).status_code == 200, form


@pytest.mark.parametrize("query", ["", "?include=character"])
def test_an_edited_conversation_is_sent_again(alice, query):
    created = conversation(alice)
    path = f"{PATH}/{created['id']}"
    tag = alice.get(f"{path}{query}").headers["ETag"]
    edited = alice.patch(path, {"title": "New"}).json()

    response = revalidated(alice, f"{path}{query}", tag)

    assert response.status_code == 200
    assert response.json().items() >= edited.items()


@pytest.mark.parametrize("query", ["", "?include=character", "?as_of=1"])
def test_new_counters_are_never_hidden_by_a_304(alice, messages, query):
    created = conversation(alice)
    path = f"{PATH}/{created['id']}{query}"
    known = [alice.get(path).headers["ETag"]]
    for sequence in (1, 2, 3):
        put(messages, created, report(sequence, message_count=sequence))
        for tag in known:
            response = revalidated(alice, path, tag)
            assert response.status_code == 200
            assert response.json()["metadata"]["message_count"] == sequence
        known.append(response.headers["ETag"])
        assert revalidated(alice, path, known[-1]).status_code == 304

    assert len({*known}) == 4
    assert revalidated(alice, path, '"v1"').status_code == 200


def test_a_read_tag_protects_an_edit_with_and_without_messages(alice, messages):
    created = conversation(alice)
    path = f"{PATH}/{created['id']}"
    put(messages, created, report(1))

    for query in ("", "?include=character"):
        tag = alice.get(f"{path}{query}").headers["ETag"]
        version = alice.get(path).json()["version"]
        assert re.fullmatch(rf'"v{version}\.[0-9a-f]+"', tag)
        title = {"title": f"After {version}"}
        assert alice.patch(path, title, headers={"If-Match": f"W/{tag}"}).status_code == 200
        stale = alice.patch(path, title, headers={"If-Match": tag})
        assert (stale.status_code, stale.json()["error"]["details"]["changes"][0]["version"]) == (
            412,
            version + 1,
        )


def test_another_character_name_is_never_hidden_by_a_304(alice, settings):
    created = conversation(alice)
    path = f"{PATH}/{created['id']}?include=character"
    plain = alice.get(f"{PATH}/{created['id']}").headers["ETag"]
    with_none = alice.get(path).headers["ETag"]
    with characters(free_port()) as upstream:
        settings.CHARACTERS_SERVICE_URL = upstream.url
        response = revalidated(alice, path, with_none)
        named = response.headers["ETag"]

        assert response.json()["character"]["name"]
        assert revalidated(alice, path, plain).status_code == 200
        assert revalidated(alice, path, named).status_code == 304
        assert revalidated(alice, f"{PATH}/{created['id']}", named).status_code == 200


def test_a_later_archiving_is_never_hidden_by_a_304(alice, settings):
    path = f"{PATH}/{conversation(alice)['id']}"
    tag = alice.get(path).headers["ETag"]

    for days in (30, 60):
        settings.RETENTION_ARCHIVE_IDLE_DAYS = days
        response = revalidated(alice, path, tag)
        assert response.status_code == 200
        tag = response.headers["ETag"]
        assert revalidated(alice, path, tag).status_code == 304


def test_a_conversation_of_another_user_and_a_purged_one_are_404(alice, bob):
    created = conversation(alice, "deleted")
    path = f"{PATH}/{created['id']}"
    tag = alice.get(path).headers["ETag"]

    for sent in (tag, "*"):
        assert revalidated(bob, path, sent).status_code == 404
    alice.delete(f"{path}?mode=purge")
    for sent in (tag, "*"):
        assert revalidated(alice, path, sent).status_code == 404


@pytest.mark.parametrize("query", ["", "?include=character"])
def test_head_has_the_headers_of_get(alice, query):
    path = f"{PATH}/{conversation(alice)['id']}{query}"
    read = alice.get(path)

    head = alice.head(path)
    known = alice.head(path, headers={"If-None-Match": read.headers["ETag"]})

    assert (head.status_code, head.headers["ETag"]) == (200, read.headers["ETag"])
    assert head.headers["Content-Length"] == read.headers["Content-Length"]
    assert known.status_code == 304


@pytest.mark.parametrize("path", [PATH, "/api/v1/changes"])
def test_lists_and_changes_accept_changed_tags(alice, path):
    conversation(alice, "deleted")
    if path != PATH:  # an empty page keeps its cursor
        overview = alice.get(f"{PATH}/overview").json()
        cursor = alice.get(path, {"cursor": overview["sync_cursor"]}).json()["next_cursor"]
        path += f"?cursor={cursor}"
    tag = alice.get(path).headers["ETag"]
    opaque = tag.removeprefix("W/").strip('"')

    for form in (tag, f'"{opaque}"', f'W/"{opaque}-gzip"', f'"{opaque}--gzip"', f'"x", {tag}', "*"):
        assert revalidated(alice, path, form).status_code == 304, form
    for form in (opaque, '"x"', f'"{opaque}-x"', f"{tag} {tag}"):
        assert revalidated(alice, path, form).status_code == 200, form
