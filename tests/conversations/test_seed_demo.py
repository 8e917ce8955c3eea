import pytest
from django.core.management import CommandError, call_command

from tests.factories import PATH, client_of


def test_demo_data_is_there_once(capsys):
    call_command("seed_demo", conversations=20)
    call_command("seed_demo", conversations=20)

    output = capsys.readouterr().out
    assert output == ("Created 20 conversations.\nThere is demo data already; nothing changed.\n")
    listed = client_of("demo").get(PATH, {"status": "all"}).json()
    assert listed["pagination"]["total_count"] == 10


def test_none_is_not_a_number_of_conversations():
    with pytest.raises(CommandError, match="at least 1"):
        call_command("seed_demo", conversations=0)
