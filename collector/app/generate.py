"""The command `generate`: sends numbered items at a rate, counts the acknowledged items, and looks them up in the store.

Invariants (tests in tests/system/test_generate.py):
1. Each item is sent once. It counts as acknowledged only after an answer with status 200 that does not reject it.
   test_what_is_acknowledged_is_found
2. A request without an answer is in doubt: each of its items may be stored once. test_what_is_acknowledged_is_found
3. Ctrl-C ends the sending. The items that were sent are still looked up. test_ctrl_c_ends_the_sending
"""

import http.client
import itertools
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from collector.runtime.errors import CannotRun

Signal = Literal["logs", "metrics", "traces"]

ANSWER_TIMEOUT_S: Final = 30.0
STORED_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.5
_ENDED_LOOK_S: Final = 0.05
_PORTS: Final = {"http": 80, "https": 443}
# The queries that read the numbers of items from the tables.
_STORED: Final[dict[Signal, str]] = {
    "logs": "SELECT Body AS number FROM otel_logs",
    "metrics": "SELECT toString(toUInt64(Value)) AS number FROM otel_metrics_gauge",
    "traces": "SELECT SpanName AS number FROM otel_traces",
}


@dataclass(frozen=True)
class LoadPlan:
    """The load to send. `rate` is in items a second. `items` is the number of items of one request, `attributes` the number of
    attributes of one item."""

    signal: Signal
    rate: float
    items: int
    attributes: int
    duration_s: float
    connections: int
    endpoint: str
    key: str | None


@dataclass
class Sent:
    """The results of sending, in numbers of items. `refused` is in requests, by HTTP status; 0 is a request that was not sent,
    since the connection could not be opened."""

    service: str
    acknowledged: int = 0
    rejected: int = 0
    in_doubt: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    late_s: float = 0.0
    """The largest delay of a request after its planned time, of the requests that were answered."""


@dataclass(frozen=True)
class Stored:
    """The number of items that the store has, and how many of their numbers are distinct."""

    items: int
    distinct: int

    def adds_up(self, sent: Sent) -> bool:
        """Return whether the store has every acknowledged item once, and no other items but those in doubt, once."""
        return self.items == self.distinct and sent.acknowledged <= self.items <= sent.acknowledged + sent.in_doubt


def send(plan: LoadPlan) -> Sent:
    """Send until the duration is over, or until Ctrl-C. Return the results once every request has its answer, or has failed.
    Raises CannotRun if no server listens."""
    url = urlsplit(plan.endpoint)
    try:
        socket.create_connection((url.hostname or "", url.port or _PORTS[url.scheme]), ANSWER_TIMEOUT_S).close()
    except OSError as error:
        raise CannotRun(f"cannot send to {plan.endpoint}: {error}; choose another with --endpoint") from error
    sender = _Sender(plan)
    # The threads are daemons, so that a second Ctrl-C does not wait for answers.
    threads = [threading.Thread(target=sender.run, daemon=True) for _ in range(plan.connections)]
    try:
        with _Interrupts() as interrupts:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                if interrupts.noted:
                    sender.stopping.set()
                time.sleep(_ENDED_LOOK_S)
    finally:
        sender.stopping.set()
    return sender.sent


class _Interrupts:
    """Notes the first Ctrl-C while its context is open, and raises KeyboardInterrupt at the second only.

    KeyboardInterrupt may leave a lock of the standard library locked. A thread that is just starting would wait for it without
    end.
    """

    def __init__(self) -> None:
        self.noted = False
        self._handler: Final = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        if self._handler is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._handler)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True


def find(plan: LoadPlan, sent: Sent, query: Callable[[str], bytes]) -> Stored:
    """Query until all acknowledged items are stored, for STORED_TIMEOUT_S at most. Return what the last query has counted.
    Raises the errors of `query`."""
    rows = f"{_STORED[plan.signal]} WHERE ServiceName = '{sent.service}'"
    until = time.monotonic() + STORED_TIMEOUT_S
    while True:
        found: dict[str, Any] = json.loads(query(f"SELECT count() AS items, uniqExact(number) AS distinct FROM ({rows})"))  # noqa: S608
        stored = Stored(int(found["items"]), int(found["distinct"]))
        if stored.items >= sent.acknowledged or time.monotonic() > until:
            return stored
        time.sleep(_LOOK_S)


class _Sender:
    """Sends requests from several threads. Each thread that calls `run` has its own connection."""

    def __init__(self, plan: LoadPlan) -> None:
        self.sent: Final = Sent(f"generate-{uuid4().hex[:12]}")
        self.stopping: Final = threading.Event()
        self._plan: Final = plan
        self._requests: Final = itertools.count()
        self._lock: Final = threading.Lock()
        self._began_s: Final = time.monotonic()
        self._url: Final = urlsplit(plan.endpoint)

    def run(self) -> None:
        """Send requests, each at its time, until the duration is over or `stopping` is set."""
        plan = self._plan
        connect = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = connect(self._url.hostname or "", self._url.port, timeout=ANSWER_TIMEOUT_S)
        headers = {"content-type": "application/x-protobuf"} | ({} if plan.key is None else {"x-api-key": plan.key})
        while True:
            with self._lock:
                number = next(self._requests)
            due_s = number * plan.items / plan.rate
            if due_s >= plan.duration_s:
                break
            wait_s = self._began_s + due_s - time.monotonic()
            if self.stopping.wait(max(0.0, wait_s)):
                break
            body = _request(plan, self.sent.service, number * plan.items).SerializeToString()
            try:
                connection.connect() if connection.sock is None else None
            except OSError:  # nothing was sent
                with self._lock:
                    self.sent.refused[0] += 1
                continue
            try:
                connection.request("POST", f"/v1/{plan.signal}", body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                with self._lock:
                    self.sent.in_doubt += plan.items
                continue
            self._count(answer.status, content, -wait_s)

    def _count(self, status: int, content: bytes, late_s: float) -> None:
        with self._lock:
            self.sent.late_s = max(self.sent.late_s, late_s)
            if status != http.client.OK:
                self.sent.refused[status] += 1
                return
            rejected = _rejected(self._plan.signal, content)
            self.sent.rejected += rejected
            self.sent.acknowledged += self._plan.items - rejected


def _request(plan: LoadPlan, service: str, first: int) -> Any:
    attributes = [(f"key-{index}", f"value-{index * 7919}") for index in range(plan.attributes)]
    now = time.time_ns()
    request: Any
    if plan.signal == "logs":
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        items = resource.scope_logs.add().log_records
    elif plan.signal == "traces":
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        items = resource.scope_spans.add().spans
    else:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        metric = resource.scope_metrics.add().metrics.add(name="generated")
        items = metric.gauge.data_points
    resource.resource.attributes.add(key="service.name").value.string_value = service
    for number in range(first, first + plan.items):
        item = items.add()
        for key, value in attributes:
            item.attributes.add(key=key).value.string_value = value
        if plan.signal == "logs":
            item.time_unix_nano, item.body.string_value = now, str(number)
        elif plan.signal == "traces":
            item.trace_id, item.span_id, item.name = uuid4().bytes, uuid4().bytes[:8], str(number)
            item.start_time_unix_nano, item.end_time_unix_nano = now - 1_000_000, now
        else:
            item.time_unix_nano, item.as_double = now, float(number)
    return request


def _rejected(signal: Signal, content: bytes) -> int:
    if signal == "logs":
        return ExportLogsServiceResponse.FromString(content).partial_success.rejected_log_records
    if signal == "traces":
        return ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans
    return ExportMetricsServiceResponse.FromString(content).partial_success.rejected_data_points
