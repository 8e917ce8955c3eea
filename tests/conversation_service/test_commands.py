"""What all of our commands have in common."""

import re

import pytest
from django.core.management import get_commands, load_command_class

OURS = [
    (app, name)
    for name, app in sorted(get_commands().items())
    if app in {"conversation_service", "conversations"}
]
every_command = pytest.mark.parametrize(("app", "name"), OURS, ids=[name for _, name in OURS])


@every_command
def test_help_ends_with_exit_codes_and_an_example_that_works(app, name):
    command = load_command_class(app, name)
    shown = command.create_parser("manage.py", name).format_help()

    _, _, end = shown.partition("exit codes:\n")
    codes, _, examples = end.partition("\n\nexamples:\n")
    first = examples.splitlines()[0].split()
    assert re.findall(r"^  (\d)  \w", codes, re.MULTILINE) == ["0", "1", "2"]
    assert "wrong option" in codes
    assert first[:2] == ["manage.py", name]
    command.create_parser("manage.py", name).parse_args(first[2:])
    assert max(map(len, shown.splitlines())) <= 100


def test_what_a_command_can_do_stands_before_what_all_can():
    command = load_command_class("conversations", "purge_trash")
    shown = command.create_parser("manage.py", "purge_trash").format_help()

    assert shown.rindex("--dry-run  ") < shown.rindex("--version  ")


@every_command
def test_an_option_that_does_not_exist_exits_with_2(app, name, capsys):
    command = load_command_class(app, name)

    with pytest.raises(SystemExit) as refused:
        command.run_from_argv(["manage.py", name, "--nonsense"])

    assert refused.value.code == 2
