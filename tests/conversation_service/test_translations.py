import io
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parents[2]
KEYWORDS = {"_": None, "gettext": None, "gettext_lazy": None, "ngettext": (1, 2)}
METHODS = [("**.py", "python"), ("**/templates/**.html", "tests.templates:extract")]


def catalog(app):
    path = ROOT / app / "locale" / "es" / "LC_MESSAGES" / "django.po"
    with path.open("rb") as file:
        return path, read_po(file, locale="es")


@pytest.mark.parametrize("app", ["conversation_service", "conversations"])
def test_every_public_text_has_a_spanish_translation(app):
    _, spanish = catalog(app)
    found = extract_from_dir(ROOT / app, method_map=METHODS, keywords=KEYWORDS)

    for _file, _line, message, *_rest in found:
        single = message if isinstance(message, str) else message[0]
        translated = spanish.get(single)
        assert translated is not None, f"{single!r}: make messages collects it"
        assert translated.string, f"{single!r} has no translation"
        assert not translated.fuzzy


@pytest.mark.parametrize("app", ["conversation_service", "conversations"])
def test_the_compiled_translations_are_current(app):
    path, spanish = catalog(app)
    compiled = io.BytesIO()
    write_mo(compiled, spanish)

    assert path.with_suffix(".mo").read_bytes() == compiled.getvalue(), "make messages compiles it"
