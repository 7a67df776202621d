"""Pages in a real browser, from another origin: OpenTelemetry's SDK for the web, fetch and navigator.sendBeacon."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser
from support.processes.chromium import chromium
from support.processes.clients import built
from support.processes.program import Program, started
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

pytestmark = pytest.mark.clients

AMOUNT = 100
TOLD_S = 60
HTML = b'<!doctype html><meta charset="utf-8"><title>page</title><script src="/page.bundle.js" defer></script>'


class Site:
    """A web server of another origin than the collector, which has the page, and hears from it what it saw."""

    def __init__(self, script: bytes) -> None:
        told: queue.Queue[dict[str, Any]] = queue.Queue()
        self.told = told

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(*((script, "text/javascript") if self.path == "/page.bundle.js" else (HTML, "text/html")))

            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.answer(b"", "text/plain")

            def answer(self, body: bytes, content_type: str) -> None:
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://localhost:{self.server.server_port}"

    def hear(self, browser: Browser, **wanted: object) -> dict[str, Any]:
        """What a visit to the page with these parameters saw."""
        context = browser.new_context()
        try:
            context.new_page().goto(f"{self.origin}/?{urlencode(wanted)}")
            return self.told.get(timeout=TOLD_S)
        finally:
            context.close()


@contextmanager
def serving(script: Path) -> Iterator[Site]:
    site = Site(script.read_bytes())
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        thread.join()
        site.server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("no page of another origin was tried in a browser") as opened:
        yield opened


def test_pages_of_an_allowed_origin_send_and_read_answers(tmp_path: Path, browser: Browser) -> None:
    """Spans in JSON and protobuf, logs and metrics by the SDK, fetch with a key in a header, and a beacon with it in the query.
    A page of another origin reads nothing, and has its key refused."""
    bundle = built("browser") / "page.bundle.js"
    with serving(bundle) as allowed, serving(bundle) as other:
        program = Program(
            tmp_path / "data",
            http__cors_origins=f"https://app.example.com,{allowed.origin}",
            http__query_key="true",
            tenants__anonymous="no",
            tenants__keys_reload_s=0.1,
            logging__requests="true",
        )
        with started(program):
            key = keys.create(
                program.data_dir / keys.FILE_NAME,
                tenant="web",
                scope=Scope.INGEST,
                plan="Unlimited",
                origins=[allowed.origin],
                now=datetime.now(UTC),
            ).text
            wanted = {"collector": program.otlp_http, "service": "page", "key": key, "amount": AMOUNT}
            until(lambda: "the keys file was read" in program.log())
            told = allowed.hear(browser, **wanted)
            assert allowed.origin == told["origin"], told
            assert (200, True) == (told["fetched"]["status"], told["fetched"]["batch"])
            assert 401 == told["wrongKey"]["status"]
            assert "the API key is unknown" in told["wrongKey"]["text"]
            assert 404 == told["wrongPath"]["status"]
            assert 400 == told["notJson"]["status"]
            assert told["beacon"] is True

            refused = other.hear(browser, **wanted)
            assert other.origin == refused["origin"], refused
            assert ["Failed to fetch"] * 4 == [
                str(refused[name]["error"]).removeprefix("TypeError: ")
                for name in ("fetched", "wrongKey", "wrongPath", "notJson")
            ]

            where = "WHERE TenantId = 'web' AND ServiceName = 'page'"
            number = "toUInt32({}['number'])"
            spans = number.format("SpanAttributes")
            until(lambda: program.query(f"SELECT Body FROM otel_logs {where} AND Body = 'beacon'"))
            assert [{"name": name, "spans": AMOUNT, "different": AMOUNT} for name in ("json", "proto")] == program.query(
                f"SELECT SpanName AS name, toUInt32(count()) AS spans, toUInt32(uniqExact({spans})) AS different"
                f" FROM otel_traces {where} GROUP BY name ORDER BY name"
            )
            assert [
                {"body": "beacon", "logs": 1},
                {"body": "fetch", "logs": 1},
                {"body": "sdk", "logs": AMOUNT},
            ] == program.query(
                f"SELECT Body AS body, toUInt32(count()) AS logs FROM otel_logs {where} GROUP BY body ORDER BY body"
            )
            points = number.format("Attributes")
            assert [{"points": AMOUNT, "right": AMOUNT}] == program.query(
                f"SELECT toUInt32(count()) AS points, toUInt32(countIf(Value = {points})) AS right"
                f" FROM otel_metrics_sum {where}"
            )
            assert key not in program.log()
            assert "api_key=" not in program.log()
            assert '"route": "/v1/logs"' in program.log()
