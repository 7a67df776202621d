"""Reads from a running collector the pages that `top` shows: /healthz, /metrics and dlq-stats."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from collector.api.dead_letter_pages import BEHIND_HEADER
from collector.api.health import Health
from collector.api.metrics_page import METRICS_PATH
from collector.app.page_fetcher import MESSAGE_MAX, FetchedPage, PageFetcher, PageUnavailable
from collector.app.top import DeadLetterStats, PolledPages, view_of
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.telemetry.scrape import read_text

_STATS_PATH: Final = "/api/v1/debug/dlq-stats"
# Every collector has this metric, whatever its role.
_COMMON_METRIC: Final = "infrasage_in_flight_bytes"


class PageClient:
    """Reads pages of one collector. Thread-safe, since it has no state.

    Each page has its own connection, so that a collector is found again after a restart."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        """`endpoint` is http://HOST:PORT or https://HOST:PORT, with a path prefix if needed."""
        self._fetcher: Final = PageFetcher(endpoint, key)

    def poll(self) -> PolledPages:
        """Return the current answers of /healthz and /metrics. Raises PageUnavailable."""
        health = self._document(HEALTH_PATH, self._fetcher.get(HEALTH_PATH), (200, 503))
        page = self._fetcher.get(METRICS_PATH)
        at_s, unix_s = time.monotonic(), time.time()
        self._fetcher.check(METRICS_PATH, page, (200,))
        try:
            snapshot = read_text(page.body.decode())
            if not any(family.name == _COMMON_METRIC for family in snapshot):
                raise ValueError(f"it has no {_COMMON_METRIC}")
            answer = PolledPages(
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
        """Return the answer of dlq-stats; None if the collector has no such page, or no store. Raises PageUnavailable, and
        KeyRefused if the key is not accepted."""
        page = self._fetcher.get(_STATS_PATH)
        # A writer has no such page, and a gateway may have no store.
        if page.status in (404, 503):
            return None
        document = self._document(_STATS_PATH, page, (200,))
        try:
            return DeadLetterStats(int(document["open"]), int(page.headers.get(BEHIND_HEADER, "0")))
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_a_collector(error) from None

    def _not_a_collector(self, error: Exception) -> PageUnavailable:
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
