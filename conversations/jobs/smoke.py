"""A conversation's whole life in a real deployment, step by step, through the API."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from requests import Response

from conversation_service.smoke import Fault, NoResponse, NotTried, Site, Step, same
from conversations.queries.feed import GONE
from conversations.states import ACTIVE, ARCHIVED, DELETED

API = "/api/v1/conversations"
TITLE, NEW_TITLE = "Smoke test", "Smoke test, changed"
PAGES = 20  # in the change feed; a bound against an endless feed
STEPS: list[Step] = []


def step(expected: str) -> Callable[[Callable[["Visit"], None]], Step]:
    """Append a function to STEPS. Its name is the sentence that the step proves."""

    def append(run: Callable[[Visit], None]) -> Step:
        STEPS.append(Step(run.__name__.replace("_", " "), expected, run))
        return STEPS[-1]

    return append


@dataclass(frozen=True)
class Tokens:
    """Tokens for the user, another user and a service. An empty token skips its steps."""

    user: str
    stranger: str
    service: str


@dataclass
class Visit:
    """A run: its tokens, the expected deployment, and the ids that it created there."""

    site: Site
    mark: str
    tokens: Tokens
    character_id: str
    environment: str
    version: str

    found: str = ""
    began: bool = False
    made: set[str] = field(default_factory=set)
    conversation: dict[str, Any] = field(default_factory=dict)
    cursor: str = ""

    @property
    def path(self) -> str:
        return f"{API}/{self.conversation['id']}"

    def call(self, method: str, path: str, **options: Any) -> Response:
        return self.site.call(method, path, token=self.tokens.user, **options)

    def create(self, **options: Any) -> Response:
        self.began = True
        title = f"{TITLE} {self.mark}"
        body = {"character_id": self.character_id, "title": title, "tags": [self.mark]}
        return self.call("POST", API, json=body, headers={"Idempotency-Key": self.mark}, **options)

    def act(self, action: str, **options: Any) -> dict[str, Any]:
        """Request an update that raises the version by 1."""
        method, path = ("DELETE", "") if action == "trash" else ("POST", f"/{action}")
        return self.keep(self.call(method, self.path + path, **options))

    def keep(self, response: Response) -> dict[str, Any]:
        """Keep the response's conversation. Its version must be the next."""
        then, self.conversation = self.conversation, response.json()
        same("version", self.conversation["version"], then["version"] + 1)
        same("ETag", response.headers.get("ETag"), f'"v{self.conversation["version"]}"')
        return self.conversation

    def changes(self) -> Iterator[dict[str, Any]]:
        """Yield the changes since the last call."""
        for _ in range(PAGES):
            page = self.call("GET", "/api/v1/changes", params={"cursor": self.cursor}).json()
            self.cursor = page["next_cursor"]
            yield from page["changes"]
            if not page["has_more"]:
                return


@step("200")
def it_is_alive(visit: Visit) -> None:
    try:
        visit.site.call("GET", "/health/live")
    except NoResponse as error:
        raise NotTried(str(error)) from None


@step("200, the expected environment and version")
def it_is_the_expected_deployment(visit: Visit) -> None:
    report = visit.site.call("GET", "/health").json()
    visit.found = f"{report['environment']} {report['version']}"
    if visit.environment not in {"", report["environment"]}:
        raise NotTried(f"this is {report['environment']}, not {visit.environment}")
    if visit.version:
        same("version", report["version"], visit.version)


@step("200 ready")
def it_can_write_to_mongodb(visit: Visit) -> None:
    same("status", visit.site.call("GET", "/health/ready").json()["status"], "ready")


@step("200 in the Prometheus format")
def it_returns_metrics(visit: Visit) -> None:
    if "# TYPE " not in visit.site.call("GET", "/metrics").text:
        raise Fault("/metrics names no type")


@step("401 AUTH_TOKEN_MISSING")
def it_rejects_requests_without_a_token(visit: Visit) -> None:
    visit.site.call("GET", API, expect=401, code="AUTH_TOKEN_MISSING")


@step("the id that was sent")
def a_response_has_its_request_id(visit: Visit) -> None:
    response = visit.call("GET", API, params={"limit": 1})
    same("X-Request-ID", response.headers.get("X-Request-ID"), visit.site.request_id)


