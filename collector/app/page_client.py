"""Ask a running collector what `top` shows: /healthz, /metrics and, with a key, dlq-stats."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from collector.api.dead_letter_pages import BEHIND_HEADER
from collector.api.health import Health
from collector.api.metrics_page import METRICS_PATH
from collector.app.page_fetcher import MESSAGE_MAX, CannotAsk, FetchedPage, PageFetcher
from collector.app.top import DeadLetterStats, Look, view_of
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.telemetry.scrape import read_text

_STATS_PATH: Final = "/api/v1/debug/dlq-stats"
# Every collector has it, whatever its role.
_ALWAYS_THERE: Final = "infrasage_in_flight_bytes"


class PageClient:
    """One connection for each look, so that a collector that restarts is found again. Thread-safe: it has no state."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        """`endpoint`: http://HOST:PORT or https://HOST:PORT, and a path prefix where there is one."""
        self._fetcher: Final = PageFetcher(endpoint, key)

    def look(self) -> Look:
        """Return what /healthz and /metrics answer now. Raises CannotAsk."""
        health = self._document(HEALTH_PATH, self._fetcher.get(HEALTH_PATH), (200, 503))
        page = self._fetcher.get(METRICS_PATH)
        at_s, unix_s = time.monotonic(), time.time()
        self._fetcher.check(METRICS_PATH, page, (200,))
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
        page = self._fetcher.get(_STATS_PATH)
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
        return self._fetcher.no_collector(missing[:MESSAGE_MAX])

    def _document(self, path: str, page: FetchedPage, expected: tuple[int, ...]) -> Mapping[str, Any]:
        self._fetcher.check(path, page, expected)
        try:
            document = json.loads(page.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._fetcher.no_collector(f"{path} answers {page.status} without JSON")
        return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value
