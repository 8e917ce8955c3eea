"""The restore of the deployment guide, with its own commands."""

import re

from bson import json_util

from config.env import BASE_DIR
from conversation_service import clock
from conversations import collection
from tests.factories import PATH, conversation

GUIDE = (BASE_DIR / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_conversations_purged_since_the_backup_are_not_restored(alice, mongo):
    backed_up_at = clock.now()
    conversation(alice, title="Kept")
    path = f"{PATH}/{conversation(alice, title='Purged')['id']}"
    before = collection.conversations().find_one({"title": "Purged"})
    for address in (path, f"{path}?mode=purge"):
        assert alice.delete(address).status_code in {200, 204}
    save, bring_back = pipelines(database=mongo.name, moment=backed_up_at.isoformat())

    mongo["conversations"].aggregate(save)
    mongo["conversations"].replace_one({"_id": before["_id"]}, before)
    assert titles(alice) == {"Kept", "Purged"}
    mongo["purged_since"].aggregate(bring_back)

    assert titles(alice) == {"Kept"}
    assert alice.get(path).status_code == 404


def titles(client) -> set[str]:
    return {item["title"] for item in client.get(PATH).json()["conversations"]}


def pipelines(*, database: str, moment: str) -> list[list[dict]]:
    """Return the pipelines that the guide shows for the shell."""
    texts = re.findall(r"\.aggregate\((\[.*?\])\)$", GUIDE, re.MULTILINE | re.DOTALL)
    return [json_util.loads(as_json(text, database, moment)) for text in texts]


def as_json(text: str, database: str, moment: str) -> str:
    text = text.replace('"conversation_service"', f'"{database}"')
    text = text.replace('ISODate("MOMENT")', f'{{"$date": "{moment}"}}')
    text = re.sub(r"([{,]\s*)(\$?\w+):", r'\1"\2":', text)
    return re.sub(r",(\s*[\]}])", r"\1", text)
