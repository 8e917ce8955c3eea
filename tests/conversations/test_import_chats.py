"""Exports of ChatGPT, Open WebUI and LibreChat are imported; each adjustment is reported."""

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from conversation_service.mongodb.connection import collection
from conversations.jobs.chat_exports import files, read_export
from conversations.management.commands import import_chats
from tests.conversations.test_export import exported
from tests.conversations.test_import import make_older, purge
from tests.factories import PATH
from tests.failpoints import failing

DATA = Path(__file__).resolve().parents[1] / "data" / "chat_exports"
SOURCES = {
    path.name: path.stem.removesuffix("-2023").removesuffix("-2026") for path in DATA.glob("*.json")
}


@pytest.fixture
def run(mongo, tmp_path, capsys):
    """Run the command; return its exit code, its totals and the lines of its report."""

    def command(source, content, *arguments):
        """Import a file, or the bytes or the JSON of a file."""
        report = tmp_path / "report.ndjson"
        report.unlink(missing_ok=True)
        path = content
        if not isinstance(content, Path):
            path = tmp_path / "export"
            path.write_bytes(
                content if isinstance(content, bytes) else json.dumps(content).encode()
            )
        options = ["--from", source, "--user", "alice", "--json", "--report", str(report)]
        code, command.error = 0, ""
        try:
            call_command("import_chats", str(path), *options, *arguments)
        except CommandError as error:
            code, command.error = error.returncode, str(error)
        printed = capsys.readouterr().out
        assert stat.S_IMODE(report.stat().st_mode) == 0o600
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        return code, json.loads(printed) if printed else None, lines

    return command


def stored(alice):
    """Return the user's conversations by their id in the export."""
    return {line["custom"].get("source_id"): line for line in exported(alice)}


def times(line):
    return line["metadata"]["created_at"], line["metadata"]["last_activity"]


def chat(**fields):
    """Return a conversation of ChatGPT."""
    usual = {"title": "T", "create_time": 1700000000.5, "update_time": 1700000001, "mapping": {}}
    return {**usual, "conversation_id": "id", **fields}


def open_webui(**fields):
    inner = fields.pop("chat", {})
    return {"id": "id", "title": "T", "created_at": 1700000000, "updated_at": 1700000001} | {
        "chat": {"models": [], "history": {"messages": {}}, **inner},
        **fields,
    }


def test_an_export_of_chatgpt(alice, run):
    code, totals, report = run("chatgpt", DATA / "chatgpt.json", "--character", "luna")

    assert (code, totals["read"], totals["created"], totals["adjusted"]) == (0, 4, 4, 0)
    assert report == []
    whole, second, third, bare = (line for _id, line in sorted(stored(alice).items()))
    assert whole["title"] == "Pruning roses"
    assert times(whole) == ("2025-08-24T01:46:40.123Z", "2025-08-24T01:53:20.654Z")
    assert whole["custom"] == {
        "source": "chatgpt",
        "source_id": "6b0f0d9c-0000-4000-8000-000000000001",
    }
    models = [line["settings"]["model"] for line in (whole, second, third, bare)]
    assert models == ["gpt-5-thinking", "gpt-4o", "gpt-5", "gpt-5"]
    assert whole["settings_given"] == ["model"]
    assert {line["character_id"] for line in (whole, second, third, bare)} == {"luna"}
    assert (second["title"], second["title_source"]) == ("luna", "auto")
    assert (second["status"], second["custom"]["gizmo_id"]) == ("archived", "g-AbCdEf")
    assert second["pinned_at"] == "2023-11-14T22:13:26.250Z"
    assert times(second) == ("2023-11-14T22:13:20.500Z", "2023-11-14T22:13:26.250Z")
    assert times(third) == ("2023-07-22T04:26:40.000Z", "2023-07-22T04:26:45.250Z")
    assert third["pinned_at"] is not None
    assert bare["title"] == "Without messages"


def test_an_early_export_of_chatgpt(alice, run):
    code, totals, report = run("chatgpt", DATA / "chatgpt-2023.json")

    assert (code, totals["created"]) == (0, 2)
    assert [(line["number"], line["adjusted"]) for line in report] == [(2, ["external_id"])]
    assert {line["title"] for line in exported(alice)} == {"Kosmische Straße 🚀", "No id at all"}
    assert {line["character_id"] for line in exported(alice)} == {"unknown"}
    again = run("chatgpt", DATA / "chatgpt-2023.json")[1]
    assert (again["created"], again["unchanged"]) == (0, 2)


