"""Pages that are sent from memory."""

import asyncio
import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from collector.api.documents import Document, FileDocuments, accepts_gzip

BODY = b"x" * 100_000


async def shown(document: Document, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a page has no body")

    await document({"type": "http", "method": "GET", "headers": list(headers)}, receive, send)
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (b"", False),
        (b"gzip", True),
        (b"GZIP", True),
        (b"deflate, gzip;q=0.5, br", True),
        (b"x-gzip", True),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"gzip;q=0, *", False),
        (b"*;q=0, gzip", True),
        (b"identity", False),
        (b"notgzip", False),
        (b";;,,;q=", False),
    ],
)
def test_who_takes_gzip(header: bytes, taken: bool) -> None:
    assert taken == accepts_gzip(header)


async def test_it_is_sent_as_asked_for() -> None:
    """The same text either way; a cache keeps the two apart."""
    document = Document(BODY, "text/plain")
    status, headers, body = await shown(document)
    assert (200, BODY, b"accept-encoding") == (status, body, headers[b"vary"])
    assert b"content-encoding" not in headers
    status, headers, body = await shown(document, (b"accept-encoding", b"gzip"))
    assert (200, BODY, b"gzip", b"text/plain") == (
        status,
        gzip.decompress(body),
        headers[b"content-encoding"],
        headers[b"content-type"],
    )
    assert len(body) == int(headers[b"content-length"]) < 1000
    at_most = b"gzip".ljust(1024, b",")
    assert b"content-encoding" in (await shown(document, (b"accept-encoding", at_most)))[1]
    assert b"content-encoding" not in (await shown(document, (b"accept-encoding", at_most + b",")))[1], "it is not parsed"
    small = Document(b"small", "text/plain")
    assert b"small" == (await shown(small, (b"accept-encoding", b"gzip")))[2]


async def test_it_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compressed once however many ask, and if the first of them goes away meanwhile."""
    compressed = 0
    compress = gzip.compress

    def counting(*arguments: Any, **named: Any) -> bytes:
        nonlocal compressed
        compressed += 1
        return compress(*arguments, **named)

    monkeypatch.setattr(gzip, "compress", counting)
    document = Document(BODY, "text/plain")
    asking = [asyncio.create_task(shown(document, (b"accept-encoding", b"gzip"))) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    bodies = {answer[2] for answer in await asyncio.gather(*asking[1:])}
    assert (1, 1) == (compressed, len(bodies))


async def test_what_has_not_changed_is_not_sent_again() -> None:
    document = Document(BODY, "text/plain", has_etag=True)
    _, headers, _ = await shown(document)
    etag = headers[b"etag"]
    status, headers, body = await shown(document, (b"if-none-match", etag))
    assert (304, etag, b"") == (status, headers[b"etag"], body)
    assert 200 == (await shown(document, (b"if-none-match", b'"another"')))[0]


async def test_a_file_is_opened_once(tmp_path: Path) -> None:
    """A hundred answers are of the same bytes in memory, and open nothing."""
    (tmp_path / "a.css").write_bytes(BODY)
    (tmp_path / "directory").mkdir()
    files = FileDocuments(tmp_path)
    first = files.find("a.css")
    assert first is not None
    os.unlink(tmp_path / "a.css")  # noqa: PTH108 - so nothing can be read from it any more
    for _ in range(100):
        assert files.find("a.css") is first
        assert first.body is (await shown(first))[2]
    assert b"text/css" == (await shown(first))[1][b"content-type"]
    for name in ("", "directory", "..", "b.css", "../a.css", f"{tmp_path}/a.css", "a.css\0"):
        assert files.find(name) is None
    assert hashlib.sha256(BODY).hexdigest()[:16] in (await shown(first))[1][b"etag"].decode()
