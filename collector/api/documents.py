"""Pages with fixed contents: held in memory once, compressed at most once, and sent as they are.

Invariants:
1. A document is compressed only when a client asks for gzip, outside the event loop, and once for all clients.
   (test_it_is_compressed_once)
2. A file is read once and then sent from memory: no answer holds a file descriptor. (test_a_file_is_opened_once)
"""

import asyncio
import gzip
import mimetypes
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.types import Receive, Scope, Send

from collector.receivers.http.targets import VALUE_BYTES_MAX

# Smaller documents gain nothing by compression.
_COMPRESSED_BYTES_MIN: Final = 1024
_GZIP_LEVEL: Final = 6
_ETAG_HEX_DIGITS: Final = 16

# Answers one GET. For HEAD, the server leaves out the body.
Page = Callable[[Scope, Receive, Send], Awaitable[None]]


class Document:
    """A Page with fixed contents. It can answer any number of requests at once."""

    def __init__(self, body: bytes, content_type: str, *, has_etag: bool = False) -> None:
        """`has_etag` is whether clients may keep the document, and ask whether it has changed."""
        self.body: Final = body
        self._content_type: Final = content_type.encode()
        self._etag: Final = f'"{sha256(body).hexdigest()[:_ETAG_HEX_DIGITS]}"'.encode() if has_etag else None
        self._compressing: asyncio.Task[bytes] | None = None

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"vary", b"accept-encoding")]
        if self._etag is not None:
            headers += [(b"etag", self._etag), (b"cache-control", b"no-cache")]
            if header(scope, b"if-none-match") == self._etag:
                await send({"type": "http.response.start", "status": 304, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
        body = self.body
        if len(body) >= _COMPRESSED_BYTES_MIN and accepts_gzip(header(scope, b"accept-encoding")):
            body = await self._compressed()
            headers.append((b"content-encoding", b"gzip"))
        headers += [(b"content-type", self._content_type), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _compressed(self) -> bytes:
        """Return the body in gzip, which the first call makes."""
        if self._compressing is None:
            # With a time of 0, the same document always gives the same bytes.
            compressing = asyncio.to_thread(gzip.compress, self.body, _GZIP_LEVEL, mtime=0)
            self._compressing = asyncio.create_task(compressing)
        # A request that ends must not cancel the task that other requests wait for.
        return await asyncio.shield(self._compressing)


class FileDocuments:
    """The files of one directory as documents. A file stays in memory once it was requested."""

    def __init__(self, directory: Path) -> None:
        self._paths: Final = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
        self._documents: Final[dict[str, Document]] = {}

    def find(self, name: str) -> Document | None:
        """Return the document of a file; None if there is no such file. Raises OSError."""
        document = self._documents.get(name)
        path = self._paths.get(name)
        if document is None and path is not None:
            content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            document = self._documents[name] = Document(path.read_bytes(), content_type, has_etag=True)
        return document


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether a client takes gzip, by its Accept-Encoding: gzip, x-gzip or *, and not with q=0."""
    codings = codings_of(accept_encoding)
    return codings.get(b"gzip", codings.get(b"x-gzip", codings.get(b"*", False)))


def codings_of(accept_encoding: bytes) -> dict[bytes, bool]:
    """Return for each coding of an Accept-Encoding, in lower case, whether it is accepted: not with q=0 (RFC 9110, 12.5.3)."""
    codings: dict[bytes, bool] = {}
    for part in accept_encoding.lower().split(b","):
        coding, *parameters = (piece.strip() for piece in part.split(b";"))
        codings[coding] = not any(_is_zero(parameter) for parameter in parameters)
    return codings


def _is_zero(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and not value.strip().strip(b"0.")


def header(scope: Scope, name: bytes) -> bytes:
    """Return the value of a header. Several of the name are joined by commas (RFC 9110, 5.3).

    The value is empty if there is no such header, or if it is longer than VALUE_BYTES_MAX."""
    joined = b", ".join(value for each, value in scope["headers"] if each == name)
    return joined if len(joined) <= VALUE_BYTES_MAX else b""
