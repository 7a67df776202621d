"""TLS on every port: what is refused at the start, who gets in, how new certificates come into use, and how it ends."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import structlog.testing
from grpc import aio
from support.certificates import Files, authority, client_context, encrypted
from support.fakes.receiving import (
    RawConnection,
    Receivers,
    Response,
    counted,
    grpc_receivers,
    http_receivers,
    otlp_logs,
    post,
    post_chunked,
)
from support.http2 import frame
from support.waiting import eventually

from collector.http2.engine import PREFACE
from collector.receivers.http.server import SERVERS
from collector.receivers.transport.certificates import Certificates
from collector.runtime.errors import CannotRun
from collector.telemetry.metrics import Metrics

PROTOBUF = "application/x-protobuf"
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
EACH_SERVER = pytest.mark.parametrize("server", SERVERS)


# The files.


def remove(files: Files) -> None:
    files.certificate.unlink()


def no_certificate(files: Files) -> None:
    files.certificate.write_bytes(files.key.read_bytes())


def no_key(files: Files) -> None:
    files.key.write_bytes(b"")


def other_key(files: Files) -> None:
    other = Files(files.directory.parent)
    files.key.write_bytes(other.key.read_bytes())


def encrypted_key(files: Files) -> None:
    files.key.write_bytes(encrypted(files.key.read_bytes()))


def broken_certificate(files: Files) -> None:
    content = files.certificate.read_bytes()
    files.certificate.write_bytes(content[:80] + b"????" + content[84:])


def broken_authorities(files: Files) -> None:
    assert files.client_ca is not None
    files.client_ca.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def no_authorities(files: Files) -> None:
    assert files.client_ca is not None
    files.client_ca.write_bytes(b"none")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (remove, "cannot read tls.cert_file {d}/server.pem: No such file or directory"),
        (no_certificate, "tls.cert_file {d}/server.pem holds no certificate in PEM"),
        (no_key, "tls.key_file {d}/server.key holds no private key in PEM (0 bytes)"),
        (
            other_key,
            "the private key in tls.key_file {d}/server.key is not that of the certificate in tls.cert_file {d}/server.pem",
        ),
        (encrypted_key, "the private key in tls.key_file {d}/server.key is encrypted"),
        (broken_certificate, "cannot use tls.cert_file {d}/server.pem and its key"),
        (broken_authorities, "cannot use tls.client_ca_file {d}/clients.pem"),
        (no_authorities, "tls.client_ca_file {d}/clients.pem holds no certificate in PEM (4 bytes)"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(spoil: Callable[[Files], None], says: str, tmp_path: Path) -> None:
    """The error has the setting, the file and the fault. Later such files leave those in use as they are."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    files = Files(directory, clients_of="first")
    in_use = files.load()
    key = files.key.read_bytes()
    pem, context = in_use.pem, in_use.context
    spoil(files)
    with pytest.raises(CannotRun) as info:
        files.load()
    expected = says.format(d=directory)
    assert expected in str(info.value)
    assert key.splitlines()[1].decode() not in str(info.value)
    with structlog.testing.capture_logs() as logged:
        in_use.reload()
        in_use.reload()
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("error", "the new certificates cannot be used, so the old ones stay")
    ]
    assert expected in logged[0]["error"]
    assert (in_use.pem, in_use.context) == (pem, context)
    files.write()
    if files.client_ca is not None:
        files.client_ca.write_bytes(authority("first").cert_pem.bytes())
    with structlog.testing.capture_logs() as logged:
        in_use.reload()
        in_use.reload()
    assert [line["event"] for line in logged] == ["new certificates are in use"]
    assert in_use.context is not context


def test_the_key_may_be_in_the_certificates_file(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with pytest.raises(CannotRun, match=r"tls.cert_file .* holds no private key: tls.key_file says where that is"):
        files.load(key_file=None)
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert files.load(key_file=None).expires_unix_s > time.time()


@pytest.mark.parametrize(("days", "event"), [(30, None), (-1, "the certificate has expired: most clients will refuse it")])
def test_an_expired_certificate_is_a_warning(days: float, event: str | None, tmp_path: Path) -> None:
    """The warning has the date, and the metric has the end of the one in use."""
    files = Files(tmp_path)
    files.write(days=days)
    metrics = Metrics()
    with structlog.testing.capture_logs() as logged:
        certificates = files.load(metrics)
    expected = time.time() + days * 86_400
    assert abs(certificates.expires_unix_s - expected) < 60
    assert counted(metrics, "infrasage_tls_certificate_expires_seconds") == certificates.expires_unix_s
    assert [line["event"] for line in logged] == ([event] if event else [])
    if event:
        assert logged[0]["expired"] == time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(certificates.expires_unix_s))


