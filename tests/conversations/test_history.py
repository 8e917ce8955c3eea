"""Every version has a revision: actor, time, client and old values."""

import pytest
from time_machine import travel

from tests.factories import PATH, client_of, conversation


def path_of(created):
    return f"{PATH}/{created['id']}"


def history(client, created, **parameters):
    response = client.get(f"{path_of(created)}/history", parameters)
    assert response.status_code == 200, response.json()
    return response.json()


def test_a_new_conversation_has_no_history(alice):
    assert history(alice, conversation(alice)) == {"revisions": [], "next_cursor": None}


def test_a_revision_has_actor_time_client_and_old_values(alice):
    created = conversation(alice, title="Old", tags=["a"])

    changed = alice.patch(
        path_of(created),
        {"title": "New", "settings": {"temperature": 0.7, "top_p": 0.5}, "tags_add": ["b"]},
        headers={"X-Client": "ios-app/3.1", "X-Request-ID": "call-1"},
    ).json()

    [revision] = history(alice, created)["revisions"]
    assert revision == {
        "version": 2,
        "at": changed["metadata"]["updated_at"],
        "by": "user",
        "client": "ios-app/3.1",
        "request_id": "call-1",
        "changes": {
            "title": {"before": "Old", "after": "New"},
            "settings.top_p": {"before": 0.9, "after": 0.5},
            "settings_given": {"before": [], "after": ["temperature", "top_p"]},
            "tags": {"before": ["a"], "after": ["a", "b"]},
        },
    }


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"X-Client": "web"}, "web"),
        ({"User-Agent": "Mozilla/5.0 (X11; Linux)"}, "Mozilla/5.0"),
        ({"X-Client": "web", "User-Agent": "Mozilla/5.0"}, "web"),
        ({"X-Client": "$where: 1"}, None),
        ({"X-Client": "x" * 200}, "x" * 64),
        ({}, None),
    ],
)
def test_the_client_is_a_short_name(alice, headers, client):
    created = conversation(alice)

    alice.post(f"{path_of(created)}/pin", headers=headers)

    assert history(alice, created)["revisions"][0]["client"] == client


def test_changes_of_state_are_revisions(alice):
    trashed = conversation(alice, "pinned", "archived", "deleted")

    revisions = history(alice, trashed)["revisions"]

    assert [r["version"] for r in revisions] == [4, 3, 2]
    assert revisions[0]["changes"]["status"] == {"before": "archived", "after": "deleted"}
    assert revisions[2]["changes"].keys() == {"pinned_at"}


def test_an_edit_without_effect_makes_no_revision(alice):
    created = conversation(alice, title="Same")

    alice.patch(path_of(created), {"title": "Same"})

    assert history(alice, created)["revisions"] == []


def test_the_newest_fifty_revisions_are_kept(alice):
    created = conversation(alice)
    for n in range(55):
        alice.patch(path_of(created), {"title": f"Title {n}"})

    revisions = history(alice, created, limit=50)

    assert [r["version"] for r in revisions["revisions"]] == list(range(56, 6, -1))
    assert revisions["next_cursor"] is None


def test_history_has_pages(alice):
    created = conversation(alice)
    for n in range(5):
        alice.patch(path_of(created), {"title": f"Title {n}"})

    first = history(alice, created, limit=2)
    alice.patch(path_of(created), {"title": "Meanwhile"})
    second = history(alice, created, limit=2, cursor=first["next_cursor"])
    third = history(alice, created, limit=2, cursor=second["next_cursor"])

    pages = [[r["version"] for r in page["revisions"]] for page in (first, second, third)]
    assert pages == [[6, 5], [4, 3], [2]]
    assert third["next_cursor"] is None


