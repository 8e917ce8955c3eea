"""Undoes the last action on many conversations, for exactly the changed ones.

The session has their ids, because a thousand ids are too long for a form in a message. An action on
more than actions.LIMIT conversations cannot be undone, nor a release: a released hold has lost its
time and account.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from bson import ObjectId
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from conversations import states
from conversations.admin import actions, roles, timeline
from conversations.admin.actions import ACTIONS, Action, ActionSummary, Condition
from conversations.models import Conversation

_SESSION_KEY = "undo"


def _undo(action: Action, status: str) -> str | None:
    """Return the action that undoes an action on a conversation that was in this state."""
    if action.name == "restore":
        return "trash" if status == states.DELETED else "archive"
    return {"archive": "restore", "trash": "restore", "hold": "release"}.get(action.name)


def obstacle(action: Action, count: int) -> str:
    """Return why an action on this number of conversations cannot be undone, or an empty text."""
    if action.name == "release":
        return gettext("This cannot be undone: the time and the reason of each hold are deleted.")
    if count > actions.LIMIT:
        return gettext("This cannot be undone: more than %(n)s conversations.") % {
            "n": timeline.shown(actions.LIMIT)
        }
    return ""


def remember(
    request: HttpRequest, action: Action, changed: Sequence[Conversation], query: str, *, token: str
) -> None:
    """Add changed ids to those that the session has with this token, as a run has many steps."""
    stored = request.session.get(_SESSION_KEY, {})
    steps = dict(stored["steps"]) if stored.get("token") == token else {}
    for row in changed:
        if name := _undo(action, row.status):
            steps.setdefault(name, []).append(str(row.pk))
    request.session[_SESSION_KEY] = {
        "token": token,
        "action": action.name,
        "query": query,
        "steps": [*steps.items()],
    }


def button(request: HttpRequest, token: str, changed: int) -> SafeString:
    """Return a form with an *Undo* button.

    Return an empty text without changes, if the session does not have each changed id, or if the
    roles do not allow each step.
    """
    stored = request.session.get(_SESSION_KEY, {})
    steps = dict(stored["steps"]) if stored.get("token") == token else {}
    is_complete = sum(map(len, steps.values())) == changed
    if not changed or not is_complete or not roles.allow(request, *_permissions(steps)):
        return SafeString()
    return format_html(
        ' <form method="post" action="{}" class="c-undo">'
        '<input type="hidden" name="csrfmiddlewaretoken" value="{}">'
        '<button name="token" value="{}">{}</button></form>',
        reverse("admin:conversations_conversation_undo"),
        get_token(request),
        token,
        gettext("Undo"),
    )


def undo(request: HttpRequest) -> tuple[ActionSummary | None, str]:
    """Undo the action in the session; return the summary and its list's query.

    The summary is None if a later action has replaced the undo. A conversation that changed its
    state since the action, or is held by another account, is left as it is. Raises
    PermissionDenied, before any update, if the roles do not allow each step.
    """
    stored = request.session.get(_SESSION_KEY)
    if not stored or stored["token"] != request.POST.get("token"):
        return None, ""
    roles.require(request, *_permissions(name for name, _ids in stored["steps"]))
    del request.session[_SESSION_KEY]
    done, unchanged = 0, Counter[str]()
    for name, ids in stored["steps"]:
        rows = list(Conversation.objects.filter(pk__in=[*map(ObjectId, ids)]).for_list())
        summary, _changed = actions.perform_all(
            request,
            ACTIONS[name],
            rows,
            "Undo",
            vanished=len(ids) - len(rows),
            only=_unless_changed(request, ACTIONS[stored["action"]], name),
        )
        done += summary.changed
        unchanged += summary.unchanged
    return ActionSummary(gettext("Undone"), done, unchanged), stored["query"]


def _permissions(steps: Iterable[str]) -> list[str]:
    return [ACTIONS[name].permission for name in steps]


def _unless_changed(request: HttpRequest, action: Action, step: str) -> Condition:
    """Return a filter for conversations that still are as the action left them."""
    if action.name == "hold":
        return {"hold.by": request.user.get_username()}
    after: Sequence[str]
    if action.name == "restore":
        after = states.EDITABLE if step == "trash" else (states.ACTIVE,)
    else:
        after = states.ARCHIVE.ends if action.name == "archive" else states.TRASH.ends
    return {"status": {"$in": after}}