def test_one_that_is_not_valid_yet_is_a_warning_too(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with structlog.testing.capture_logs() as logged:
        Certificates(files.settings(), Metrics(), clock=lambda: 1e9)
    assert [line["event"] for line in logged] == ["the certificate is not valid yet: most clients will refuse it"]


async def test_files_are_looked_at_by_themselves(tmp_path: Path) -> None:
    files = Files(tmp_path)
    certificates = files.load(reload_interval_s=0.1)
    before = certificates.pem
    running = asyncio.create_task(certificates.run())
    files.write()
    await eventually(lambda: certificates.pem != before)
    running.cancel()


# HTTP.


@asynccontextmanager
async def connection(
    made: Receivers, *, of: str = "first", identity_of: str | None = None, alpn: tuple[str, ...] = ()
) -> AsyncIterator[RawConnection]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", made.port, ssl=client_context(of, identity_of=identity_of, alpn=alpn), server_hostname="localhost"
    )
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


def logs() -> bytes:
    return post("/v1/logs", PROTOBUF, otlp_logs())


async def sent(made: Receivers, **keywords: Any) -> Response:
    async with connection(made, **keywords) as raw:
        await raw.send(logs())
        return await raw.response()


@EACH_SERVER
@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("http/1.1", "h3")])
async def test_http_1_1_over_tls(server: str, alpn: tuple[str, ...], tmp_path: Path) -> None:
    """Keep-alive, chunked, pipelined and byte by byte, as without."""
    async with http_receivers(server, certificates=Files(tmp_path).load()) as made, connection(made, alpn=alpn) as raw:
        await raw.send(logs() + post_chunked("/v1/logs", PROTOBUF, otlp_logs(), chunk_bytes=5) + logs())
        for _ in range(3):
            assert (await raw.response()).status == 200
        for byte in logs():
            raw.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.response()).status == 200
        assert made.producer.item_count() == 4


@pytest.mark.parametrize(
    ("flags", "version"), [([], "2"), (["--http1.1"], "1.1"), (["--http2-prior-knowledge"], "2"), (["--tls-max", "1.2"], "2")]
)
async def test_curl_gets_the_version_it_asks_for(flags: list[str], version: str, tmp_path: Path) -> None:
    """It gets it over TLS 1.3 and 1.2, with a body larger than HTTP/2's windows."""
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is not installed")
        pytest.skip("curl is not installed")
    files = Files(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority("first").cert_pem.bytes())
    async with http_receivers(certificates=files.load()) as made:
        curl = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--show-error", "--cacert", str(ca), *flags, "--data-binary", "@-", "--output", "/dev/null"),
            *("--header", f"Content-Type: {PROTOBUF}", "--write-out", "%{http_version} %{http_code}"),
            f"https://localhost:{made.port}/v1/logs",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await curl.communicate(otlp_logs(padding=2 << 20))
    assert f"{version} 200" == said.decode()


@EACH_SERVER
async def test_clients_need_a_certificate_where_they_are_asked_for_one(server: str, tmp_path: Path) -> None:
    """None, and one of another authority, are refused in the handshake, and counted; nothing is logged."""
    files = Files(tmp_path, clients_of="clients")
    with structlog.testing.capture_logs() as logged:
        async with http_receivers(server, certificates=files.load()) as made:
            assert (await sent(made, identity_of="clients")).status == 200
            for stranger in (None, "strangers"):
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await sent(made, identity_of=stranger)
            await eventually(lambda: made.counted("infrasage_tls_handshakes_failed_total") == 2)
            assert (await sent(made, identity_of="clients")).status == 200
            assert made.producer.item_count() == 2
    assert not logged