@step("200 with a cursor")
def the_overview_has_a_feed_cursor(visit: Visit) -> None:
    visit.cursor = visit.call("GET", f"{API}/overview").json()["sync_cursor"]


@step("400 VALIDATION_ERROR, /title")
def an_error_points_at_the_invalid_field(visit: Visit) -> None:
    body = {"character_id": visit.character_id, "title": 7}
    response = visit.call("POST", API, json=body, expect=400, code="VALIDATION_ERROR")
    errors = response.json()["error"]["details"]["errors"]
    same("pointers", [error["pointer"] for error in errors], ["/title"])


@step("201, version 1, Location, ETag")
def it_creates_a_conversation(visit: Visit) -> None:
    response = visit.create(expect=201)
    visit.conversation = response.json()
    visit.made.add(visit.conversation["id"])
    same("version", visit.conversation["version"], 1)
    same("title", visit.conversation["title"], f"{TITLE} {visit.mark}")
    same("ETag", response.headers.get("ETag"), '"v1"')
    same("Location", response.headers.get("Location"), visit.path)


@step("201 replayed, the same id")
def a_repeated_create_is_replayed(visit: Visit) -> None:
    response = visit.create(expect=201)
    visit.made.add(response.json()["id"])
    same("id", response.json()["id"], visit.conversation["id"])
    same("Idempotency-Replayed", response.headers.get("Idempotency-Replayed"), "true")


@step('200, ETag "v1"')
def it_returns_the_created_conversation(visit: Visit) -> None:
    response = visit.call("GET", visit.path)
    same("conversation", response.json(), visit.conversation)
    same("ETag", response.headers.get("ETag"), '"v1"')


@step("200, only this one; then 304")
def a_list_has_it_once_and_is_revalidated(visit: Visit) -> None:
    query = {"tags": visit.mark, "include_total": "true"}
    response = visit.call("GET", API, params=query)
    same("list", _ids(response), [visit.conversation["id"]])
    same("total_count", response.json()["pagination"]["total_count"], 1)
    known = {"If-None-Match": response.headers.get("ETag", "")}
    visit.call("GET", API, params=query, headers=known, expect=304)


@step("200, only this one")
def a_search_finds_it_immediately(visit: Visit) -> None:
    found = _ids(visit.call("GET", API, params={"search": visit.mark}))
    same("found", found, [visit.conversation["id"]])


@step("404 CONVERSATION_NOT_FOUND")
def another_user_cannot_see_it(visit: Visit) -> None:
    stranger = {"token": visit.tokens.stranger}
    visit.site.call("GET", visit.path, **stranger, expect=404, code="CONVERSATION_NOT_FOUND")


@step("200, version 2")
def its_title_is_updated(visit: Visit) -> None:
    body, version = {"title": NEW_TITLE}, {"If-Match": '"v1"'}
    response = visit.call("PATCH", visit.path, json=body, headers=version)
    same("title", visit.keep(response)["title"], NEW_TITLE)


@step("412")
def an_update_of_an_old_version_is_rejected(visit: Visit) -> None:
    body, old_version = {"title": "Lost"}, {"If-Match": '"v1"'}
    visit.call("PATCH", visit.path, json=body, headers=old_version, expect=412)


@step("200, the old and the new title")
def its_history_has_the_update(visit: Visit) -> None:
    [revision] = visit.call("GET", f"{visit.path}/history").json()["revisions"]
    same("version", revision["version"], 2)
    change = {"before": f"{TITLE} {visit.mark}", "after": NEW_TITLE}
    same("change of the title", revision["changes"]["title"], change)


@step("200, version 3, the old title")
def it_is_reverted(visit: Visit) -> None:
    reverted = visit.act("revert", json={"version": 1, "fields": ["title"]})
    same("title", reverted["title"], f"{TITLE} {visit.mark}")


@step("200 archived")
def it_is_archived(visit: Visit) -> None:
    same("status", visit.act("archive")["status"], ARCHIVED)


@step("200 active")
def it_is_restored_from_the_archive(visit: Visit) -> None:
    same("status", visit.act("restore")["status"], ACTIVE)


@step("200, pinned_at")
def it_is_pinned(visit: Visit) -> None:
    if not visit.act("pin")["pinned_at"]:
        raise Fault("pinned_at is empty")


@step("200, the current conversation")
def the_change_feed_has_it(visit: Visit) -> None:
    latest = {
        change["conversation"]["id"]: change["conversation"]
        for change in visit.changes()
        if change["type"] == "upsert"
    }
    same("conversation", latest.get(visit.conversation["id"]), visit.conversation)


