"""Fetches pages of a running collector over HTTP, for commands.

Invariants:
1. Whatever the server answers, and however slowly, the result is a page of at most PAGE_BYTES_MAX, or PageUnavailable. A page
   is complete within TIMEOUT_S. An answer that is not complete is ended at most TIMEOUT_S after the connection is open
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
"""The longest time for one page, from the start of the connection to the last byte."""
PAGE_BYTES_MAX: Final = 64 << 20
_PIECE_BYTES: Final = 1 << 16
# The longest message of a server that is repeated in an error, in characters.
MESSAGE_MAX: Final = 200


class PageUnavailable(Exception):
    """Raised if a page cannot be read. The message has the address, the reason, and what to change. `reason` is only the
    reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class KeyRefused(PageUnavailable):
    """Raised if the key is missing or unknown, or if its scope does not allow reading."""


class FetchedPage(NamedTuple):
    """The answer to a request for a page. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PageFetcher:
    """Fetches pages of one server. Thread-safe, since it has no state.

    Each page has its own connection, so that a collector is found again after a restart."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        """`endpoint` is http://HOST:PORT or https://HOST:PORT, with a path prefix if needed."""
        self._endpoint: Final = endpoint
        self._url: Final = urlsplit(endpoint)
        self._key: Final = key

    def get(self, path: str) -> FetchedPage:
        """Return the answer to GET, which may have any status. `path` includes the query. Raises PageUnavailable if there is no
        complete answer."""
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
            if time.monotonic() >= began_s + TIMEOUT_S:  # http.client regards an answer that ends in its head as complete
                raise TimeoutError
            return page
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= began_s + TIMEOUT_S:
                reason = f"no whole answer within {TIMEOUT_S:g} s"
            else:
                reason = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:MESSAGE_MAX]
            shown = path.partition("?")[0]
            message = f"cannot read {self._endpoint}{shown}: {reason}; choose another address with --endpoint"
            raise PageUnavailable(message, reason) from None
        finally:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, path: str) -> FetchedPage:
        """Send the request, and return the answer. Raises PageUnavailable, OSError or HTTPException."""
        connection.request("GET", self._url.path + path, headers={} if self._key is None else {"x-api-key": self._key})
        answer = connection.getresponse()
        pieces, size_bytes = [], 0
        while piece := answer.read(_PIECE_BYTES):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > PAGE_BYTES_MAX:
                raise self.no_collector(f"{path} answers more than {PAGE_BYTES_MAX} bytes")
        if answer.length:  # http.client raises no error for a body that ends early, if the body is read in pieces
            raise http.client.IncompleteRead(b"", answer.length)
        return FetchedPage(answer.status, {name.lower(): value for name, value in answer.getheaders()}, b"".join(pieces))

    def check(self, path: str, page: FetchedPage, expected: tuple[int, ...]) -> None:
        """Check that the page has one of the `expected` statuses. Raises PageUnavailable, or KeyRefused for 401 and 403."""
        if page.status in expected:
            return
        message = _message_of(page.body)
        reason = f"{path} answers {page.status}{f': {message}' if message else ''}"
        if page.status in (401, 403):
            raise KeyRefused(f"{self._endpoint}{reason} (--key-file: a key of scope readonly or higher)", reason)
        raise PageUnavailable(f"{self._endpoint}{reason}; choose another address with --endpoint", reason)

    def no_collector(self, reason: str) -> PageUnavailable:
        """Return the error for a server that is not a collector of this version."""
        return PageUnavailable(f"{self._endpoint} answers, but is no InfraSage collector of this version: {reason}", reason)


@contextlib.contextmanager
def _ended_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection down after this time, if the context has not ended. The timeout of a socket is not enough, since it
    begins again with each byte."""

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
    """Return the message in the JSON of a collector's error, "" if the body is not such an error."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return str(message)[:MESSAGE_MAX]
