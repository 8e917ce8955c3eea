"""CORS_ALLOWED_ORIGINS and CSRF_TRUSTED_ORIGINS take exact origins; an error gives the reason."""

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
    "https://app.example.org:08443": "shorter",
    "http://[0:0:0:0:0:0:0:1]:3000": "shorter",
    "http://[::01]": "shorter",
    "https://a.example.org https://b.example.org": "path",
}
# Accepted in CSRF_TRUSTED_ORIGINS only, or in CORS_ALLOWED_ORIGINS only.
WILDCARD = "https://*.example.org"
OF_APPS = ["capacitor://localhost", "chrome-extension://abcdefghijklmnop"]


def test_a_list_of_origins_is_accepted():
    websites = [origin for origin in VALID if origin not in OF_APPS]

    assert faults(CORS_ALLOWED_ORIGINS=", ".join(VALID)) == []
    assert faults(CSRF_TRUSTED_ORIGINS=", ".join([*websites, WILDCARD, f"{WILDCARD}:81"])) == []


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


@pytest.mark.parametrize(
    "origin",
    [
        *(origin for origin in REASONS if origin != WILDCARD),
        *OF_APPS,
        *("http://x:99999", "https://*", "https://*.", "https://*.*.example.org", "https://a.*"),
        *("https://*example.org", "*.example.org", "https://*.Example.org", f"{WILDCARD}/"),
    ],
)
def test_an_origin_of_forms_that_never_matches_is_rejected(origin):
    [fault] = faults(CSRF_TRUSTED_ORIGINS=f"https://console.example.org,{origin}")

    assert fault.startswith("CSRF_TRUSTED_ORIGINS item 2 ")
    assert "such as https://app.example.org" in fault
    assert "secret" not in fault


def test_only_development_allows_every_port_of_this_machine():
    expression = "getattr(settings, 'CORS_ALLOWED_ORIGIN_REGEXES', [])"

    assert show(expression, **FIT) == "[]"
    assert "localhost" in show(expression, ENVIRONMENT="development")