def test_an_export_of_open_webui(alice, run):
    code, totals, report = run("open-webui", DATA / "open-webui.json")

    assert (code, totals["created"]) == (0, 3)
    first, second, third = (line for _id, line in sorted(stored(alice).items()))
    assert (first["title"], first["tags"]) == ("🍲 Lentil Soup", ["Soup Kitchen", "dinner"])
    assert times(first) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:23:20.000Z")
    assert first["pinned_at"] is not None
    wanted = {"temperature": 0.3, "top_p": 0.5, "max_tokens": 512, "context_window": 8192}
    assert first["settings"].items() >= wanted.items()
    assert first["settings"]["stop_sequences"] == ["END"]
    assert second["status"] == "archived"
    assert second["settings"]["top_p"] == 0.8
    assert second["settings"]["max_tokens"] == 2048
    assert second["settings"]["model"] == "llama3.1:latest"
    assert second["custom"]["models"] == "llama3.1:latest, qwen3:8b"
    assert second["custom"]["folder_id"] == "f-7"
    assert (third["tags"], third["custom"].keys()) == (["Objects"], {"source", "source_id"})
    assert [(line["adjusted"], line["left_out"]) for line in report] == [
        ([], ["params.system"]),
        (["settings.model", "settings.max_tokens"], []),
    ]
    assert third["settings"]["model"] is None


def test_early_exports_of_open_webui(alice, run):
    assert run("open-webui", DATA / "open-webui-2023.json")[0] == 0

    bare, early = (line for _id, line in sorted(stored(alice).items()))
    assert (bare["title"], bare["settings"]["temperature"]) == ("Old shape", 0.9)
    assert bare["settings"]["max_tokens"] == 128
    assert times(bare) == ("2023-11-14T22:13:20.123Z", "2023-11-14T22:13:30.000Z")
    assert times(early)[1] == "2024-01-11T19:06:40.000Z"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s", b"%s\r\n", b"\n\n %s"])
def test_a_chat_of_open_webui_with_a_bom_and_crlf(alice, run, content):
    text = (DATA / "open-webui-single.json").read_bytes().replace(b"\n", b"\r\n")

    assert run("open-webui", content % text)[:1] == (0,)
    assert [line["title"] for line in exported(alice)] == ["One chat"]


@pytest.mark.parametrize(
    ("name", "title", "settings"),
    [
        ("librechat", "A long story", {"top_p": 0.25, "max_tokens": 1000, "context_window": 4096}),
        ("librechat-recursive", "Tree", {"top_p": 0.75, "max_tokens": 1024, "temperature": 0.2}),
        ("librechat-tree", "Older", {"top_p": 0.9}),
    ],
)
def test_exports_of_librechat(alice, run, name, title, settings):
    code, totals, report = run("librechat", DATA / f"{name}.json")

    prompts = {"promptPrefix": 1} if name == "librechat" else {}
    assert (code, totals["adjusted"], totals["left_out"]) == (0, 0, prompts)
    assert [line["left_out"] for line in report] == [[*prompts]] * len(prompts)
    [line] = exported(alice)
    assert line["title"] == title
    assert times(line) == ("2024-05-28T18:08:55.014Z", "2024-05-28T18:08:55.390Z")
    assert line["settings"].items() >= settings.items()
    assert line["settings"]["model"]
    assert line["custom"]["endpoint"] == json.loads((DATA / f"{name}.json").read_text()).get(
        "endpoint", "openAI"
    )


def test_an_export_of_chatgpt_with_projects_and_missing_fields(alice, run):
    code, totals, _report = run("chatgpt", DATA / "chatgpt-2026.json")

    assert (code, totals["created"]) == (0, 3)
    assert totals["left_out"] == {
        "disabled_tool_ids": 1, "voice": 1, "is_do_not_remember": 1, "plugin_ids": 1
    }  # fmt: skip
    assert totals["adjustments"] == {"title": 1, "created_at": 1}
    project, untitled, bare = (line for _id, line in sorted(stored(alice).items()))
    assert (project["custom"]["gizmo_id"], project["pinned_at"]) == (
        "g-p-68f0aa", "2026-01-01T00:06:40.250Z"
    )  # fmt: skip
    assert (untitled["title"], untitled["settings"]["model"]) == ("unknown", None)
    assert times(untitled) == ("2025-12-29T09:20:00.000Z", "2025-12-29T09:20:05.000Z")
    assert bare["title"] == "No messages, no times here"


