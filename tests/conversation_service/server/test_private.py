"""Private names of libraries are used in one file, with the reason and the version."""

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOTS = ("config", "conversation_service", "conversations")
PRIVATE = Path("conversation_service/server/private.py")
SOURCES = [path for root in ROOTS for path in sorted(Path(root).rglob("*.py")) if path != PRIVATE]
OWN = {"self", "cls"}
# Of Django's models, of named tuples, and of drf-spectacular's extensions.
DOCUMENTED = {"_meta", "_asdict", "_replace", "_fields", "_map_serializer_field"}


def private_uses(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            is_own = isinstance(node.value, ast.Name) and node.value.id in OWN
            is_super = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if not (is_own or is_super or node.attr in DOCUMENTED):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if re.match(r"_[a-z]", name))


def own_names(tree):
    """Return the names with a leading _ that the file itself defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in OWN:
                yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_other_file_uses_a_private_name(path):
    tree = ast.parse(path.read_text())
    own = {*own_names(tree)}

    assert [use for use in private_uses(tree) if use.rpartition(".")[2] not in own] == []


def test_the_stated_versions_are_installed():
    named = re.findall(
        r"^# (gunicorn|gevent|PyMongo) (\d+\.\d+)", PRIVATE.read_text(), re.MULTILINE
    )

    assert {name for name, _ in named} == {"gunicorn", "gevent", "PyMongo"}
    for name, number in named:
        assert version(name).startswith(f"{number}."), name


def test_a_condition_checks_its_lock_without_a_switch_to_other_greenlets():
    program = """if True:
        from gevent import monkey
        monkey.patch_all()
        from conversation_service.server import private
        private.change_gevent()
        import threading, gevent
        ran = []
        other = gevent.spawn(lambda: ran.append(1))
        condition = threading.Condition(threading.Lock())
        with condition:
            condition.notify()
        print(len(ran))
    """
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert printed == "0\n"


def test_a_log_record_has_no_caller():
    program = """if True:
        import logging, sys
        from conversation_service.server import private
        private.skip_callers()
        names = "%(lineno)s %(funcName)s %(threadName)s %(processName)s"
        logging.basicConfig(format=names, stream=sys.stdout)
        logging.warning("text")
    """
    logged = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert logged == "0 (unknown function) None None\n"