def test_a_history_cursor_belongs_to_its_conversation(alice):
    created, other = conversation(alice), conversation(alice)
    for n in range(3):
        alice.patch(path_of(created), {"title": f"Title {n}"})
    cursor = history(alice, created, limit=1)["next_cursor"]

    response = alice.get(f"{path_of(other)}/history", {"cursor": cursor})

    assert response.json()["error"]["code"] == "INVALID_CURSOR"


def test_an_old_version_can_be_read(alice):
    versions = [conversation(alice, title="One", custom={"k": "v"})]
    for body in ({"title": "Two"}, {"settings": {"temperature": 0}}, {"custom": {"k": None}}):
        versions.append(alice.patch(path_of(versions[0]), body).json())
    versions.append(alice.post(f"{path_of(versions[0])}/archive").json())

    for version in versions:
        then = alice.get(path_of(version), {"as_of": version["version"]})
        assert then.json() == version
        assert then.headers["ETag"] == f'"v{version["version"]}"'


@pytest.mark.parametrize("version", [2, 99])
def test_an_unknown_version_is_404(alice, version):
    created = conversation(alice)

    response = alice.get(path_of(created), {"as_of": version})

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "REVISION_NOT_FOUND"


@pytest.mark.parametrize("version", ["0", "-1", "x", ""])
def test_a_version_is_a_positive_number(alice, version):
    created = conversation(alice)

    assert alice.get(path_of(created), {"as_of": version}).status_code == 400


def test_a_version_older_than_the_history_is_410(alice):
    created = conversation(alice)
    for n in range(55):
        alice.patch(path_of(created), {"title": f"Title {n}"})

    for response in (
        alice.get(path_of(created), {"as_of": 5}),
        alice.post(f"{path_of(created)}/revert", {"version": 5, "fields": ["title"]}),
    ):
        assert response.status_code == 410
        error = response.json()["error"]
        assert (error["code"], error["details"]) == ("REVISION_EXPIRED", {"oldest_version": 6})
    assert alice.get(path_of(created), {"as_of": 6}).json()["title"] == "Title 4"


def test_revert_restores_the_named_fields_as_a_new_version(alice):
    first = conversation(alice, title=None, tags=["A"], custom={"k": "v"})
    alice.patch(path_of(first), {"title": "New", "tags": ["b"], "custom": {"k": "w"}})
    alice.patch(path_of(first), {"settings": {"temperature": 0, "top_p": 0}, "pinned": True})

    fields = ["title", "settings", "tags", "pinned"]
    response = alice.post(f"{path_of(first)}/revert", {"version": 1, "fields": fields})

    reverted = response.json()
    assert reverted["version"] == 4
    for name in ("title", "title_source", "settings", "tags", "pinned_at"):
        assert reverted[name] == first[name]
    assert reverted["custom"] == {"k": "w"}
    assert [c["id"] for c in alice.get(PATH, {"tags": "a"}).json()["conversations"]] == [
        first["id"]
    ]
    newest = history(alice, first)["revisions"][0]
    assert newest["changes"]["title"] == {"before": "New", "after": first["title"]}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
@pytest.mark.parametrize("name", ["title", "settings", "tags", "custom", "pinned"])
def test_a_repeated_name_reverts_its_field_once(alice, name, headers):
    tags = [f"tag {n}" for n in range(10)]
    first = conversation(alice, title="Old", tags=tags)
    changed = {"title": "New", "tags": [], "settings": {"top_p": 0.1}, "custom": {"k": "v"}}
    alice.patch(path_of(first), changed | {"pinned": True})

    body = {"version": 1, "fields": [name] * 4 + ["title"]}
    reverted = alice.post(f"{path_of(first)}/revert", body, headers=headers)

    assert reverted.status_code == 200
    shown = "pinned_at" if name == "pinned" else name
    assert reverted.json()[shown] == first[shown]
    found = alice.get(PATH, {"search": "tag"}).json()["conversations"]
    assert len(found) == (name == "tags")