@step("200, pinned")
def the_overview_shows_it(visit: Visit) -> None:
    overview = visit.call("GET", f"{API}/overview").json()
    if visit.conversation["id"] not in [row["id"] for row in overview["pinned"]]:
        raise Fault("it is not in `pinned`")
    _at_least_one(ACTIVE, overview["counts"][ACTIVE])


@step("200, at least 1")
def the_summary_counts_it(visit: Visit) -> None:
    statistics = visit.call("GET", f"{API}/summary").json()["statistics"]
    _at_least_one("total_conversations", statistics["total_conversations"])


@step("200, counted once")
def its_tag_is_counted(visit: Visit) -> None:
    tags = visit.call("GET", "/api/v1/tags", params={"prefix": visit.mark}).json()["tags"]
    same("tags", tags, [{"tag": visit.mark, "count": 1}])


def _at_least_one(what: str, number: int) -> None:
    if number < 1:
        raise Fault(f"{what} is {number}")


@step("200, 1 result, not archived")
def a_bulk_dry_run_changes_nothing(visit: Visit) -> None:
    body = {"action": "archive", "ids": [visit.conversation["id"]], "dry_run": True}
    summary = visit.call("POST", f"{API}/bulk", json=body).json()["summary"]
    same("summary", summary, {"matched": 1, "ok": 1, "skipped": 0, "failed": 0})
    same("conversation", visit.call("GET", visit.path).json(), visit.conversation)


@step("200, with it and a last line")
def the_export_is_complete(visit: Visit) -> None:
    lines = visit.call("GET", f"{API}/export").content.splitlines()
    *rows, end = [orjson.loads(line) for line in lines]
    same("last line", end, {"object": "end", "count": len(rows)})
    if visit.conversation["id"] not in [row["id"] for row in rows]:
        raise Fault("it is not in the export")


@step("401, and 200 writable")
def a_service_can_check_access(visit: Visit) -> None:
    path = "/internal/v1/authorize"
    body = {"ids": [visit.conversation["id"]], "user_id": visit.conversation["user_id"]}
    visit.call("POST", path, json=body, expect=401)
    response = visit.site.call("POST", path, token=visit.tokens.service, json=body)
    [access] = response.json()["results"]
    same("writable", access["writable"], True)


@step("200 deleted")
def it_is_moved_to_the_trash(visit: Visit) -> None:
    same("status", visit.act("trash")["status"], DELETED)


@step("200 active")
def it_is_restored_from_the_trash(visit: Visit) -> None:
    same("status", visit.act("restore")["status"], ACTIVE)


@step("200, 204, then 404")
def it_is_purged(visit: Visit) -> None:
    visit.act("trash")
    visit.call("DELETE", visit.path, params={"mode": "purge"}, expect=204)
    visit.call("GET", visit.path, expect=404, code="CONVERSATION_NOT_FOUND")


@step("200, deleted")
def the_change_feed_reports_the_purge(visit: Visit) -> None:
    purged = [change["id"] for change in visit.changes() if change["type"] == GONE]
    if visit.conversation["id"] not in purged:
        raise Fault("the feed does not contain the purge")


def _ids(response: Response) -> list[str]:
    return [row["id"] for row in response.json()["conversations"]]


def clean(visit: Visit) -> list[str]:
    """Purge the conversations of a run, by id and by tag. Return those that could not be purged."""
    if not visit.began:
        return []
    try:
        ids = set(visit.made)
        for status in ("all", DELETED):
            ids.update(_ids(visit.call("GET", API, params={"tags": visit.mark, "status": status})))
    except (Fault, ValueError, LookupError, TypeError):
        return [*sorted(visit.made), f"all conversations with the tag {visit.mark}"]
    return [id_ for id_ in sorted(ids) if not purge(visit, id_)]


def purge(visit: Visit, id_: str) -> bool:
    """Purge a conversation. Return True if it is gone afterwards."""
    path = f"{API}/{quote(id_, safe='')}"
    gone = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}
    try:
        visit.site.send("DELETE", path, token=visit.tokens.user)
        purged = visit.site.send("DELETE", path, token=visit.tokens.user, params={"mode": "purge"})
    except (NoResponse, ValueError):
        return False
    return purged.status_code in gone
