"""A certificate for servers on loopback."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conversation_service.outbound import client
from conversation_service.upstreams import http

CERTIFIED_NAME = "receiver.example.net"


@pytest.fixture
def certificate(tmp_path, monkeypatch) -> Iterator[Path]:
    """A certificate for 127.0.0.1 and CERTIFIED_NAME, trusted by this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName(CERTIFIED_NAME)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    _forget_trusted_certificates()
    yield path
    _forget_trusted_certificates()


def distrust(monkeypatch) -> None:
    """Let this process no longer trust the certificate."""
    monkeypatch.delenv("SSL_CERT_FILE")
    _forget_trusted_certificates()


def _forget_trusted_certificates() -> None:
    http._session.cache_clear()
    client._tls.cache_clear()
