"""Certificates for tests, made on the spot: an authority, and files as the settings name them."""

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization

from collector.config.receivers import Tls
from collector.receivers.transport.certificates import Certificates
from collector.telemetry.metrics import Metrics


@cache
def authority(name: str = "first") -> trustme.CA:
    """The same for the same name."""
    return trustme.CA(organization_name=name)


class Files:
    """A server's certificate and key in a directory, and what a client of it needs."""

    def __init__(self, directory: Path, *, of: str = "first", clients_of: str | None = None) -> None:
        """`of`: who signs. `clients_of`: who signs clients' certificates, which are asked for then."""
        self.directory = directory
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        self.client_ca = directory / "clients.pem" if clients_of is not None else None
        self.write(of=of)
        if self.client_ca is not None and clients_of is not None:
            self.client_ca.write_bytes(authority(clients_of).cert_pem.bytes())

    def write(self, *, of: str = "first", days: float = 30) -> None:
        """A new certificate and key, in place of those there are. `days`: until it expires; less than none: so long ago."""
        now = datetime.now(UTC)
        issued = authority(of).issue_cert(
            "localhost", "127.0.0.1", not_before=now - timedelta(days=60), not_after=now + timedelta(days=days)
        )
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def settings(self, **others: Any) -> Tls:
        given = {"cert_file": self.certificate, "key_file": self.key, "client_ca_file": self.client_ca}
        return Tls.model_validate(given | others)

    def load(self, metrics: Metrics | None = None, **others: Any) -> Certificates:
        return Certificates(self.settings(**others), metrics or Metrics())


def encrypted(key: bytes) -> bytes:
    """The same key, with a password."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
    )


def client_context(of: str = "first", *, identity_of: str | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """For a client that trusts that authority. `identity_of`: who has signed its own certificate; None: it has none."""
    context = ssl.create_default_context()
    authority(of).configure_trust(context)
    if identity_of is not None:
        authority(identity_of).issue_cert("sender@example.com").configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context
