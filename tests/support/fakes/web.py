"""The web pages on a store that answers with what it is given, and asks nobody."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
from starlette.types import ASGIApp
from support.fakes.receiving import ANONYMOUS, EXPLAIN

from collector.api.health import EMBEDDED_ENGINE, EMBEDDED_LOG, Health
from collector.api.web.app import WebUi
from collector.api.web.session import COOKIE, TOKEN_FIELD, token_of
from collector.api.web.sources import SettingShown, Sources
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.query.reader import Reader
from collector.store.contract import StoreError
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.plans import FREE
from collector.tenancy.scopes import Scope

LETTER_ID = "8d68a96f-b5a9-88a8-a9e8-1202c1248f72"
TRACE_ID = "5b8efff798038103d269b633813fc60c"
KEYS = {
    scope.value.encode(): Caller("admins" if scope is Scope.ADMIN else "acme", scope, FREE, f"id-of-{scope}") for scope in Scope
}


class FakeStore:
    """Answers by the table that a statement reads, and remembers the statements. With an `error` it raises that. With a
    `gate` it waits until that is set."""

    def __init__(self, text: str = "plain") -> None:
        self.asked: list[str] = []
        self.error: StoreError | None = None
        self.gate: threading.Event | None = None
        self.text = text
        self.state = "open"
        self.letters = 1
        self.difference: int | None = None

    def query(self, sql: str, _format: str) -> bytes:
        self.asked.append(sql)
        if self.gate is not None:
            self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return b"\n".join(json.dumps(row).encode() for row in self._rows(sql))

    def asked_of(self, table: str) -> list[str]:
        return [sql for sql in self.asked if f"FROM {table} " in sql or f"FROM {table}\n" in sql]

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        text = self.text
        if "FROM telemetry_batches" in sql:
            if "sum(DeadLetters)" in sql:
                return [{"by_reason": {text: 3}, "kept": 2, "oldest": 1, "newest": 2}]
            if "GROUP BY tenant" in sql:
                return [{"tenant": text, "requests": 1, "accepted": 2, "rejected": 3}]
            return [{"minute": 60, "accepted": {text: 5}, "rejected": {text: 3}, "repaired": {text: 1}, "requests": 1}]
        if "FROM telemetry_audit_findings" in sql:
            return [] if self.difference is None else [{"start": 1, "end": 2, "difference": self.difference}]
        if "FROM telemetry_dead_letters" in sql:
            return [{"reason": text, "id": LETTER_ID, "tenant": text, "service": text, "message": text, "kept": 1}]
        if "FROM dead_letters" in sql:
            if "GROUP BY Reason" in sql:
                return [{"reason": text, "open": 1, "entries": 1234, "items": 0, "oldest": None, "newest": None}]
            return [{**letter(text), "state": self.state}] * self.letters
        if "FROM otel_logs" in sql:
            names = ("tenant", "service", "severity", "body", "type")
            return [{"at_unix_nano": 1, "trace_id": TRACE_ID, **dict.fromkeys(names, text)}]
        of_span = ("tenant", "service", "name", "kind", "status", "status_message")
        return [
            {
                **dict.fromkeys(of_span, text),
                "at_unix_nano": 1,
                "duration_ns": "1000",
                "trace_id": TRACE_ID,
                "span_id": span,
                "parent_span_id": parent,
            }
            for span, parent in (("a", ""), ("b", "a"))
        ]


def letter(text: str) -> dict[str, Any]:
    """A row of the view dead_letters, as it is asked for. Its payload is a record of the native API."""
    texts = ("source", "type", "route", "reason", "message", "service_id", "batch_id", "error")
    last = ("last_actor", "last_note", "last_reason", "last_message")
    return {
        **dict.fromkeys((*texts, *last), text),
        **dict.fromkeys(("item_index", "record_index", "partition", "offset", "last"), 0),
        "id": LETTER_ID,
        "tenant": "acme",
        "received": 1,
        "kept": 1,
        "item_count": 1,
        "has_payload": 1,
        "payload": "eyJhIjogIjwvdGV4dGFyZWE+PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0PiJ9",  # {"a": "</textarea><script>…"}
        "payload_form": "native_json",
        "payload_size_bytes": 45,
        "topic": text,
        "state": "open",
        "attempts": 1,
    }


class Web(NamedTuple):
    """The application, and what is behind it. `gathered` counts who asked for every tenant's metrics."""

    app: ASGIApp
    store: FakeStore
    metrics: Metrics
    gathered: list[None]

    @asynccontextmanager
    async def browser(self, scope: str | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client with that key in its cookie."""
        transport = httpx.ASGITransport(self.app, **settings)
        cookies = {} if scope is None else {COOKIE: scope}
        async with httpx.AsyncClient(transport=transport, base_url="http://collector", cookies=cookies) as client:
            yield client


def web(
    text: str = "plain",
    *,
    has_store: bool = True,
    replayer: DeadLetterReplayer | None = None,
    plans: Mapping[str, str] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    **sources: Any,
) -> Web:
    """`text` is what the store has for every text. `clock`: that of kept answers."""
    store = FakeStore(text)
    metrics = Metrics()
    gathered: list[None] = []

    async def caught_up(_wait_s: float) -> int:
        return 0

    async def shown() -> Snapshot:
        return metrics.shown()

    async def gather() -> Snapshot:
        gathered.append(None)
        return metrics.snapshot()

    reports = DeadLetterReports(Reader(store.query, caught_up, 0), 30) if has_store else None
    given = Sources(
        version="1.2.0",
        health=lambda: Health("ok", "ok", "ok", broker=EMBEDDED_LOG, store=EMBEDDED_ENGINE),
        uptime_s=lambda: 61.0,
        snapshot=shown,
        gather=gather,
        plans=lambda: plans or {},
        settings=lambda: [SettingShown("a.b", text, False, text), SettingShown("a.c", "1", True, "")],
        letters=reports,
        replayer=replayer,
    )
    app = WebUi(given._replace(**sources), Access(KEYS.get, ANONYMOUS), EXPLAIN, clock)
    return Web(app, store, metrics, gathered)


def form(scope: str, **fields: str) -> dict[str, str]:
    """A form that the page of that key sends."""
    return {TOKEN_FIELD: token_of(scope.encode()), **fields}
