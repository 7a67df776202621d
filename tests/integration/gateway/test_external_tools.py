"""HTTP/2 and gRPC as others judge them: h2spec for the rules, h2load and ghz for honest load. Plain and over TLS."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from conformance.items import H2SPEC_FAILS, H2SPEC_FAILS_OVER_HTTP
from support.certificates import Files
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, otlp_logs
from support.otlp_grpc import LOGS
from support.processes.program import require_peer

H2SPEC_CASES = 145
PROTOBUF = "application/x-protobuf"


async def output(*command: object, within_s: float = 60) -> str:
    """What a program writes, while the receivers of this process answer it."""
    words = [str(word) for word in command]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        written, _ = await asyncio.wait_for(process.communicate(), within_s)
    finally:
        if process.returncode is None:
            process.kill()
    return written.decode()


@asynccontextmanager
async def listening(kind: str, certificates: Files | None = None) -> AsyncIterator[tuple[Receivers, int]]:
    """Receivers with the default settings, and their port."""
    loaded = None if certificates is None else certificates.load()
    if kind == "http":
        async with http_receivers(with_pages=True, certificates=loaded) as made:
            yield made, made.port
    else:
        async with grpc_receivers(certificates=loaded) as (made, server):
            yield made, server.port


async def h2spec_failures(port: int, report: Path) -> set[tuple[str, str]]:
    """The section and the name of each case that fails."""
    await output(require_peer("h2spec"), "-p", port, "-P", "/healthz", "--timeout", 4, "-j", report, within_s=120)
    # A case that fails is reported with the bytes that it got, which may be no XML.
    text = re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd]", "?", report.read_text(errors="replace"))
    cases = [
        (suite.attrib["package"], case) for suite in ET.fromstring(text).iter("testsuite") for case in suite.iter("testcase")
    ]
    assert len(cases) == H2SPEC_CASES
    return {
        (section, case.attrib["classname"])
        for section, case in cases
        if case.find("failure") is not None or case.find("error") is not None or case.find("skipped") is not None
    }


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_h2spec_fails_in_what_is_listed_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """docs/internals/conformance.md has the list, with the reasons; what does not fail any more has to leave it.

    On a busy machine a case may have no answer within h2spec's timeout, so the best of three runs counts.
    """
    listed = H2SPEC_FAILS.keys() | (H2SPEC_FAILS_OVER_HTTP.keys() if kind == "http" else set())
    async with listening(kind) as (_, port):
        for number in range(3):
            failed = await h2spec_failures(port, tmp_path / f"report{number}.xml")
            if failed == listed:
                return
    assert listed == failed


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("padding", [0, 20_000])
@pytest.mark.parametrize(
    ("kind", "connections", "streams"),
    [("http", 1, 128), ("http", 10, 100), ("grpc", 1, 1024), ("grpc", 4, 1000)],
)
async def test_h2load_has_all_answered_up_to_what_settings_announce(
    kind: str, connections: int, streams: int, padding: int, tls: bool, tmp_path: Path
) -> None:
    """This holds at any size, on one connection or many: 0 failed, 0 refused, and each request is stored once."""
    h2load = require_peer("h2load")
    (tmp_path / "certificates").mkdir()
    body = otlp_logs(padding=padding)
    framed = body if kind == "http" else b"\0" + len(body).to_bytes(4, "big") + body
    (tmp_path / "body").write_bytes(framed)
    path, content_type = ("/v1/logs", PROTOBUF) if kind == "http" else (LOGS.method, "application/grpc")
    count = streams + 100 if padding else max(2 * streams, 1000)
    async with listening(kind, Files(tmp_path / "certificates") if tls else None) as (made, port):
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
        header = f"content-type: {content_type}"
        written = await output(
            *(h2load, "-n", count, "-c", connections, "-m", streams, "-d", tmp_path / "body", "-H", header, url)
        )
        assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in written
        assert f"status codes: {count} 2xx" in written
        assert made.producer.item_count() == count


async def test_h2load_has_pages_answered_too() -> None:
    h2load = require_peer("h2load")
    async with listening("http") as (_, port):
        written = await output(h2load, "-n", 1000, "-c", 4, "-m", 128, f"http://127.0.0.1:{port}/healthz")
        assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in written


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_h2load_may_have_no_table_of_heads(kind: str, tmp_path: Path) -> None:
    """Proxies that keep little for each connection do so: the first answer must confirm the smaller table."""
    h2load = require_peer("h2load")
    (tmp_path / "body").write_bytes(b"\x0a\0" if kind == "http" else bytes(5))
    path, content_type = ("/v1/logs", PROTOBUF) if kind == "http" else (LOGS.method, "application/grpc")
    async with listening(kind) as (_, port):
        header = f"content-type: {content_type}"
        url = f"http://127.0.0.1:{port}{path}"
        sizes = ("--header-table-size", 0, "--encoder-header-table-size", 0)
        written = await output(*(h2load, "-n", 100, "-m", 10, *sizes, "-d", tmp_path / "body", "-H", header, url))
        assert "100 succeeded, 0 failed, 0 errored, 0 timeout" in written


async def test_ghz_finds_methods_by_reflection_and_has_all_answered(tmp_path: Path) -> None:
    """Without proto files, a thousand calls run at once on one connection."""
    ghz = require_peer("ghz")
    (tmp_path / "body").write_bytes(otlp_logs())
    async with listening("grpc") as (made, port):
        common = ("--insecure", "-B", tmp_path / "body", "-c", 1000, "-n", 2000, "--connections", 1, "--timeout", "60s")
        for call in (f"{LOGS.name}/Export", f"{LOGS.name}.Export"):
            before = made.producer.item_count()
            written = await output(ghz, *common, "--call", call, f"127.0.0.1:{port}", within_s=90)
            codes = Counter({code: int(count) for code, count in re.findall(r"\[(\w+)\]\s+(\d+) responses", written)})
            assert codes == {"OK": 2000}, written
            assert made.producer.item_count() - before == 2000