def test_parameters_of_open_webui_become_settings_and_extra(alice, run):
    code, totals, report = run("open-webui", DATA / "open-webui-2026.json")

    assert (code, totals["created"]) == (0, 2)
    first, second = (line for _id, line in sorted(stored(alice).items()))
    assert first["settings"].items() >= {
        "model": "gpt-oss:20b", "reasoning_effort": "high", "max_tokens": 1024,
        "context_window": 8192, "stop_sequences": ["END"],
        "extra": {"seed": 42, "top_k": 40, "min_p": 0.05, "think": True, "keep_alive": "5m"},
    }.items()  # fmt: skip
    assert (first["tags"], first["custom"]["folder_id"]) == (["Garden plan", "🔥"], "f-9")
    assert first["settings_given"] == [
        "max_tokens", "context_window", "stop_sequences", "model", "reasoning_effort", "extra"
    ]  # fmt: skip
    assert (second["settings"]["model"], second["status"]) == ("qwen3:8b", "archived")
    assert times(second) == ("2025-10-09T00:00:00.000Z", "2025-10-09T09:03:20.000Z")
    left_out = ["num_predict", "logit_bias", "custom_params", "system"]
    assert [(line["adjusted"], line["left_out"]) for line in report] == [
        (
            ["settings.stop_sequences"],
            [*(f"params.{name}" for name in left_out), "share_id", "files"],
        ),
        (["created_at", "last_activity", "settings.model"], []),
    ]
    assert "SECRET" not in json.dumps(report)


def test_parameters_of_librechat_become_settings_and_extra(alice, run):
    code, totals, _report = run("librechat", DATA / "librechat-2026.json")

    assert (code, totals["adjusted"]) == (0, 0)
    assert totals["left_out"] == {"promptPrefix": 1, "modelLabel": 1, "tools": 1}
    [line] = exported(alice)
    assert line["settings"].items() >= {
        "model": "claude-opus-4-5", "reasoning_effort": "medium", "max_tokens": 32_000,
        "context_window": 200_000, "top_p": 0.7, "temperature": 1, "stop_sequences": ["END"],
    }.items()  # fmt: skip
    assert line["settings"]["extra"] == {
        "topK": 40, "thinking": True, "thinkingBudget": 2000, "verbosity": "low",
        "promptCache": True, "web_search": False, "imageDetail": "auto", "resendFiles": True,
    }  # fmt: skip
    assert line["custom"].items() >= {"agent_id": "agent_x1", "chatProjectId": "p-1"}.items()
    assert (line["tags"], line["pinned_at"] is not None) == (["Work", "R&D"], True)


@pytest.mark.parametrize(
    ("params", "left_out", "extra"),
    [
        ({"a.b": 1, "$where": "x", "k" * 65: 1}, ["a.b", "$where", "k" * 57], {}),
        ({"half \ud83d": 1}, ["half ?"], {}),
        ({"seed": 2**53, "n": float("nan"), "i": float("inf"), "b": 10**30}, [*"nib"], {}),
        ({"a": [1], "b": {}, "c": {"x": 5}, "d": {"y": {"z": 1}}}, [*"abcd"], {}),
        ({"flag": False, "zero": 0, "none": None, "empty": ""}, [], {"flag": False, "zero": 0}),
        ({f"k{n:02}": n for n in range(20)}, ["k16", "k17", "k18", "k19"], None),
        ({f"k{n:02}": [n] for n in range(90)}, [f"k{n:02}" for n in range(50)], {}),
    ],
)
def test_a_parameter_that_extra_cannot_have_is_reported(alice, run, params, left_out, extra):
    code, totals, _report = run("open-webui", [open_webui(chat={"params": params})])

    assert (code, totals["created"]) == (0, 1)
    wanted = {f"params.{name}": 1 for name in left_out}
    assert {k: v for k, v in totals["left_out"].items() if k != "params.seed"} == wanted
    [line] = exported(alice)
    assert extra is None or line["settings"]["extra"] == extra


