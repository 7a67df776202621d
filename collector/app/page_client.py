"""Ask a running collector for its public pages over HTTP: /healthz, /metrics and, with a key, dlq-stats.

Invariants:
1. Whatever answers, and however slowly, the result is an answer or CannotAsk, within TIMEOUT_S and PAGE_BYTES_MAX
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
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from collector.api.dead_letter_pages import BEHIND_HEADER
from collector.api.health import Health
from collector.api.metrics_page import METRICS_PATH
from collector.app.top import DeadLetterStats, Look, view_of
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.telemetry.scrape import read_text

TIMEOUT_S: Final = 10.0
"""For one page, from connecting to its last byte."""
PAGE_BYTES_MAX: Final = 64 << 20
_STATS_PATH: Final = "/api/v1/debug/dlq-stats"
_PIECE_BYTES: Final = 1 << 16
# Of an error's message.
_MESSAGE_MAX: Final = 200
# Every collector has it, whatever its role.
_ALWAYS_THERE: Final = "infrasage_in_flight_bytes"


class CannotAsk(Exception):
    """The message says what was asked, why there is no answer, and what to change. `reason`: only why."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class KeyRefused(CannotAsk):
    """The key is unknown, or its scope does not allow to read."""


class _Page(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class PageClient:
    """One connection for each look, so that a collector that restarts is found again. Thread-safe: it has no state."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        """`endpoint`: http://HOST:PORT or https://HOST:PORT, and a path prefix where there is one."""
        self._endpoint: Final = endpoint
        self._url: Final = urlsplit(endpoint)
        self._key: Final = key

    def look(self) -> Look:
        """Return what /healthz and /metrics answer now. Raises CannotAsk."""
        health = self._document(HEALTH_PATH, self._get(HEALTH_PATH), (200, 503))
        page = self._get(METRICS_PATH)
        at_s, unix_s = time.monotonic(), time.time()
        self._check(METRICS_PATH, page, (200,))
        try:
            snapshot = read_text(page.body.decode())
            if not any(family.name == _ALWAYS_THERE for family in snapshot):
                raise ValueError(f"it has no {_ALWAYS_THERE}")
            answer = Look(
                at_s,
                unix_s,
                _text(health, "status"),
                _text(health, "version"),
                float(health["uptime_seconds"]),
                Health(
                    clickhouse=_text(health, "clickhouse"),
                    kafka=_text(health, "kafka"),
                    log=_text(health, "log"),
                    is_stopping=health["status"] == "stopping",
                    broker=_text(health, "broker"),
                    store=_text(health, "store"),
                ),
                snapshot,
            )
            view_of(None, answer)
            return answer
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_a_collector(error) from None

    def dead_letter_stats(self) -> DeadLetterStats | None:
        """Return what dlq-stats answers to the key; None: there is no such page, or no store to ask. Raises CannotAsk."""
        page = self._get(_STATS_PATH)
        # A writer has no such page, and a gateway may have no store.
        if page.status in (404, 503):
            return None
        document = self._document(_STATS_PATH, page, (200,))
        try:
            return DeadLetterStats(int(document["open"]), int(page.headers.get(BEHIND_HEADER, "0")))
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_a_collector(error) from None

    def _not_a_collector(self, error: Exception) -> CannotAsk:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        return self._other(missing[:_MESSAGE_MAX])

    def _other(self, reason: str) -> CannotAsk:
        return CannotAsk(f"{self._endpoint} answers, but is no InfraSage collector of this version: {reason}", reason)

    def _document(self, path: str, page: _Page, expected: tuple[int, ...]) -> Mapping[str, Any]:
        self._check(path, page, expected)
        try:
            document = json.loads(page.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._other(f"{path} answers {page.status} without JSON")
        return document

    def _check(self, path: str, page: _Page, expected: tuple[int, ...]) -> None:
        if page.status in expected:
            return
        said = _message_of(page.body)
        reason = f"{path} answers {page.status}{f': {said}' if said else ''}"
        if page.status in (401, 403):
            raise KeyRefused(f"{self._endpoint}{reason} (--key-file: a key of scope readonly or higher)", reason)
        raise CannotAsk(f"{self._endpoint}{reason}; --endpoint names another address", reason)

    def _get(self, path: str) -> _Page:
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
                reason = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:_MESSAGE_MAX]
            message = f"cannot read {self._endpoint}{path}: {reason}; --endpoint names another address"
            raise CannotAsk(message, reason) from None
        finally:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, path: str) -> _Page:
        """Raises CannotAsk, OSError or HTTPException."""
        connection.request("GET", self._url.path + path, headers={} if self._key is None else {"x-api-key": self._key})
        answer = connection.getresponse()
        pieces, size_bytes = [], 0
        while piece := answer.read(_PIECE_BYTES):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > PAGE_BYTES_MAX:
                raise self._other(f"{path} answers more than {PAGE_BYTES_MAX} bytes")
        if answer.length:  # the library says nothing of a body that ends early, if it is read in pieces
            raise http.client.IncompleteRead(b"", answer.length)
        return _Page(answer.status, {name.lower(): value for name, value in answer.getheaders()}, b"".join(pieces))


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


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value


def _message_of(body: bytes) -> str:
    """The message of an error of ours; "": it is none."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return str(message)[:_MESSAGE_MAX]