# Mistakes of clients, and the alert that says so: from RFC 8446, 6.2, and RFC 5246, 7.2.2, in OpenSSL's words.
MISTAKES = {
    "TLS 1.1": ("TLSv1_1", "ALL:@SECLEVEL=0", None, "TLSV1_ALERT_PROTOCOL_VERSION"),
    "no cipher in common": ("TLSv1_2", "AES128-SHA", "clients", "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    "no certificate, 1.2": ("TLSv1_2", None, None, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    "no certificate, 1.3": ("TLSv1_3", None, None, "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    "a stranger's certificate, 1.2": ("TLSv1_2", None, "strangers", "TLSV1_ALERT_UNKNOWN_CA"),
    "a stranger's certificate, 1.3": ("TLSv1_3", None, "strangers", "TLSV1_ALERT_UNKNOWN_CA"),
    "an expired certificate, 1.2": ("TLSv1_2", None, "expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    "an expired certificate, 1.3": ("TLSv1_3", None, "expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
}


def alert_to(mistake: str, port: int) -> str | None:
    """What a client that makes it hears, while it sends its request already. Blocks."""
    version, ciphers, identity_of, _ = MISTAKES[mistake]
    context = client_context(identity_of=None if identity_of == "expired" else identity_of)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if identity_of == "expired":
        past = datetime.now(UTC) - timedelta(days=1)
        authority("clients").issue_cert("sender@example.com", not_after=past).configure_cert(context)
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                # In TLS 1.3 the client is done before the server has seen its certificate.
                for _ in range(20):
                    connection.sendall(logs())
                connection.recv(1)
        except ssl.SSLError as error:
            return error.reason
    return None


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_handshake_that_fails_sends_its_alert(mistake: str, tmp_path: Path) -> None:
    """It is sent on every port, in every version, though more data came. It is counted, and nothing stays open."""
    expected = MISTAKES[mistake][-1]
    certificates = Files(tmp_path, clients_of="clients").load()
    with structlog.testing.capture_logs() as logged:
        async with http_receivers(ports=2, certificates=certificates) as made:
            http = made.server
            assert http is not None

            def is_counted(times: int) -> bool:
                return made.counted("infrasage_tls_handshakes_failed_total") == times

            async with grpc_receivers(made, certificates=certificates) as (_, grpc_server):
                descriptors = 0
                for count, port in enumerate((http.ports[0], *http.ports, grpc_server.port), 1):
                    assert await asyncio.to_thread(alert_to, mistake, port) == expected
                    await eventually(partial(is_counted, count))
                    # The first attempt opens what stays open.
                    descriptors = descriptors or open_descriptors()
                await eventually(lambda: not http.connection_count())
                await eventually(lambda: open_descriptors() <= descriptors)
    assert not logged


def test_asyncios_own_loop_sends_alerts_too(tmp_path: Path) -> None:
    """It closes a failed connection at another moment than uvloop does."""

    async def alert() -> str | None:
        async with http_receivers(certificates=Files(tmp_path, clients_of="clients").load()) as made:
            return await asyncio.to_thread(alert_to, "no certificate, 1.3", made.port)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        assert runner.run(alert()) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@EACH_SERVER
@pytest.mark.parametrize(
    "words", [logs(), b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 100, b""], ids=["http", "half", "zeros", "nothing"]
)
async def test_a_handshake_that_comes_to_nothing_is_ended(
    server: str, words: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends in time, is counted and not logged, and is one of the connections until then."""
    async with http_receivers(server, certificates=Files(tmp_path).load(), handshake_timeout_s=0.3) as made:
        http = made.server
        assert http is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        await eventually(http.connection_count)
        writer.write(words)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)
        await eventually(lambda: not http.connection_count())
        writer.close()
        assert made.counted("infrasage_tls_handshakes_failed_total") == 1
        assert (await sent(made)).status == 200
    assert not caplog.records


PLAIN = {
    "HTTP/1.1": post("/v1/logs", PROTOBUF, otlp_logs()),
    "HTTP/2": PREFACE + frame(4),
    "in pieces": post("/v1/logs", PROTOBUF, bytes(1_000_000)),
}


@pytest.mark.parametrize("plain", PLAIN)
async def test_plain_http_on_a_port_with_tls_is_answered_so(plain: str, tmp_path: Path) -> None:
    """Every port says so, also to HTTP/2, where a client shows it as a malformed answer. It is counted, not logged."""
    certificates = Files(tmp_path).load()
    async with (
        http_receivers(certificates=certificates) as made,
        grpc_receivers(made, certificates=certificates) as (_, server),
    ):
        for port in (made.port, server.port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in [PLAIN[plain][:1], PLAIN[plain][1:]] if plain == "in pieces" else [PLAIN[plain]]:
                writer.write(piece)
                await asyncio.sleep(0.01)
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"This port speaks TLS" in answer
            writer.close()
        await eventually(lambda: made.counted("infrasage_tls_handshakes_failed_total") == 2)
        assert (await sent(made)).status == 200


@EACH_SERVER
async def test_connections_that_only_shake_hands_are_bounded_too(server: str, tmp_path: Path) -> None:
    async with http_receivers(server, certificates=Files(tmp_path).load(), connections_max=2) as made:
        silent = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(2)]
        http = made.server
        assert http is not None
        await eventually(lambda: http.connection_count() == 2)
        with pytest.raises(ConnectionError):
            await sent(made)
        assert made.counted("infrasage_http_connections_refused_total") == 1
        for one in silent:
            one.close()
        await eventually(lambda: not http.connection_count())
        assert (await sent(made)).status == 200


@EACH_SERVER
async def test_slow_heads_bodies_and_idle_connections_have_deadlines(server: str, tmp_path: Path) -> None:
    certificates = Files(tmp_path).load()
    async with (
        http_receivers(server, certificates=certificates, body_timeout_s=0.3, keep_alive_s=1) as made,
        connection(made) as head,
        connection(made) as body,
        connection(made) as idle,
    ):
        await head.send(b"POST /v1/logs HTT")
        await body.send(post("/v1/logs", PROTOBUF, b"abc", length=10))
        await idle.send(logs())
        assert (await body.response()).status == 408
        assert (await idle.response()).status == 200
        assert await body.closed()
        await asyncio.wait_for(head.reader.read(), 5)
        assert await idle.closed()
        assert made.in_flight.bytes_held == 0


@EACH_SERVER
async def test_a_lost_connection_has_no_deadline(server: str, tmp_path: Path) -> None:
    """Its request may go on for a while. A TLS transport that is lost can't say what waits in it."""
    with structlog.testing.capture_logs() as logged:
        async with http_receivers(server, certificates=Files(tmp_path).load()) as made:
            made.producer.gate.clear()
            async with connection(made) as raw:
                await raw.send(logs())
                await made.producer.waiting.wait()
                raw.writer.transport.abort()
            http: Any = made.server
            for _ in range(20):
                http._connections.tick(asyncio.get_running_loop().time())
                await asyncio.sleep(0.01)
            made.producer.gate.set()
            await eventually(lambda: http.connection_count() == 0)
    assert not logged


async def test_new_certificates_are_used_for_new_connections(tmp_path: Path) -> None:
    """Those that there are go on; and whom clients are trusted of changes too."""
    files = Files(tmp_path, clients_of="clients")
    certificates = files.load()
    async with http_receivers(certificates=certificates) as made, connection(made, identity_of="clients") as old:
        files.write(of="second")
        assert files.client_ca is not None
        files.client_ca.write_bytes(authority("others").cert_pem.bytes())
        certificates.reload()
        assert (await sent(made, of="second", identity_of="others")).status == 200
        for refused in ({"of": "first", "identity_of": "others"}, {"of": "second", "identity_of": "clients"}):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await sent(made, **refused)
        await old.send(logs())
        assert (await old.response()).status == 200


@EACH_SERVER
async def test_stopping_finishes_what_is_in_flight_over_tls(server: str, tmp_path: Path) -> None:
    """Idle connections and half handshakes end at once, the request in progress is answered, then TLS is ended."""
    async with (
        http_receivers(server, certificates=Files(tmp_path).load()) as made,
        connection(made) as idle,
        connection(made) as busy,
    ):
        await idle.send(logs())
        assert (await idle.response()).status == 200
        with socket.create_connection(("127.0.0.1", made.port)):
            made.producer.gate.clear()
            made.producer.waiting.clear()
            await busy.send(logs())
            await made.producer.waiting.wait()
            assert made.server is not None
            port = made.port
            stopping = asyncio.create_task(made.server.stop(5))
            assert await idle.closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            made.producer.gate.set()
            assert (await busy.response()).status == 200
            assert await busy.closed()
            await asyncio.wait_for(stopping, 3)


@EACH_SERVER
async def test_stopping_ends_in_time_over_tls(server: str, tmp_path: Path) -> None:
    async with (
        http_receivers(server, certificates=Files(tmp_path).load()) as made,
        connection(made) as busy,
        connection(made) as slow,
    ):
        made.producer.gate.clear()
        await busy.send(logs())
        await slow.send(post("/v1/logs", PROTOBUF, b"abc", length=100))
        await made.producer.waiting.wait()
        assert made.server is not None
        await asyncio.wait_for(made.server.stop(0.3), 3)
        answer = await busy.response()
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        assert made.in_flight.bytes_held == 0


def test_asyncios_own_loop_serves_tls_too(tmp_path: Path) -> None:
    """uvloop's transports are what the collector uses, and these tests; the protocols lean on neither."""

    async def check() -> None:
        async with http_receivers(certificates=Files(tmp_path).load()) as made:
            assert (await sent(made)).status == 200
            async with httpx.AsyncClient(http1=False, http2=True, verify=client_context()) as client:
                url = f"https://localhost:{made.port}/v1/logs"
                answer = await client.post(url, content=otlp_logs(padding=1 << 20), headers={"content-type": PROTOBUF})
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(check())


# gRPC.


async def export(port: int, *, of: str = "first", identity_of: str | None = None) -> bytes:
    """On a channel of its own."""
    identity = authority(identity_of).issue_cert("sender@example.com") if identity_of is not None else None
    credentials = grpc.ssl_channel_credentials(
        authority(of).cert_pem.bytes(),
        identity.private_key_pem.bytes() if identity else None,
        identity.cert_chain_pems[0].bytes() if identity else None,
    )
    async with aio.secure_channel(f"localhost:{port}", credentials) as channel:
        method: Any = channel.unary_unary(EXPORT)
        answer: bytes = await method(otlp_logs(), timeout=10)
        return answer


async def refused(port: int, **keywords: Any) -> None:
    with pytest.raises(aio.AioRpcError) as info:
        await export(port, **keywords)
    assert info.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_grpc_over_tls(tmp_path: Path) -> None:
    """Strangers are refused in the handshake; plain ones too."""
    async with grpc_receivers(certificates=Files(tmp_path, clients_of="clients").load()) as (made, server):
        assert await export(server.port, identity_of="clients") == b""
        await refused(server.port)
        await refused(server.port, identity_of="strangers")
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            method: Any = channel.unary_unary(EXPORT)
            with pytest.raises(aio.AioRpcError):
                await method(otlp_logs(), timeout=10)
        assert made.producer.item_count() == 1


@pytest.mark.parametrize("together", [False, True], ids=["two files", "one file"])
async def test_grpc_takes_new_certificates_into_use(together: bool, tmp_path: Path) -> None:
    """New connections get them. Broken ones are not taken, and existing connections go on."""
    files = Files(tmp_path, clients_of="clients")

    def write(of: str) -> None:
        files.write(of=of)
        if together:
            files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())

    write("first")
    certificates = files.load(key_file=None) if together else files.load()
    async with grpc_receivers(certificates=certificates) as (_, server):
        assert await export(server.port, identity_of="clients") == b""
        files.certificate.write_bytes(b"")
        certificates.reload()
        assert await export(server.port, identity_of="clients") == b""
        write("second")
        assert files.client_ca is not None
        files.client_ca.write_bytes(authority("others").cert_pem.bytes())
        certificates.reload()
        assert await export(server.port, of="second", identity_of="others") == b""
        await refused(server.port, of="first", identity_of="others")
        await refused(server.port, of="second", identity_of="clients")
        assert await export(server.port, of="second", identity_of="others") == b""


async def test_grpc_drains_over_tls(tmp_path: Path) -> None:
    """Calls in progress are answered: Node's sender never asks again."""
    async with grpc_receivers(certificates=Files(tmp_path).load()) as (made, server):
        made.producer.gate.clear()
        sending = asyncio.create_task(export(server.port))
        await made.producer.waiting.wait()
        stopping = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0.1)
        await refused(server.port)
        made.producer.gate.set()
        assert await sending == b""
        await asyncio.wait_for(stopping, 3)