def test_a_text_that_is_too_long_for_extra_is_reported(alice, run):
    params = {"format": "x" * 100_000, "reasoning_effort": "y" * 100_000}

    _code, totals, _report = run("open-webui", [open_webui(chat={"params": params})])

    assert totals["adjustments"] == {"settings.extra.format": 1, "settings.reasoning_effort": 1}


def test_verbose_output_has_each_conversation_with_an_adjustment(mongo, tmp_path, capsys):
    arguments = [
        "import_chats", str(DATA / "chatgpt-2026.json"), "--from", "chatgpt", "--user", "alice",
        "--report", str(tmp_path / "report"), "--verbosity", "2",
    ]  # fmt: skip
    call_command(*arguments)

    printed = capsys.readouterr().out
    assert "Not taken over:\n         1 disabled_tool_ids" in printed
    assert "Adjusted:\n         1 title" in printed
    assert "3 7c0f0d9c-0000-4000-8000-000000000003: created" in printed

    call_command(*arguments, "--json")
    assert all(map(json.loads, capsys.readouterr().out.splitlines()))


def test_rejections_are_counted_by_their_reason(alice, run):
    _code, totals, _report = run("chatgpt", [None, {"a": 1}, chat(), 5])

    assert totals["rejections"] == {"This is not a conversation of ChatGPT.": 3}


def test_the_database_of_librechat(alice, run):
    file = DATA / "librechat-mongoexport.json"

    code, totals, report = run("librechat", file)

    assert (code, totals["created"], totals["rejected"]) == (1, 2, 1)
    assert "another user" in report[0]["reason"]
    first, second = (line for _id, line in sorted(stored(alice).items()))
    assert times(first) == ("2024-05-01T16:35:11.530Z", "2024-05-02T16:35:11.530Z")
    assert (first["status"], second["status"]) == ("active", "archived")
    assert first["tags"] == ["Work"]
    assert first["settings"].items() >= {"max_tokens": 2000, "temperature": 0.5}.items()
    code, totals, report = run("librechat", file, "--source-user", "64d4f005d73ef522e1f48819")
    assert (code, totals["created"], totals["other_users"], report) == (0, 1, 2, [])


def test_several_exports_of_librechat_in_an_array(alice, run):
    names = ("librechat", "librechat-recursive", "librechat-tree")
    several = [json.loads((DATA / f"{name}.json").read_text()) for name in names]

    assert run("librechat", several)[1]["created"] == 3
    assert run("librechat", {"conversations": several})[1]["unchanged"] == 3


@pytest.mark.parametrize("name", SOURCES)
def test_a_second_run_changes_nothing(alice, run, name):
    source = "-".join(name.removesuffix(".json").split("-")[: 2 if name.startswith("open") else 1])
    run(source, DATA / name)
    before = list(collection("conversations").find())

    _code, totals, _report = run(source, DATA / name)

    assert totals["unchanged"] == len(before) > 0
    assert totals["created"] == 0
    assert list(collection("conversations").find()) == before
    assert "SECRET" not in repr(before)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_purged_conversation_stays_purged(alice, run, arguments):
    run("chatgpt", DATA / "chatgpt.json")
    gone = exported(alice)[0]
    purge(alice, gone["id"])

    code, totals, report = run("chatgpt", DATA / "chatgpt.json", *arguments)

    assert (code, totals["created"], totals["unchanged"], totals["purged"]) == (0, 0, 3, 1)
    assert [(line["source_id"], line["outcome"]) for line in report] == [
        (gone["custom"]["source_id"], "purged")
    ]
    assert len(exported(alice)) == 3


def test_a_dry_run_counts_and_writes_nothing(alice, run):
    code, totals, _report = run("chatgpt", DATA / "chatgpt.json", "--dry-run")

    assert (code, totals["created"], totals["dry_run"]) == (0, 4, True)
    assert exported(alice) == []
    run("chatgpt", DATA / "chatgpt.json")
    assert run("chatgpt", DATA / "chatgpt.json", "--dry-run")[1]["unchanged"] == 4


def test_an_imported_conversation_is_used_exported_and_imported_like_others(alice, bob, run):
    run("open-webui", DATA / "open-webui.json")
    [found] = alice.get(PATH, {"search": "lentil"}).json()["conversations"]
    alice.patch(f"{PATH}/{found['id']}", {"title": "Dinner"})
    make_older()

    assert exported(alice)
    assert run("open-webui", DATA / "open-webui.json")[1]["rejected"] == 0


