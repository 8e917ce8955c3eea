"""A GET that nothing on the other side can prolong."""

import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conversation_service import bounded_http
from tests.conversation_service import loopback


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """A certificate for 127.0.0.1, which this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    bounded_http._tls.cache_clear()
    yield path
    bounded_http._tls.cache_clear()


def secured(certificate, talk: loopback.Talk) -> loopback.Talk:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk_secured(channel):
        with context.wrap_socket(channel, server_side=True) as encrypted:
            talk(encrypted)

    return talk_secured


def get(address: str, *, scheme: str = "http", limit: int = 100):
    return bounded_http.get(f"{scheme}://{address}/x?y=1", timeout_s=0.3, limit=limit)


def test_status_and_body_come_back():
    with loopback.serving(loopback.answer(b"gone", status="410 Gone")) as address:
        assert get(address) == (410, b"gone")


def test_path_and_query_are_sent():
    lines = []

    with loopback.serving(lambda channel: lines.append(loopback.reply(channel, b""))) as address:
        get(address)

    assert lines == ["GET /x?y=1 HTTP/1.1"]


def test_a_body_above_the_limit_is_refused():
    with (
        loopback.serving(loopback.answer(b"x" * 101)) as address,
        pytest.raises(ValueError, match="more than 100 bytes"),
    ):
        get(address)


def endless_body(channel) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        channel.sendall(b"x")
        time.sleep(0.02)


def test_without_a_limit_the_body_is_not_waited_for():
    with loopback.serving(endless_body) as address:
        assert get(address, limit=0) == (200, b"")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("talk", [loopback.silence, loopback.trickle, endless_body])
def test_the_time_is_kept(certificate, scheme, talk):
    started = time.monotonic()

    with (
        loopback.serving(secured(certificate, talk) if scheme == "https" else talk) as address,
        pytest.raises(bounded_http.GetFailed),
    ):
        get(address, scheme=scheme, limit=1_000_000)

    assert time.monotonic() - started < 0.6


def test_the_time_is_kept_while_shaking_hands(certificate):
    started = time.monotonic()

    with loopback.serving(loopback.silence) as address, pytest.raises(bounded_http.GetFailed):
        get(address, scheme="https")

    assert time.monotonic() - started < 0.6


def test_a_trusted_certificate_is_accepted(certificate):
    with loopback.serving(secured(certificate, loopback.answer(b"ok"))) as address:
        assert get(address, scheme="https") == (200, b"ok")


def test_a_certificate_for_another_name_is_refused(certificate):
    with (
        loopback.serving(secured(certificate, loopback.answer(b"ok"))) as address,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        get(address.replace("127.0.0.1", "localhost"), scheme="https")


def test_an_untrusted_certificate_is_refused(certificate, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    bounded_http._tls.cache_clear()

    with (
        loopback.serving(secured(certificate, loopback.answer(b"ok"))) as address,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        get(address, scheme="https")
