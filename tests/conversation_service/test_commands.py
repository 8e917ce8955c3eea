"""Help, options and errors of all commands of the service."""

import re
from argparse import ArgumentTypeError

import pytest
from django.core.management import get_commands, load_command_class

from conversation_service import commands

OURS = [
    (app, name)
    for name, app in sorted(get_commands().items())
    if app in {"conversation_service", "conversations"}
]
every_command = pytest.mark.parametrize(("app", "name"), OURS, ids=[name for _, name in OURS])


# Their output has no JSON form.
WITHOUT_JSON = {"issue_token", "run_neighbours"}
CHANGE_NOTHING = {"diagnose", "inspect_conversation", "issue_token", "run_neighbours"}
SHORT = CHANGE_NOTHING | {"webhooks"}  # a statement or two
# A smoke test must write; it leaves only a tombstone. `webhooks` does what its action names.
WITHOUT_DRY_RUN = CHANGE_NOTHING | {"smoke_test", "webhooks"}
MEANINGS = {
    "2": "an invalid option",
    "3": "MongoDB is unavailable; stderr has the reason",
    "5": "the account, replica set or TLS in MONGODB_URL is wrong, or a permission is missing",
}


def shown(app, name):
    return load_command_class(app, name).create_parser("manage.py", name).format_help()


@every_command
def test_help_ends_with_exit_codes_and_a_working_example(app, name):
    _, _, end = shown(app, name).partition("exit codes:\n")
    codes, _, examples = end.partition("\n\nexamples:\n")
    first = examples.splitlines()[0].split()

    documented = dict(re.findall(r"^  (\d)  (\w.*)", codes, re.MULTILINE))
    assert list(documented)[:3] == ["0", "1", "2"]
    assert set(documented) <= set("012345")
    assert {(code, documented[code]) for code in MEANINGS if code in documented} <= MEANINGS.items()
    assert first[:2] == ["manage.py", name]
    load_command_class(app, name).create_parser("manage.py", name).parse_args(first[2:])
    assert max(map(len, shown(app, name).splitlines())) <= 100


@every_command
def test_common_options_have_one_name_and_one_meaning(app, name):
    text = " ".join(shown(app, name).split())

    json = "--json print a JSON object per line; the last is the result"
    assert (json in text) is (name not in WITHOUT_JSON)
    dry_run = "print the changes without making them"
    assert (dry_run in text) is (name not in WITHOUT_DRY_RUN)


@every_command
def test_an_interrupted_command_says_so(app, name):
    runs_long = name not in SHORT

    assert ("\n  4  " in shown(app, name)) is runs_long
    assert ("Ctrl-C and SIGTERM end" in " ".join(shown(app, name).split())) is runs_long


def test_help_lists_own_options_before_common_ones():
    command = load_command_class("conversations", "purge_trash")
    shown = command.create_parser("manage.py", "purge_trash").format_help()

    assert shown.rindex("--dry-run  ") < shown.rindex("--version  ")


@every_command
def test_an_unknown_option_exits_with_2(app, name, capsys):
    command = load_command_class(app, name)

    with pytest.raises(SystemExit) as refused:
        command.run_from_argv(["manage.py", name, "--nonsense"])

    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("read", "rule"),
    [(commands.positive_int, "an integer of at least 1"), (commands.positive_float, "above 0")],
)
@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "1e999"])
def test_a_wrong_number_gets_the_rule(read, rule, text):
    with pytest.raises(ArgumentTypeError, match=f"^use .*{rule}$"):
        read(text)