def zipped(tmp_path, **files):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["conversations.json"],
        ["ChatGPT/conversations.json", "__MACOSX/ChatGPT/._conversations.json"],
        ["conversations-000.json", "conversations-001.json"],
    ],
)
def test_an_archive_of_chatgpt(alice, run, tmp_path, names):
    text = (DATA / "chatgpt.json").read_bytes()
    others = dict.fromkeys(["user.json", "shared_conversations.json", "chat.html"], "[{}]")
    files = {name: text for name in names if "MACOSX" not in name}

    code, totals, _ = run("chatgpt", zipped(tmp_path, **others, **files))

    assert code == 0
    assert (totals["created"], totals["repeated"]) == (4, 4 * (len(files) - 1))


def test_a_file_that_gzip_packed(alice, run):
    assert run("chatgpt", gzip.compress((DATA / "chatgpt.json").read_bytes()))[1]["created"] == 4


TEXT = (DATA / "chatgpt.json").read_bytes()
DAMAGED = {
    "empty": b"",
    "blank": b" \n",
    "no JSON": b"<html>not found</html>",
    "a string": b'"conversations"',
    "a number": b"5",
    "null": b"null",
    "UTF-16": TEXT.decode().encode("utf-16"),
    "UTF-16 without a BOM": TEXT.decode().encode("utf-16-le"),
    "UTF-32": TEXT.decode().encode("utf-32"),
    "a closing bracket too much": b"[]]",
    "text behind brackets": b"[" + b"x" * 100_000 + b"]",
    "an archive that is cut": None,
    "an archive without conversations": None,
    "gzip data that are cut": gzip.compress(TEXT)[:-20],
    "gzip data that are damaged": gzip.compress(TEXT)[:100] + b"\0\0\0" + gzip.compress(TEXT)[103:],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_export_is_rejected(alice, run, tmp_path, kind):
    content = DAMAGED[kind]
    if content is None:
        name = "other.json" if "without" in kind else "conversations.json"
        content = zipped(tmp_path, **{name: TEXT})
        if "cut" in kind:
            content.write_bytes(content.read_bytes()[:-50])

    code, totals, _report = run("chatgpt", content)

    assert code == 1
    assert run.error.startswith("FILE: ")
    assert totals["finished"] is True
    assert "Traceback" not in run.error


def test_a_missing_file_is_an_error(run):
    assert run("chatgpt", Path("/nowhere/export.json"))[0] == 1
    assert "/nowhere/export.json" in run.error


@pytest.mark.parametrize("length", [-1, -2, -3, -400, -2_000])
def test_the_conversations_before_the_end_of_a_cut_file_are_imported(alice, run, length):
    code, totals, _report = run("chatgpt", TEXT.rstrip()[:length])

    assert code == 1
    assert "incomplete" in run.error
    assert 1 <= totals["created"] <= 4
    assert len(exported(alice)) == totals["created"]
    code, totals, _report = run("chatgpt", TEXT)
    assert (code, totals["created"] + totals["unchanged"]) == (0, 4)


DAMAGES = [
    b'{"a": }', b"nul", b'{"mapping": {}, "title": "\xff" x}', b"}", b'{"a": "', b"9" * 5_000
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_conversations_before_a_damage_are_imported_and_the_error_names_its_place(
    alice, run, damage
):
    good = [json.dumps(chat(conversation_id=str(n))).encode() for n in range(3)]

    code, totals, report = run("chatgpt", b"[%b, %b, " % (*good[:2],) + damage + b"," + good[2])

    assert (code, totals["created"], report) == (1, 2, [])
    assert f"from character {len(good[0]) + len(good[1]) + 5:,} on" in run.error


NO_CONVERSATIONS = [
    b"null", b"5", b"true", b'"text, {}"', b"[]", b"[{}]", b"{}",
    b'{"title": "x"}',
    b'{"uuid": "claude", "name": "x", "chat_messages": []}',
    '{"mapping": {}, "title": "Stra\xdfe"}'.encode("latin-1"),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_CONVERSATIONS)
def test_a_value_that_is_no_conversation_is_rejected_alone(alice, run, value):
    good = [json.dumps(chat(conversation_id=str(n))).encode() for n in range(2)]

    code, totals, report = run("chatgpt", b"[" + good[0] + b" ,\n" + value + b"," + good[1] + b"]")

    assert (code, totals["created"]) == (1, 2)
    assert totals["rejected"] >= 1
    assert {line["outcome"] for line in report} == {"rejected"}
    assert report[0]["number"] == 2


@pytest.mark.parametrize("source", ["chatgpt", "open-webui", "librechat"])
def test_an_export_of_another_program_is_rejected(alice, run, source):
    others = {
        "chatgpt": "open-webui.json", "open-webui": "librechat.json", "librechat": "chatgpt.json"
    }  # fmt: skip

    code, totals, report = run(source, DATA / others[source])

    assert code == 1
    assert totals["created"] == 0
    assert all("not a conversation of" in line["reason"] for line in report)


NOW = datetime.now(UTC).timestamp()
ADJUSTED = [
    ({"title": "x" * 10_000}, ["title"], {"title": "x" * 200}),
    ({"title": "🚀" * 10_000}, ["title"], {"title": "🚀" * 200}),
    ({"title": "two\nlines"}, ["title"], {"title": "two lines"}),
    ({"title": "cut \ud83d"}, ["title"], {"title": "cut \ufffd"}),
    ({"title": "\ud83d\ude80"}, [], {"title": "🚀"}),
    ({"title": 5}, [], {"title": "5"}),
    ({"title": ["x"]}, ["title"], {"title": "unknown"}),
    ({"title": "\0"}, ["title"], {"title": "unknown"}),
    ({"create_time": 1700000000500}, ["created_at"], {"created_at": "2023-11-14T22:13:20.500Z"}),
    ({"create_time": "2023-11-14T22:13:20.500Z"}, [], {"created_at": "2023-11-14T22:13:20.500Z"}),
    ({"create_time": "1700000000.5"}, ["created_at"], {"created_at": "2023-11-14T22:13:20.500Z"}),
    ({"create_time": " 1700000000 "}, ["created_at"], {"created_at": "2023-11-14T22:13:20.000Z"}),
    ({"create_time": "1700000000500"}, ["created_at"], {"created_at": "2023-11-14T22:13:20.500Z"}),
    ({"create_time": "20230131"}, ["created_at"], {"created_at": "2023-01-31T00:00:00.000Z"}),
    ({"create_time": "202301311545"}, ["created_at"], {"created_at": "2023-01-31T15:45:00.000Z"}),
    ({"create_time": "20230131154501"}, ["created_at"], {"created_at": "2023-01-31T15:45:01.000Z"}),
    ({"create_time": "2023-01-31"}, ["created_at"], {"created_at": "2023-01-31T00:00:00.000Z"}),
    ({"create_time": "2023-01-31T15"}, ["created_at"], {"created_at": "2023-01-31T15:00:00.000Z"}),
    ({"create_time": "20231301"}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": "2023"}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": "yesterday"}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": "٢٠٢٣"}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": ""}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": -1}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": 0}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": float("nan")}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": float("inf")}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": 10**400}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": True}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": {}}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"create_time": []}, ["created_at"], {"created_at": "2023-11-14T22:13:21.000Z"}),
    ({"update_time": 4e9}, ["last_activity"], {}),
    ({"update_time": 5}, ["last_activity"], {"last_activity": "2023-11-14T22:13:20.500Z"}),
    ({"create_time": None, "update_time": None}, ["created_at"], {}),
    ({"is_archived": "yes"}, ["status"], {"status": "active"}),
    ({"is_archived": {}}, ["status"], {"status": "active"}),
    ({"is_archived": 1}, [], {"status": "archived"}),
    ({"is_starred": "no"}, ["pinned"], {"pinned_at": None}),
    ({"default_model_slug": "m" * 600}, ["settings.model"], {}),
    ({"default_model_slug": "two\nlines"}, ["settings.model"], {}),
    ({"default_model_slug": ["m"]}, ["settings.model"], {}),
    ({"conversation_id": "x" * 300}, ["external_id"], {}),
    ({"conversation_id": None, "id": None}, ["external_id"], {}),
    ({"conversation_id": {"a": 1}}, ["external_id"], {}),
    ({"conversation_id": 7}, [], {}),
    ({"create_time": None, "update_time": None, "mapping": {"message": {"create_time": 0}}},
     ["created_at"], {}),
    ({"mapping": None, "current_node": None, "moderation_results": None}, [], {}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "adjusted", "values"), ADJUSTED, ids=range(len(ADJUSTED)))
