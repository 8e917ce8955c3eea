"""CORS_ALLOWED_ORIGINS takes exact origins only, and an error gives the reason."""

import pytest

from tests.config.test_settings import FIT, show
from tests.config.test_validation import faults

VALID = [
    *("https://app.example.org", "http://localhost:3000", "https://app.example.org:8443"),
    *("http://127.0.0.1:5173", "http://[::1]:3000", "https://xn--caf-dma.example"),
    *("capacitor://localhost", "chrome-extension://abcdefghijklmnop"),
]
REASONS = {
    "null": "null",
    "*": "*",
    "https://*.example.org": "*",
    "https://app.example.org/": "slash",
    "https://app.example.org/path": "path",
    "https://app.example.org?x": "path",
    "https://app.example.org#x": "path",
    "app.example.org": "begin",
    "localhost:3000": "begin",
    "file://": "begin",
    "ftp://example.org": "begin",
    "//app.example.org": "begin",
    "https://": "host",
    "https://:8443": "host",
    "https://app.example.org:": "port",
    "https://app.example.org:0": "port",
    "https://app.example.org:70000": "port",
    "https://app.example.org:x": "port",
    "https://a b": "host",
    "https://1.2.3": "host",
    "https://[::g]": "host",
    "https://user:secret@app.example.org": "password",
    "https://App.example.org": "capital",
    "HTTPS://app.example.org": "capital",
    "https://café.example": "Punycode",
    "https://app.example.org:443": "default port",
    "http://app.example.org:80": "default port",
    "https://a.example.org https://b.example.org": "path",
}


def test_a_list_of_origins_is_accepted():
    assert faults(CORS_ALLOWED_ORIGINS=", ".join(VALID)) == []


@pytest.mark.parametrize("value", ["", " ", ","])
def test_an_empty_list_allows_none(value):
    assert faults(CORS_ALLOWED_ORIGINS=value) == []
    assert show("settings.CORS_ALLOWED_ORIGINS", **FIT | {"CORS_ALLOWED_ORIGINS": value}) == "[]"


@pytest.mark.parametrize("origin", REASONS)
def test_an_error_gives_position_and_reason(origin):
    [fault] = faults(CORS_ALLOWED_ORIGINS=f"https://app.example.org,{origin}")

    assert fault.startswith("CORS_ALLOWED_ORIGINS item 2 ")
    assert REASONS[origin] in fault
    assert "such as https://app.example.org" in fault
    assert "secret" not in fault


def test_only_development_allows_every_port_of_this_machine():
    expression = "getattr(settings, 'CORS_ALLOWED_ORIGIN_REGEXES', [])"

    assert show(expression, **FIT) == "[]"
    assert "localhost" in show(expression, ENVIRONMENT="development")
