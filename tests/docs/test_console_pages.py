"""The pages about the console: equal in both languages, and correct for its roles."""

import re
from collections import Counter

import pytest
from django.contrib.auth.models import Group, Permission

from config.env import BASE_DIR
from conversations.admin import roles

ENGLISH, SPANISH = (
    (BASE_DIR / "docs" / name).read_text(encoding="utf-8") for name in ("console.md", "consola.md")
)
ROW = re.compile(r"^\| .* \|$", re.MULTILINE)
# The permissions for each row of the table of roles.
NEEDS = (
    *("LOOK", "ARCHIVE", "REVERT", "TRASH", "HOLD", "BULK", "EXPORT"),
    *("WEBHOOKS", "MANAGE_WEBHOOKS", "LOG"),
)


def test_both_have_the_same_form():
    for part in (r"^#+(?= )", r"^- ", r"^\| --- .*"):
        found = [re.findall(part, text, re.MULTILINE) for text in (ENGLISH, SPANISH)]
        assert found[0]
        assert found[0] == found[1]
    cells = [[row.count("|") for row in ROW.findall(text)] for text in (ENGLISH, SPANISH)]
    assert cells[0] == cells[1]


def test_both_name_the_same_things_in_code():
    assert Counter(re.findall(r"`[^`]+`", ENGLISH)) == Counter(re.findall(r"`[^`]+`", SPANISH))


def permissions_of(role: str) -> set[str]:
    granted = Permission.objects.filter(group=Group.objects.get(name=role))
    return {f"{row.content_type.app_label}.{row.codename}" for row in granted}


@pytest.mark.parametrize(("text", "yes"), [(ENGLISH, "yes"), (SPANISH, "sí")], ids=["en", "es"])
def test_the_table_of_roles_equals_their_permissions(text: str, yes: str):
    _, table = text.split("| support | operator | auditor |\n")
    rows = [row.split("|") for row in table.splitlines()[1 : len(NEEDS) + 1]]
    granted = {role: permissions_of(role) for role in ("support", "operator", "auditor")}

    for (_, _, *cells, _), needed in zip(rows, NEEDS, strict=True):
        for role, cell in zip(granted, cells, strict=True):
            may = getattr(roles, needed) in granted[role]
            assert (cell.strip() == yes) == may, (needed, role)