def test_a_faulty_value_is_reported_and_the_conversation_imported(
    alice, run, fields, adjusted, values
):
    code, totals, report = run("chatgpt", [chat(**fields)])

    assert (code, totals["created"], totals["adjusted"]) == (0, 1, bool(adjusted))
    assert [line["adjusted"] for line in report] == ([adjusted] if adjusted else [])
    [line] = exported(alice)
    line |= line["metadata"]
    assert {name: line[name] for name in values} == values
    assert line["last_activity"] <= datetime.now(UTC).isoformat()


@pytest.mark.parametrize(
    ("fields", "adjusted"),
    [
        ({"chat": {"params": {"temperature": "warm"}}}, ["settings.temperature"]),
        ({"chat": {"params": {"temperature": float("nan")}}}, ["settings.temperature"]),
        ({"chat": {"params": {"temperature": 99}}}, ["settings.temperature"]),
        ({"chat": {"params": {"max_tokens": 20.5}}}, ["settings.max_tokens"]),
        ({"chat": {"params": {"max_tokens": 10**30}}}, ["settings.max_tokens"]),
        ({"chat": {"params": {"max_tokens": True}}}, ["settings.max_tokens"]),
        ({"chat": {"params": {"stop": ["x" * 10_000, "y"]}}}, ["settings.stop_sequences"]),
        ({"chat": {"params": {"stop": [1, {}, None]}}}, ["settings.stop_sequences"]),
        ({"chat": {"params": {"stop": "\0"}}}, ["settings.stop_sequences"]),
        ({"chat": {"models": ["a\0\ud800"]}}, ["settings.model"]),
        ({"chat": {"params": []}}, []),
        ({"chat": {"tags": "x"}}, ["tags"]),
        ({"chat": {"tags": ["a,b"]}}, ["tags"]),
        ({"chat": {"tags": [{}, None, "a"]}}, []),
        ({"chat": {"tags": [f"t{n}" for n in range(1_000)]}}, ["tags"]),
        ({"meta": [], "user_id": None}, []),
        ({"meta": {"tags": 5}}, ["tags"]),
        ({"chat": {"models": None, "history": None, "timestamp": None}}, []),
        ({"created_at": 1700000000000}, ["created_at"]),
        ({"updated_at": 1700000001 * 10**9}, ["last_activity"]),
        ({"folder_id": {}}, ["custom.folder_id"]),
    ],
)
def test_a_faulty_value_of_open_webui_is_reported(alice, run, fields, adjusted):
    code, totals, report = run("open-webui", json.dumps([open_webui(**fields)]).encode())

    assert (code, totals["created"]) == (0, 1)
    assert [line["adjusted"] for line in report] == ([adjusted] if adjusted else [])
    assert len(exported(alice)) == 1


