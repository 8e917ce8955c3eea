"""The restore of the deployment guide, with its own commands."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from bson import json_util

from config.env import BASE_DIR
from conversation_service import clock
from conversations import collection
from tests.deployment.manifests import containers, pods, read
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


def test_the_restore_test_of_the_guide_succeeds(alice, mongo, tmp_path):
    conversation(alice, title="Of yesterday")
    conversation(alice, "deleted")
    [backup] = re.findall(r"^python manage\.py backup .*$", GUIDE, re.MULTILINE)
    [restore] = re.findall(r"^export MONGODB_URL.*?(?=^```)", GUIDE, re.MULTILINE | re.DOTALL)
    restored = f"{mongo.name}_restored"

    run(backup, tmp_path, mongo.name)
    try:
        run(restore, tmp_path, restored)
        rows = {row["title"] for row in mongo.client[restored].conversations.find()}
    finally:
        mongo.client.drop_database(restored)

    assert "Of yesterday" in rows
    assert len(rows) == 2


def test_the_scheduled_backup_deletes_only_old_ones(mongo, tmp_path):
    [_, job] = read("examples/backup.yaml")
    [(_, pod)] = pods([job])
    [container] = containers(pod)
    old, kept, lost = tmp_path / "2026-01-01", tmp_path / "2026-01-02", tmp_path / "lost+found"
    for folder, days in ((old, 31), (kept, 29), (lost, 31)):
        folder.mkdir()
        at = time.time() - days * 86_400
        os.utime(folder, (at, at))

    run(container["command"][2], tmp_path, mongo.name)

    [new] = {*tmp_path.iterdir()} - {kept, lost}
    assert (new / "SHA256SUMS").exists()
    assert f"{container['volumeMounts'][-1]['mountPath']}/" in container["command"][2]


def run(lines: str, backups: Path, database: str) -> None:
    """Run commands of the guide in a shell: /backups is a folder of the test."""
    lines = lines.replace("/backups", str(backups))
    lines = lines.replace("python ", f"{sys.executable} ")
    environment = os.environ | {  # noqa: TID251
        "NEW_URL": os.environ["MONGODB_URL"],  # noqa: TID251
        "MONGODB_DATABASE": database.removeprefix("test_"),
        "ENVIRONMENT": "test",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", lines],  # noqa: S607
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
