"""Clients that send numbered records, each exactly once and never again, and remember what was acknowledged.

A number whose request broke off is in doubt: it may be stored once, or not at all.
"""

import http.client
import itertools
import json
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Final, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

NATIVE_SERVICE: Final = "numbered-native"
OTLP_SERVICE: Final = "numbered-otlp"
# Between a thread's requests: what is tested is what becomes of them, and each costs the gateway, the broker and the store CPU.
_PAUSE_S: Final = 0.06
# The numbers that are stored, of both services, and how often.
COUNTS_SQL: Final = (
    "SELECT number, count() AS times FROM"
    f" (SELECT toUInt64(value) AS number FROM telemetry WHERE service_id = '{NATIVE_SERVICE}'"
    f" UNION ALL SELECT toUInt64(Body) AS number FROM otel_logs WHERE ServiceName = '{OTLP_SERVICE}') GROUP BY number"
)


class Senders:
    """Threads with a connection each; every other one speaks OTLP, the rest the native API. Use as a context."""

    def __init__(
        self,
        port: int,
        threads: int = 16,
        records_per_request: int = 5,
        *,
        key: str | None = None,
        refused_may_be_stored: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`key`: their API key. `refused_may_be_stored`: where Kafka dies, a 503 means that nobody knows. `tls`: what is sent
        over, if it is."""
        self.acknowledged: set[int] = set()
        self.acknowledgements: list[tuple[float, list[int]]] = []  # when, by the monotonic clock, and what
        self.in_doubt: set[int] = set()
        self.refused: dict[int, int] = {}  # requests, by status
        self._port = port
        self._headers = {} if key is None else {"X-API-Key": key}
        self._tls = tls
        self._records = records_per_request
        self._refused_may_be_stored = refused_may_be_stored
        self._numbers: Iterator[int] = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(index % 2 == 0,)) for index in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Return when no request is under way any more."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30)

    def _run(self, native: bool) -> None:
        while not self._stop.is_set():
            if self._tls is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            else:
                connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=self._tls)
            try:
                connection.connect()
            except OSError:  # it is down: nothing was sent
                time.sleep(0.02)
                continue
            try:
                while not self._stop.is_set():
                    if not self._send(connection, native):
                        break
                    time.sleep(_PAUSE_S)
            finally:
                connection.close()

    def _send(self, connection: http.client.HTTPConnection, native: bool) -> bool:
        """One request; whether the connection is still good."""
        with self._lock:
            numbers = [next(self._numbers) for _ in range(self._records)]
        path, content_type, body = _native(numbers) if native else _otlp(numbers)
        try:
            connection.request("POST", path, body, {"Content-Type": content_type, **self._headers})
            answer = connection.getresponse()
            status = answer.status
            answer.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.in_doubt.update(numbers)
            return False
        with self._lock:
            if status == http.HTTPStatus.OK:
                self.acknowledged.update(numbers)
                self.acknowledgements.append((time.monotonic(), numbers))
            else:
                self.refused[status] = self.refused.get(status, 0) + 1
                if self._refused_may_be_stored:
                    self.in_doubt.update(numbers)
        return True

    def check(self, counts: dict[int, int]) -> None:
        """`counts`: how often each number is stored."""
        lost = self.acknowledged - counts.keys()
        twice = {number: times for number, times in counts.items() if times > 1}
        invented = counts.keys() - self.acknowledged - self.in_doubt
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged records are lost: {sorted(lost)[:20]}"
        assert not twice, f"{len(twice)} of {len(counts)} records are stored more than once: {sorted(twice.items())[:20]}"
        assert not invented, f"{len(invented)} records that were refused are stored: {sorted(invented)[:20]}"


def _native(numbers: list[int]) -> tuple[str, str, bytes]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    records = [{"service_id": NATIVE_SERVICE, "metric_name": "n", "value": number, "timestamp": now} for number in numbers]
    return "/api/v1/telemetry/batch", "application/json", json.dumps(records).encode()


def _otlp(numbers: list[int]) -> tuple[str, str, bytes]:
    return "/v1/logs", "application/x-protobuf", otlp_logs([str(number) for number in numbers])


def otlp_logs(bodies: list[str]) -> bytes:
    """An OTLP request of one log record for each."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    attribute = resource_logs.resource.attributes.add()
    attribute.key = "service.name"
    attribute.value.string_value = OTLP_SERVICE
    scope_logs = resource_logs.scope_logs.add()
    for body in bodies:
        record = scope_logs.log_records.add()
        record.time_unix_nano = time.time_ns()
        record.body.string_value = body
    return request.SerializeToString()
