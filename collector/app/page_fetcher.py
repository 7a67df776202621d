"""Fetch pages of a running collector over HTTP, for commands.

Invariants:
1. Whatever answers, and however slowly, the result is a page or CannotAsk, within TIMEOUT_S and PAGE_BYTES_MAX
   (test_what_is_no_collector_is_named, test_an_answer_that_never_ends_is_bounded).
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S: Final = 10.0
"""For one page, from connecting to its last byte."""
PAGE_BYTES_MAX: Final = 64 << 20
_PIECE_BYTES: Final = 1 << 16
# Of an error's message.
MESSAGE_MAX: Final = 200


class CannotAsk(Exception):
    """The message says what was asked, why there is no answer, and what to change. `reason`: only why."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class KeyRefused(CannotAsk):
    """The key is unknown, or its scope does not allow to read."""


class FetchedPage(NamedTuple):
    """A page as it was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PageFetcher:
    """One connection for each page, so that a collector that restarts is found again. Thread-safe: it has no state."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        """`endpoint`: http://HOST:PORT or https://HOST:PORT, and a path prefix where there is one."""
        self._endpoint: Final = endpoint
        self._url: Final = urlsplit(endpoint)
        self._key: Final = key

    def get(self, path: str) -> FetchedPage:
        """`path`: with its query. Raises CannotAsk where there is no answer; an answer may have any status."""
        began_s = time.monotonic()
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.connect()
            with _ended_after(connection.sock, TIMEOUT_S):
                page = self._read(connection, path)
            if time.monotonic() >= began_s + TIMEOUT_S:  # it may have been ended in its head, which the library takes for whole
                raise TimeoutError
            return page
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= began_s + TIMEOUT_S:
                reason = f"no whole answer within {TIMEOUT_S:g} s"
            else:
                reason = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:MESSAGE_MAX]
            shown = path.partition("?")[0]
            message = f"cannot read {self._endpoint}{shown}: {reason}; --endpoint names another address"
            raise CannotAsk(message, reason) from None
        finally:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, path: str) -> FetchedPage:
        """Raises CannotAsk, OSError or HTTPException."""
        connection.request("GET", self._url.path + path, headers={} if self._key is None else {"x-api-key": self._key})
        answer = connection.getresponse()
        pieces, size_bytes = [], 0
        while piece := answer.read(_PIECE_BYTES):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > PAGE_BYTES_MAX:
                raise self.no_collector(f"{path} answers more than {PAGE_BYTES_MAX} bytes")
        if answer.length:  # the library says nothing of a body that ends early, if it is read in pieces
            raise http.client.IncompleteRead(b"", answer.length)
        return FetchedPage(answer.status, {name.lower(): value for name, value in answer.getheaders()}, b"".join(pieces))

    def check(self, path: str, page: FetchedPage, expected: tuple[int, ...]) -> None:
        """Raises CannotAsk where the page has another status."""
        if page.status in expected:
            return
        said = _message_of(page.body)
        reason = f"{path} answers {page.status}{f': {said}' if said else ''}"
        if page.status in (401, 403):
            raise KeyRefused(f"{self._endpoint}{reason} (--key-file: a key of scope readonly or higher)", reason)
        raise CannotAsk(f"{self._endpoint}{reason}; --endpoint names another address", reason)

    def no_collector(self, reason: str) -> CannotAsk:
        """Return the error that says that something else answers."""
        return CannotAsk(f"{self._endpoint} answers, but is no InfraSage collector of this version: {reason}", reason)


@contextlib.contextmanager
def _ended_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """End the connection then, since the timeout of a socket is for each of its bytes."""

    def end() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _message_of(body: bytes) -> str:
    """The message of an error of ours; "": it is none."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return str(message)[:MESSAGE_MAX]