def test_files_one_behind_the_other_are_one_file(alice, run):
    texts = [json.dumps([chat(conversation_id=str(n))]).encode() for n in range(3)]

    assert run("chatgpt", b"\r\n".join(b"\xef\xbb\xbf" + text for text in texts))[0] == 0
    assert len(exported(alice)) == 3


def test_a_repeated_id_is_reported_and_the_first_is_imported(alice, run):
    code, totals, report = run("chatgpt", [chat(title="First"), chat(title="Second")])

    assert (code, totals["created"], totals["repeated"]) == (0, 1, 1)
    assert report[0]["outcome"] == "repeated"
    assert [line["title"] for line in exported(alice)] == ["First"]


def test_ids_of_different_programs_and_users_differ(alice, run):
    run("chatgpt", [chat()])
    run("open-webui", [open_webui()])

    assert len(exported(alice)) == 2


def nested(depth):
    messages = '{"createdAt": "2024-05-28T19:00:00Z", "text": "]}", "children": [' * depth
    tree = '{"createdAt": "2024-05-28T18:00:00Z", "text": "\\"", "children": [' + messages
    text = '{"conversationId": "x", "title": "Deep", "messages": [%s], "options": {"top_p": 0.5}}'
    return (text % (tree + "]}" * (depth + 1))).encode()


def test_a_nested_conversation_is_imported_with_the_times_of_its_messages(alice, run):
    assert run("librechat", nested(300))[0] == 0

    [line] = exported(alice)
    assert times(line) == ("2024-05-28T18:00:00.000Z", "2024-05-28T19:00:00.000Z")
    assert line["settings"]["top_p"] == 0.5


