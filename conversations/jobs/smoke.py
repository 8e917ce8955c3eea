"""A conversation's whole life in a real deployment, step by step, as its user sees it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import orjson
from requests import Response

from conversation_service.smoke import Fault, NoAnswer, NotTried, Site, same, step
from conversations.queries.feed import GONE
from conversations.states import ACTIVE, ARCHIVED, DELETED

API = "/api/v1/conversations"
TITLE, NEW_TITLE = "Smoke test", "Smoke test, changed"
ERROR = {"code", "type", "message", "details", "error_id", "request_id"}
PAGES = 20  # of the change feed: what may have changed for one user within minutes


@dataclass(frozen=True)
class Tokens:
    """Of the user who walks, of somebody else, and of a service; the last two may be missing."""

    user: str
    stranger: str
    service: str


@dataclass
class Visit:
    """One walk: who takes it, what it expects of the deployment, and what it has made there."""

    site: Site
    mark: str
    tokens: Tokens
    character_id: str
    environment: str = ""
    version: str = ""

    found: str = field(default="", init=False)
    began: bool = field(default=False, init=False)
    made: set[str] = field(default_factory=set, init=False)
    conversation: dict[str, Any] = field(default_factory=dict, init=False)
    cursor: str = field(default="", init=False)

    @property
    def path(self) -> str:
        return f"{API}/{self.conversation['id']}"

    def call(self, method: str, path: str, **options: Any) -> Response:
        return self.site.call(method, path, token=self.tokens.user, **options)

    def create(self, **options: Any) -> Response:
        self.began = True
        body = {
            "character_id": self.character_id,
            "title": f"{TITLE} {self.mark}",
            "tags": [self.mark],
        }
        return self.call("POST", API, json=body, headers={"Idempotency-Key": self.mark}, **options)

    def act(self, action: str, **options: Any) -> dict[str, Any]:
        """Do something with the conversation that raises its version by one."""
        method, path = ("DELETE", "") if action == "trash" else ("POST", f"/{action}")
        return self.keep(self.call(method, self.path + path, **options))

    def keep(self, answer: Response) -> dict[str, Any]:
        """Remember the conversation as it is now; its version counts the changes."""
        then, self.conversation = self.conversation, answer.json()
        same("version", self.conversation["version"], then["version"] + 1)
        same("ETag", answer.headers.get("ETag"), f'"v{self.conversation["version"]}"')
        return self.conversation

    def changes(self) -> Iterator[dict[str, Any]]:
        """Return what changed since the last look."""
        for _ in range(PAGES):
            page = self.call("GET", "/api/v1/changes", params={"cursor": self.cursor}).json()
            self.cursor = page["next_cursor"]
            yield from page["changes"]
            if not page["has_more"]:
                return


def failure(answer: Response) -> dict[str, Any]:
    """Return what went wrong, if it is told in the shape of every failure."""
    body = answer.json()
    same("status in the body", body["status"], answer.status_code)
    same("fields of the error", body["error"].keys(), ERROR)
    same("request_id", body["error"]["request_id"], answer.headers.get("X-Request-ID"))
    error: dict[str, Any] = body["error"]
    return error


@step("200")
def it_is_alive(visit: Visit) -> None:
    try:
        visit.site.call("GET", "/health/live")
    except NoAnswer as nobody:
        raise NotTried(str(nobody)) from None


@step("200, environment and version as told")
def it_is_the_deployment_that_was_meant(visit: Visit) -> None:
    report = visit.site.call("GET", "/health").json()
    visit.found = f"{report['environment']} {report['version']}"
    if visit.environment not in {"", report["environment"]}:
        raise NotTried(f"this is {report['environment']}, not {visit.environment}")
    if visit.version:
        same("version", report["version"], visit.version)


@step("200 ready")
def it_can_write_to_mongodb(visit: Visit) -> None:
    same("status", visit.site.call("GET", "/health/ready").json()["status"], "ready")


@step("200 in the format of Prometheus")
def its_metrics_can_be_read(visit: Visit) -> None:
    if "# TYPE " not in visit.site.call("GET", "/metrics").text:
        raise Fault("/metrics names no type")


@step("401 AUTH_TOKEN_MISSING")
def nobody_gets_in_without_a_token(visit: Visit) -> None:
    failure(visit.site.call("GET", API, expect=401, code="AUTH_TOKEN_MISSING"))


@step("the id that was sent")
def an_answer_bears_the_id_of_its_request(visit: Visit) -> None:
    answer = visit.call("GET", API, params={"limit": 1})
    same("X-Request-ID", answer.headers.get("X-Request-ID"), visit.site.request_id)


@step("200 with a cursor")
def the_overview_says_where_changes_begin(visit: Visit) -> None:
    visit.cursor = visit.call("GET", f"{API}/overview").json()["sync_cursor"]


@step("400 VALIDATION_ERROR, /title")
def what_is_not_valid_is_pointed_at(visit: Visit) -> None:
    answer = visit.call(
        "POST",
        API,
        json={"character_id": visit.character_id, "title": 7},
        expect=400,
        code="VALIDATION_ERROR",
    )
    errors = failure(answer)["details"]["errors"]
    same("pointers", [error["pointer"] for error in errors], ["/title"])


@step("201, version 1, Location, ETag")
def a_conversation_begins(visit: Visit) -> None:
    answer = visit.create(expect=201)
    visit.conversation = answer.json()
    visit.made.add(visit.conversation["id"])
    same("version", visit.conversation["version"], 1)
    same("title", visit.conversation["title"], f"{TITLE} {visit.mark}")
    same("ETag", answer.headers.get("ETag"), '"v1"')
    same("Location", answer.headers.get("Location"), visit.path)


@step("201 replayed, the same id")
def beginning_it_again_begins_no_other(visit: Visit) -> None:
    answer = visit.create(expect=201)
    visit.made.add(answer.json()["id"])
    same("id", answer.json()["id"], visit.conversation["id"])
    same("Idempotency-Replayed", answer.headers.get("Idempotency-Replayed"), "true")


@step('200, ETag "v1"')
def it_is_read_as_it_was_made(visit: Visit) -> None:
    answer = visit.call("GET", visit.path)
    same("conversation", answer.json(), visit.conversation)
    same("ETag", answer.headers.get("ETag"), '"v1"')


@step("200, this one alone; then 304")
def a_list_has_it_once_and_is_not_sent_twice(visit: Visit) -> None:
    query = {"tags": visit.mark, "include_total": "true"}
    answer = visit.call("GET", API, params=query)
    same("list", _ids(answer), [visit.conversation["id"]])
    same("total_count", answer.json()["pagination"]["total_count"], 1)
    known = {"If-None-Match": answer.headers.get("ETag", "")}
    visit.call("GET", API, params=query, headers=known, expect=304)


@step("200, this one alone")
def a_search_finds_it_at_once(visit: Visit) -> None:
    same(
        "found",
        _ids(visit.call("GET", API, params={"search": visit.mark})),
        [visit.conversation["id"]],
    )


def _ids(answer: Response) -> list[str]:
    return [row["id"] for row in answer.json()["conversations"]]


@step("404 CONVERSATION_NOT_FOUND")
def nobody_else_can_see_it(visit: Visit) -> None:
    answer = visit.site.call(
        "GET", visit.path, token=visit.tokens.stranger, expect=404, code="CONVERSATION_NOT_FOUND"
    )
    failure(answer)


@step("200, version 2")
def its_title_is_changed(visit: Visit) -> None:
    answer = visit.call(
        "PATCH", visit.path, json={"title": NEW_TITLE}, headers={"If-Match": '"v1"'}
    )
    same("title", visit.keep(answer)["title"], NEW_TITLE)


@step("412")
def a_change_of_a_former_version_is_refused(visit: Visit) -> None:
    answer = visit.call(
        "PATCH", visit.path, json={"title": "Lost"}, headers={"If-Match": '"v1"'}, expect=412
    )
    failure(answer)


@step("200, the old title and the new")
def its_history_tells_of_the_change(visit: Visit) -> None:
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
def it_is_brought_back_from_the_archive(visit: Visit) -> None:
    same("status", visit.act("restore")["status"], ACTIVE)


@step("200, pinned_at")
def it_is_pinned(visit: Visit) -> None:
    if not visit.act("pin")["pinned_at"]:
        raise Fault("pinned_at is empty")


@step("200, it as it is now")
def the_change_feed_tells_of_it(visit: Visit) -> None:
    latest = {
        change["conversation"]["id"]: change["conversation"]
        for change in visit.changes()
        if change["type"] == "upsert"
    }
    same("conversation", latest.get(visit.conversation["id"]), visit.conversation)


@step("200, among the pinned ones")
def the_overview_shows_it(visit: Visit) -> None:
    overview = visit.call("GET", f"{API}/overview").json()
    if visit.conversation["id"] not in [one["id"] for one in overview["pinned"]]:
        raise Fault("it is not among the pinned ones")
    _at_least_one(ACTIVE, overview["counts"][ACTIVE])


@step("200, one at least")
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


@step("200, one, and it is not archived")
def a_rehearsed_bulk_action_changes_nothing(visit: Visit) -> None:
    body = {"action": "archive", "ids": [visit.conversation["id"]], "dry_run": True}
    summary = visit.call("POST", f"{API}/bulk", json=body).json()["summary"]
    same("summary", summary, {"matched": 1, "ok": 1, "skipped": 0, "failed": 0})
    same("conversation", visit.call("GET", visit.path).json(), visit.conversation)


@step("200, with it, up to the line at its end")
def the_export_is_whole(visit: Visit) -> None:
    lines = visit.call("GET", f"{API}/export").content.splitlines()
    *rows, end = [orjson.loads(line) for line in lines]
    same("last line", end, {"object": "end", "count": len(rows)})
    if visit.conversation["id"] not in [row["id"] for row in rows]:
        raise Fault("it is not in the export")


@step("401, and 200 writable")
def a_service_may_ask_who_may_write(visit: Visit) -> None:
    path = "/internal/v1/authorize"
    body = {"ids": [visit.conversation["id"]], "user_id": visit.conversation["user_id"]}
    visit.call("POST", path, json=body, expect=401)
    answer = visit.site.call("POST", path, token=visit.tokens.service, json=body)
    [verdict] = answer.json()["results"]
    same("writable", verdict["writable"], True)


@step("200 deleted")
def it_is_put_into_the_trash(visit: Visit) -> None:
    same("status", visit.act("trash")["status"], DELETED)


@step("200 active")
def it_is_taken_out_of_the_trash(visit: Visit) -> None:
    same("status", visit.act("restore")["status"], ACTIVE)


@step("200, 204, and 404 from then on")
def it_is_purged(visit: Visit) -> None:
    visit.act("trash")
    visit.call("DELETE", visit.path, params={"mode": "purge"}, expect=204)
    failure(visit.call("GET", visit.path, expect=404, code="CONVERSATION_NOT_FOUND"))


@step("200, deleted")
def the_change_feed_tells_that_it_is_gone(visit: Visit) -> None:
    told = [change["id"] for change in visit.changes() if change["type"] == GONE]
    if visit.conversation["id"] not in told:
        raise Fault("it does not say so")


STEPS = [
    it_is_alive,
    it_is_the_deployment_that_was_meant,
    it_can_write_to_mongodb,
    its_metrics_can_be_read,
    nobody_gets_in_without_a_token,
    an_answer_bears_the_id_of_its_request,
    the_overview_says_where_changes_begin,
    what_is_not_valid_is_pointed_at,
    a_conversation_begins,
    beginning_it_again_begins_no_other,
    it_is_read_as_it_was_made,
    a_list_has_it_once_and_is_not_sent_twice,
    a_search_finds_it_at_once,
    nobody_else_can_see_it,
    its_title_is_changed,
    a_change_of_a_former_version_is_refused,
    its_history_tells_of_the_change,
    it_is_reverted,
    it_is_archived,
    it_is_brought_back_from_the_archive,
    it_is_pinned,
    the_change_feed_tells_of_it,
    the_overview_shows_it,
    the_summary_counts_it,
    its_tag_is_counted,
    a_rehearsed_bulk_action_changes_nothing,
    the_export_is_whole,
    a_service_may_ask_who_may_write,
    it_is_put_into_the_trash,
    it_is_taken_out_of_the_trash,
    it_is_purged,
    the_change_feed_tells_that_it_is_gone,
]


def new_mark() -> str:
    """Return a word that is nowhere else: the tag of all that a walk makes."""
    return f"smoke{uuid4().hex}"


def clean(visit: Visit) -> list[str]:
    """Purge all that a walk made, known or found by its mark, and return what is left."""
    if not visit.began:
        return []
    try:
        ids = visit.made | {id_ for status in ("all", DELETED) for id_ in _marked(visit, status)}
    except (Fault, ValueError, LookupError, TypeError):
        return [*sorted(visit.made), f"whatever has the tag {visit.mark}"]
    return [id_ for id_ in sorted(ids) if not _is_purged(visit, id_)]


def _marked(visit: Visit, status: str) -> list[str]:
    return _ids(visit.call("GET", API, params={"tags": visit.mark, "status": status}))


def _is_purged(visit: Visit, id_: str) -> bool:
    path = f"{API}/{quote(id_, safe='')}"
    gone = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}
    try:
        visit.site.send("DELETE", path, token=visit.tokens.user)
        purged = visit.site.send("DELETE", path, token=visit.tokens.user, params={"mode": "purge"})
    except (NoAnswer, ValueError):
        return False
    return purged.status_code in gone
