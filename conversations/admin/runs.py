"""An action on all a user's conversations in a list, in steps that its page requests.

A run's state is signed, in its page's address. So the page continues after a reload, or at
its address after the tab was closed. A repeated run continues, too: each step only reads and writes
conversations that the action has not changed yet.
"""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast

from bson import ObjectId
from django.core import signing
from django.http import HttpRequest, QueryDict

from conversations.admin import actions, undo
from conversations.admin.actions import ACTIONS, Action, ActionSummary
from conversations.admin.filters import FilterForm
from conversations.models import Conversation
from conversations.queries import staff

BATCH = 100
STEP_S = 2.0
_SALT = "conversations.admin.runs"
_MAX_AGE_S = 7 * 24 * 60 * 60


def targets(action: Action, filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters for a list's conversations that an action can change."""
    states = [
        state for state in filters.get("states", action.states_at_once) if state in action.states
    ]
    found = {**filters, "states": states}
    if action.held is not None:
        if filters.get("held", action.held) != action.held:
            found["states"] = []
        found["held"] = action.held
    return found


@dataclass
class Run:
    """A run's state. `query` has the list's filters, as in its address."""

    staff_id: str
    action: str
    query: str
    reason: str
    total: int
    id: str = field(default_factory=lambda: str(ObjectId()))
    after: str = ""
    changed: int = 0
    unchanged: dict[str, int] = field(default_factory=dict)

    @classmethod
    def decode(cls, request: HttpRequest) -> Self:
        """Return the run in the address. Raises signing.BadSignature, also for other staff.

        Another release can have stored it: unknown fields are ignored, new fields need a default.
        """
        state = signing.loads(request.GET.get("run", ""), salt=_SALT, max_age=_MAX_AGE_S)
        if state["staff_id"] != str(request.user.pk):
            raise signing.BadSignature("The run belongs to another account.")
        known = {name: state[name] for name in cls.__dataclass_fields__ if name in state}
        if known.get("action") not in ACTIONS:
            raise signing.BadSignature("This release has no such action.")
        try:
            return cls(**known)
        except TypeError:
            raise signing.BadSignature("This release needs more fields.") from None

    def encode(self) -> str:
        return signing.dumps(asdict(self), salt=_SALT, compress=True)

    @property
    def filters(self) -> dict[str, Any]:
        form = FilterForm(QueryDict(self.query))
        form.is_valid()
        return targets(ACTIONS[self.action], form.filters())

    @property
    def seen(self) -> int:
        return self.changed + sum(self.unchanged.values())

    @property
    def summary(self) -> ActionSummary:
        return ActionSummary(ACTIONS[self.action].done, self.changed, Counter(self.unchanged))

    def step(self, request: HttpRequest) -> bool:
        """Act on the next conversations for about STEP_S; return True if more can follow."""
        action, filters = ACTIONS[self.action], self.filters
        status = filters["states"][0] if filters["states"] else ""  # one state, for a restore
        only = {"status": {"$in": filters["states"]}}
        ends = time.monotonic() + STEP_S
        while time.monotonic() < ends:
            after = ObjectId(self.after) if self.after else None
            ids = staff.next_ids(filters, after, BATCH)
            own = {"user_id": filters["user_id"], "status": status}
            rows = [Conversation(pk=cast(Any, id_), **own) for id_ in ids]
            results = actions.apply_to_user(
                request, action, filters["user_id"], rows, self.reason, only=only
            )
            if self.total <= actions.LIMIT:
                changed = actions.changed_rows(rows, results)
                undo.remember(request, action, changed, self.query, token=self.id)
            unchanged = actions.why_unchanged(rows, results)
            self.unchanged = {**(unchanged + Counter(self.unchanged))}
            self.changed += len(rows) - unchanged.total()
            if len(ids) < BATCH:
                actions.record_user(
                    request,
                    filters["user_id"],
                    actions.RUN,
                    query=self.query,
                    done=action.done,
                    changed=self.changed,
                    unchanged=self.seen - self.changed,
                    reason=self.reason and f" {self.reason}",
                )
                return False
            self.after = str(ids[-1])
        return True
