"""The certificate, its key and the authorities of clients, for every port. They are read again when the files change.

No part of a key is ever shown or logged.

Invariants:
1. Files that cannot be used stop the start (test_files_that_cannot_be_used_stop_the_start).
2. Later, the certificate in use stays until the new files can be used, and the log says why
   (test_files_that_cannot_be_used_stop_the_start).
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from collector.config.receivers import Tls
from collector.receivers.transport.tls_context import ServerContext
from collector.runtime.errors import CannotRun
from collector.telemetry.metrics import Metrics

# The ciphers of TLS 1.2 that HTTP/2 allows (RFC 9113, appendix A). TLS 1.3 has its own.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_ALPN: Final = ("h2", "http/1.1")
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END: Final = b"-----END CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")

log = structlog.get_logger(__name__)


class Pem(NamedTuple):
    """The contents of the files."""

    certificate: bytes  # with the certificates of its chain
    key: bytes
    client_ca: bytes | None


class _Unusable(Exception):
    """The files can't be used. The message has the reason."""


class Certificates:
    """The certificates in force. Call `run` in a task, so that changed files are used."""

    def __init__(self, settings: Tls, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        """`settings.cert_file` must be set. `clock` is in seconds since 1970. Raises CannotRun."""
        self._settings: Final = settings
        self._clock: Final = clock
        self._problem = ""  # the last problem that was logged
        try:
            pem = _read(settings)
            self._use(pem)
        except _Unusable as error:
            raise CannotRun(str(error)) from error
        self._seen = pem
        metrics.watch_certificate(lambda: self.expires_unix_s)

    async def run(self) -> None:
        """Read the files every `reload_interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.reload_interval_s)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Use the files if they have changed since the last look. If they can't be used, log that once."""
        try:
            pem = _read(self._settings)
            if pem == self._seen:
                return
            self._seen = pem
            if pem != self.pem:
                self._use(pem)
                log.info("new certificates are in use", expires=_date(self.expires_unix_s))
        except _Unusable as error:
            if str(error) != self._problem:
                log.error("the new certificates cannot be used, so the old ones stay", error=str(error))
                self._problem = str(error)
        else:
            self._problem = ""

    def _use(self, pem: Pem) -> None:
        """Put new files into force. If it raises _Unusable, the old certificate stays in force."""
        context = _context(self._settings, pem)
        if _read(self._settings) != pem:  # the context was made from the files, and was checked by `pem`
            raise _Unusable(f"{_named(self._settings, 'cert_file')} and its key are being written at this moment")
        begins_unix_s, expires_unix_s = _validity(pem.certificate)
        now_unix_s = self._clock()
        if now_unix_s > expires_unix_s:
            log.warning("the certificate has expired: most clients will refuse it", expired=_date(expires_unix_s))
        elif now_unix_s < begins_unix_s:
            log.warning("the certificate is not valid yet: most clients will refuse it", begins=_date(begins_unix_s))
        self.pem = pem
        self.context = context
        self.expires_unix_s = expires_unix_s
        self._problem = ""


def _read(settings: Tls) -> Pem:
    certificate = _content(settings, "cert_file", _CERTIFICATE, "certificate")
    if settings.key_file is not None:
        key = _content(settings, "key_file", _KEY, "private key")
    else:
        key = certificate
        if _KEY not in key:
            raise _Unusable(f"{_named(settings, 'cert_file')} holds no private key: tls.key_file says where that is")
    if any(mark in key for mark in _ENCRYPTED):
        name = "cert_file" if settings.key_file is None else "key_file"
        raise _Unusable(
            f"the private key in {_named(settings, name)} is encrypted, and the collector cannot ask for its password:"
            " openssl pkey -in FILE -out OTHER writes it without"
        )
    client_ca = None
    if settings.client_ca_file is not None:
        client_ca = _content(settings, "client_ca_file", _CERTIFICATE, "certificate")
    return Pem(certificate, key, client_ca)


def _content(settings: Tls, name: str, label: bytes, noun: str) -> bytes:
    path: Path = getattr(settings, name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _Unusable(f"cannot read {_named(settings, name)}: {error.strerror}") from error
    if label not in content:
        raise _Unusable(f"{_named(settings, name)} holds no {noun} in PEM ({len(content)} bytes)")
    return content


def _named(settings: Tls, name: str) -> str:
    return f"tls.{name} {getattr(settings, name)}"


def _context(settings: Tls, pem: Pem) -> ssl.SSLContext:
    """Return a TLS context with the files. Raises _Unusable."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(_ALPN)
    assert settings.cert_file is not None
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            where = "there" if settings.key_file is None else f"in {_named(settings, 'key_file')}"
            certificate = _named(settings, "cert_file")
            raise _Unusable(f"the private key {where} is not that of the certificate in {certificate}") from error
        raise _Unusable(f"cannot use {_named(settings, 'cert_file')} and its key: {_reason(error)}") from error
    except OSError as error:
        raise _Unusable(f"cannot read {_named(settings, 'cert_file')} and its key: {error.strerror}") from error
    if pem.client_ca is not None:
        try:
            context.load_verify_locations(cadata=pem.client_ca.decode("ascii", "replace"))
        except ssl.SSLError as error:
            raise _Unusable(f"cannot use {_named(settings, 'client_ca_file')}: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> bytes:
    """Return no password, in place of OpenSSL's own function, which asks at the terminal."""
    return b""


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "it is not PEM").lower().replace("_", " ")


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _validity(pem: bytes) -> tuple[float, float]:
    """Return from when until when the first certificate is valid, in seconds since 1970.

    Python's ssl reports this only for the peer's certificate. This function reads the few fields of RFC 5280's Certificate up
    to the validity. OpenSSL has read the whole certificate already, so it is well-formed.
    """
    begins = pem.index(_CERTIFICATE)
    ends = pem.index(_CERTIFICATE_END, begins) + len(_CERTIFICATE_END)
    der = ssl.PEM_cert_to_DER_cert(pem[begins:ends].decode("ascii"))

    def element(at: int) -> tuple[int, int, int]:
        """Return an element's tag, and where its content begins and ends."""
        tag, length, start = der[at], der[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[at + 2 : start], "big")
        return tag, start, start + length

    _, at, _ = element(0)  # Certificate
    _, at, _ = element(at)  # its tbsCertificate
    tag, _, end_of_version = element(at)
    if tag == 0xA0:  # the version may be left out
        at = end_of_version
    for _ in ("serialNumber", "signature", "issuer"):
        _, _, at = element(at)
    _, at, _ = element(at)  # validity
    times = []
    for _ in ("notBefore", "notAfter"):
        tag, start, at = element(at)
        format_ = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
        times.append(datetime.strptime(der[start:at].decode("ascii"), format_).replace(tzinfo=UTC).timestamp())
    return times[0], times[1]