def test_a_conversation_that_is_nested_too_deeply_is_an_error_with_a_remedy(alice, run):
    assert run("librechat", nested(50_000))[0] == 1
    assert 'without "Recursive"' in run.error


@pytest.mark.parametrize("size", [4, 5, 7, 64])
def test_the_size_of_the_parts_that_are_read_does_not_matter(alice, run, monkeypatch, size):
    titles = ['a"b', "back\\", '\\\\"]', "{[}", "é🚀"]
    text = json.dumps([chat(title=t, conversation_id=t) for t in titles], ensure_ascii=False)
    monkeypatch.setattr(files, "_CHUNK", size)

    assert run("chatgpt", text.encode())[0] == 0
    assert {line["title"] for line in exported(alice)} == {*titles}
    assert run("chatgpt", b"[123456, 1234567, null]")[1]["rejected"] == 3


def test_a_conversation_above_the_limit_ends_the_import_with_an_error(alice, run, monkeypatch):
    monkeypatch.setattr(files, "MAX_LENGTH", 2**20)
    largest = chat(conversation_id="largest", mapping={"text": ""})
    largest["mapping"]["text"] = "x" * (2**20 - len(json.dumps(largest)))
    large = chat(conversation_id="large", mapping={"text": "x" * 2**20})

    code, totals, _report = run("chatgpt", [chat(), largest, large])

    assert (code, totals["created"]) == (1, 2)
    assert "more than 1 MiB" in run.error


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "large.json"
    one = json.dumps(chat(mapping={"text": "x" * 2**20})).encode()
    with path.open("wb") as file:
        file.write(b"[" + one)
        for _ in range(150):
            file.write(b"," + one)
        file.write(b"]")
    script = (
        "import django, resource, sys; from pathlib import Path; django.setup();"
        "from conversations.jobs.chat_exports import read_export;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak(); n = sum(1 for _ in read_export('chatgpt', Path(sys.argv[1])));"
        "print(n, (peak() - before) // 1024)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )

    number, grown_mib = map(int, done.stdout.split())
    assert number == 151
    assert grown_mib < 60


def test_the_quota_of_the_user_applies(alice, run, settings):
    settings.MAX_CONVERSATIONS_PER_USER = 2

    code, totals, report = run("chatgpt", DATA / "chatgpt.json")

    assert (code, totals["created"], totals["rejected"]) == (1, 2, 2)
    assert {line["code"] for line in report} == {"QUOTA_EXCEEDED"}


def test_several_batches(alice, run):
    many = [
        chat(conversation_id=str(n), create_time=None if n % 50 == 0 else n + 1) for n in range(450)
    ]
    many[7] = None

    code, totals, report = run("chatgpt", many)

    assert (code, totals["read"], totals["created"], totals["rejected"]) == (1, 450, 449, 1)
    assert [line["number"] for line in report if line["outcome"] == "rejected"] == [8]


def test_the_text_output_has_the_numbers(mongo, tmp_path, capsys):
    call_command(
        "import_chats", str(DATA / "chatgpt.json"), "--from", "chatgpt", "--user", "alice",
        "--report", str(tmp_path / "report"),
    )  # fmt: skip

    printed = capsys.readouterr().out
    assert "4 imported, 0 of them adjusted" in printed


def test_a_failure_of_mongodb_ends_the_run_and_the_next_run_completes_it(alice, run):
    many = [chat(conversation_id=str(n)) for n in range(450)]
    with failing(commands=["find"], errorCode=11600, times=None):
        assert run("chatgpt", many)[0] == 3
    with failing(commands=["insert"], errorCode=11600, times=None):
        assert run("chatgpt", many)[0] == 3
    assert "Run it again" in run.error
    assert "conversation_id" not in run.error

    code, totals, _report = run("chatgpt", many)

    assert (code, totals["created"]) == (0, 450)


def test_a_signal_ends_the_run_after_the_batch(alice, run, monkeypatch):
    def interrupted(source, path):
        for each in read_export(source, path):
            if each.number == 250:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    monkeypatch.setattr(import_chats, "read_export", interrupted)
    many = [chat(conversation_id=str(n)) for n in range(450)]

    code, totals, _report = run("chatgpt", many)

    assert (code, totals["finished"]) == (4, False)
    assert totals["created"] == totals["read"] == len(exported(alice)) == 249
    monkeypatch.undo()
    assert run("chatgpt", many)[1]["created"] == 201
