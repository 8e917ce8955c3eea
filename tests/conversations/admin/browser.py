"""Actions of staff in the console, sent like a browser."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

from django.contrib.auth.models import Group, Permission, User
from django.contrib.messages import get_messages
from django.test import Client

from conversations import documents

LIST = "/admin/conversations/conversation/"
PASSWORD = "open sesame"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def staff(*permissions, role=None, name="ops"):
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def store(mongo, count, **fields):
    """Insert conversations; the last is the newest."""
    stored = [
        documents.new(
            **{"user_id": "alice", "character_id": "luna", "title": f"Number {n}"} | fields,
            now=NOON + timedelta(seconds=n),
        )
        for n in range(count)
    ]
    mongo["conversations"].insert_many(stored)
    return stored


def shown(response):
    assert response.status_code == 200
    return [row.title for row in response.context["cl"].result_list]


def text(response):
    """Return the text of the page, with one space between words."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", response.content.decode())).split())


def select(client, action, *ids, query="", **data):
    """Select rows and an action."""
    form = {"action": action, "index": "0", "_selected_action": [str(id_) for id_ in ids]}
    return client.post(f"{LIST}{query}", form | data)


def confirm(client, action, *ids, query="", **data):
    """Select rows and an action, and confirm."""
    return select(client, action, *ids, query=query, confirmed="yes", **data)


def report(response):
    assert response.status_code == 302
    *_, message = get_messages(response.wsgi_request)
    return re.sub(r"\s*<form.*</form>", "", str(message))


def url_of(id_, *step):
    return "/".join([f"{LIST}{id_}", *(step or ["change"]), ""])


def statuses(mongo):
    return sorted(document["status"] for document in mongo["conversations"].find())