def test_a_revert_to_the_current_values_changes_nothing(alice):
    created = conversation(alice)

    response = alice.post(f"{path_of(created)}/revert", {"version": 1, "fields": ["title"]})

    assert response.json() == created


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": 9, "fields": ["title"]}, 404),
        ({"version": 1, "fields": []}, 400),
        ({"version": 1, "fields": ["status"]}, 400),
        ({"version": 1, "fields": ["$set"]}, 400),
        ({"version": 0, "fields": ["title"]}, 400),
        ({"fields": ["title"]}, 400),
        ({"version": 1}, 400),
    ],
)
def test_an_invalid_revert_is_rejected(alice, body, status):
    created = conversation(alice)

    assert alice.post(f"{path_of(created)}/revert", body).status_code == status


def test_revert_checks_version_and_state(alice):
    created = conversation(alice)
    body = {"version": 1, "fields": ["title"]}
    alice.patch(path_of(created), {"title": "New"})

    stale = alice.post(f"{path_of(created)}/revert", body, headers={"If-Match": '"v1"'})
    alice.delete(path_of(created))
    trashed = alice.post(f"{path_of(created)}/revert", body)

    assert (stale.status_code, trashed.status_code) == (412, 409)


def test_a_conflict_lists_the_changes_since_the_given_version(alice):
    created = conversation(alice, title="Old")
    alice.patch(path_of(created), {"title": "Phone"}, headers={"X-Client": "phone"})
    current = alice.post(f"{path_of(created)}/pin", headers={"X-Client": "tablet"}).json()

    response = alice.patch(path_of(created), {"title": "Mine"}, headers={"If-Match": '"v1"'})

    assert response.status_code == 412
    details = response.json()["error"]["details"]
    assert details["current"] == current
    listed = [(c["version"], c["client"], list(c["changes"])) for c in details["changes"]]
    assert listed == [(3, "tablet", ["pinned_at"]), (2, "phone", ["title"])]


def test_lists_and_reads_do_not_load_the_history(alice, commands):
    created = conversation(alice)
    alice.patch(path_of(created), {"title": "New"})
    commands.clear()

    alice.get(path_of(created))
    alice.get(PATH)
    alice.patch(path_of(created), {"title": "Newer"})

    projections = [c.get("projection") or c["fields"] for c in commands]
    assert len(projections) == 3
    for projection in projections:
        assert projection["title"] == 1
        assert {"revisions", "keys"}.isdisjoint(projection)


@pytest.mark.parametrize("strict", [["*"], ["ios-app", "web"]])
def test_strict_clients_must_send_if_match(alice, settings, strict):
    settings.IF_MATCH_REQUIRED_FOR = strict
    created = conversation(alice)
    web = {"X-Client": "Web/2.0"}

    for response in (
        alice.patch(path_of(created), {"title": "x"}, headers=web),
        alice.delete(path_of(created), headers=web),
        alice.post(f"{path_of(created)}/revert", {"version": 1, "fields": ["title"]}, headers=web),
    ):
        assert response.status_code == 428
        assert response.json()["error"]["code"] == "PRECONDITION_REQUIRED"
    given = web | {"If-Match": '"v1"'}
    assert alice.patch(path_of(created), {"title": "x"}, headers=given).status_code == 200
    assert alice.post(f"{path_of(created)}/pin", headers=web).status_code == 200


def test_other_clients_may_omit_if_match(alice, settings):
    settings.IF_MATCH_REQUIRED_FOR = ["web"]
    created = conversation(alice)

    assert alice.patch(path_of(created), {"title": "x"}).status_code == 200


def test_an_old_version_has_its_own_time(alice):
    with travel("2026-03-01T10:00:00Z", tick=False):
        created = conversation(client_of("alice"))
    alice.patch(path_of(created), {"title": "New"})

    then = alice.get(path_of(created), {"as_of": 1}).json()

    assert then["metadata"]["updated_at"] == "2026-03-01T10:00:00.000Z"
