"""Every way in with any request for it: what Hypothesis makes, how it is sent, and what its slow twin expects of the store.

What is expected comes from the generated request by the twins alone. Only the time of arrival is read from the store, and it
must be between the sending of the request and its answer.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import grpc
import httpx
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_pb2 import Source
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from support import otlp_grpc
from support.processes.program import Program
from support.references import native, otlp, prometheus
from support.references.differences import Difference, differences, paths, possible_paths
from support.references.otlp_json import forget_nan_payloads, to_json
from support.references.stored import items, stored_where
from support.strategies.native import records
from support.strategies.otlp import messages
from support.strategies.prometheus import requests_v2, write_requests
from support.ways import JSON, PROTOBUF, REMOTE_WRITE_V2, snappy

from collector.api.query_client import ask
from collector.ingest.validate import Limits

# As far as the settings go: all but the times that a store can't hold, and zero, are in time.
_CENTURY_S = 3_155_760_000
SETTINGS: dict[str, Any] = {
    "validation__past_max_s": _CENTURY_S,
    "validation__future_max_s": _CENTURY_S,
    "validation__attribute_value_too_long": "reject",
}
_LIMITS = Limits(
    past_max_s=_CENTURY_S,
    future_max_s=_CENTURY_S,
    attributes_max=1_024,
    attribute_key_bytes_max=1_024,
    attribute_value_bytes_max=262_144,
    name_bytes_max=1_024,
    otlp_temporality_missing="cumulative",
)
_TENANT = "anonymous"
_THREADS = 8
_ROUND = 25
_READ_AT_ONCE = 500

Header = dict[str, Any]


class Expected(NamedTuple):
    """What becomes of a request."""

    items: list[bytes]
    rejected: int


class Clients:
    """Connections to a running program. Each sender returns the batch id that it was answered."""

    def __init__(self, program: Program, http: httpx.Client, channel: grpc.Channel) -> None:
        self._program = program
        self._http = http
        self._channel = channel

    def post(self, path: str, content_type: str, body: bytes) -> UUID:
        answer = self._http.post(self._program.http + path, content=body, headers={"content-type": content_type})
        assert answer.status_code in (200, 204, 400), answer.text  # 400: an item was refused, where there is no partial success
        return UUID(answer.headers["x-infrasage-batch-id"])

    def export(self, service: otlp_grpc.Service, body: bytes) -> UUID:
        method: Any = self._channel.unary_unary(service.method)
        _, call = method.with_call(body, timeout=20)
        return UUID(dict(call.trailing_metadata())["x-infrasage-batch-id"])

    def query(self, sql: str, format_: str) -> bytes:
        """What the store holds, once all that was acknowledged is in it."""
        answer = ask(self._program.data_dir, sql, format_)
        assert answer.messages_behind == 0
        return answer.body


@contextmanager
def clients(program: Program) -> Iterator[Clients]:
    with httpx.Client(timeout=20) as http, grpc.insecure_channel(program.grpc) as channel:
        yield Clients(program, http, channel)


class Kind(NamedTuple):
    """Of requests: all that can be asked, and what must become of one under the header of its records.

    `fields`: every field that there is, as differences.py has paths; `fields_of`: those that are in one request.
    """

    requests: st.SearchStrategy[Any]
    expected: Callable[[Any, Header], Expected]
    fields: frozenset[str]
    fields_of: Callable[[Any, Expected], set[str]]
    part: int = 1  # of the items that are asked for one in so many is enough: it is the same code behind another route


class Way(NamedTuple):
    """How such requests are sent; `carried` is what is left of one on this way."""

    kind: str
    name: str
    send: Callable[[Clients, Any], UUID]
    carried: Callable[[Any], Any] = lambda request: request


# Beside the items of other signals, what is in no row of an item, or the same in all: each request is one message a topic here.
_NOT_OF_AN_ITEM = {"item_count", "receipt", "batch_part", "fingerprint", "repeated_items"}


def _fields_of_items(_request: Any, expected: Expected) -> set[str]:
    return {path for item in expected.items for path in paths(TelemetryRecordV1.FromString(item))}


def _otlp(signal: str) -> Kind:
    def expected(request: Message, header: Header) -> Expected:
        body = request.SerializeToString()
        source = {"source": Source.SOURCE_OTLP}
        verdicts, batch = otlp.reference(signal, body, _LIMITS, header["received_time_unix_nano"], header | source)
        return Expected(list(items(batch)), sum(1 for reasons in verdicts if reasons))

    left_out = _NOT_OF_AN_ITEM | set(otlp.FIELDS.values()) - {otlp.FIELDS[signal]}
    fields = frozenset(
        path
        for path in possible_paths(TelemetryRecordV1.DESCRIPTOR)
        # A key by reference is not for OTLP's own requests.
        if path.split(".")[0] not in left_out and not path.endswith(".key_strindex")
    )
    return Kind(messages(otlp.REQUESTS[signal].DESCRIPTOR), expected, fields, _fields_of_items)


def _remote_write(requests: st.SearchStrategy[Any], request_type: Any, twin: Callable[..., prometheus.Expected]) -> Kind:
    def expected(request: Any, header: Header) -> Expected:
        found = twin(request, _LIMITS, header["received_time_unix_nano"], header)
        return Expected(list(items(found.batch)), len(found.rejections))

    fields = frozenset(possible_paths(request_type.DESCRIPTOR))
    return Kind(requests, expected, fields, lambda request, _expected: set(paths(request)))


def _expected_native(documents: list[Any], header: Header) -> Expected:
    metrics, logs, rejections = native.reference(documents, _LIMITS, header["received_time_unix_nano"], header)
    for record in logs.records:
        # Each topic has a message of its own.
        record.batch_part = 1 if metrics.records else 0
    return Expected([*items(metrics), *items(logs)], len(rejections))


# As docs/use/api.md has them.
_NATIVE = frozenset({"service_id", "type", "metric_name", "value", "body", "trace_id", "timestamp", "attributes"})


def _names(documents: list[Any], _expected: Expected) -> set[str]:
    return {name for document in documents if isinstance(document, dict) for name in document} & _NATIVE


def _is_legal(request: Any) -> bool:
    """Whether it is not refused as a whole."""
    return bool(request.symbols) and not request.symbols[0]


KINDS = {
    "metrics": _otlp("metrics"),
    "logs": _otlp("logs"),
    "traces": _otlp("traces"),
    "remote write 1.0": _remote_write(write_requests(), write_pb2.WriteRequest, prometheus.reference),
    "remote write 2.0": _remote_write(requests_v2().filter(_is_legal), write_v2_pb2.Request, prometheus.reference_v2),
    "native records": Kind(st.lists(records(), max_size=20), _expected_native, _NATIVE, _names),
    "native record": Kind(st.lists(records(), min_size=1, max_size=1), _expected_native, _NATIVE, _names, part=10),
}


def _by_grpc(service: otlp_grpc.Service) -> Callable[[Clients, Message], UUID]:
    return lambda clients, request: clients.export(service, request.SerializeToString())


def _by_http(path: str, content_type: str, encode: Callable[[Any], bytes]) -> Callable[[Clients, Any], UUID]:
    return lambda clients, request: clients.post(path, content_type, encode(request))


def _protobuf(request: Message) -> bytes:
    return request.SerializeToString()


def _compressed(request: Message) -> bytes:
    return snappy(request.SerializeToString())


def _otlp_json(request: Message) -> bytes:
    return json.dumps(to_json(request)).encode()


def _without_nan_payloads(request: Message) -> Message:
    copy = type(request)()
    copy.CopyFrom(request)
    forget_nan_payloads(copy)
    return copy


def _otlp_ways(signal: str, service: otlp_grpc.Service) -> tuple[Way, ...]:
    return (
        Way(signal, "gRPC", _by_grpc(service)),
        Way(signal, "HTTP protobuf", _by_http(f"/v1/{signal}", PROTOBUF, _protobuf)),
        Way(signal, "HTTP JSON", _by_http(f"/v1/{signal}", JSON, _otlp_json), _without_nan_payloads),
    )


WAYS = (
    *_otlp_ways("metrics", otlp_grpc.METRICS),
    *_otlp_ways("logs", otlp_grpc.LOGS),
    *_otlp_ways("traces", otlp_grpc.TRACES),
    Way("remote write 1.0", "HTTP", _by_http("/api/v1/prometheus/write", PROTOBUF, _compressed)),
    Way("remote write 2.0", "HTTP", _by_http("/api/v1/prometheus/write", REMOTE_WRITE_V2, _compressed)),
    Way(
        "native records",
        "HTTP",
        _by_http("/api/v1/telemetry/batch", JSON, lambda documents: json.dumps(documents).encode()),
    ),
    Way("native record", "HTTP", _by_http("/api/v1/telemetry", JSON, lambda documents: json.dumps(documents[0]).encode())),
)


def header_of(batch_id: UUID, received_time_unix_nano: int) -> Header:
    """That of all records of a request."""
    return {"tenant_id": _TENANT, "received_time_unix_nano": received_time_unix_nano, "batch_id": batch_id.bytes}


def generated(kind: Kind, items_min: int, first_seed: int) -> list[Any]:
    """Requests with at least so many items to be stored, or the kind's part, and every field; the same for the same seed.

    Fields that are in none of four times as many are left to be missed.
    """
    made: list[Any] = []
    header = header_of(UUID(int=0), time.time_ns())
    count = 0
    unseen = set(kind.fields)
    for number in range(first_seed * items_min, (first_seed + 1) * items_min):
        requests = _examples(kind.requests, number)
        for request in requests:
            expected = kind.expected(request, header)
            count += len(expected.items)
            if unseen:
                unseen -= kind.fields_of(request, expected)
        made += requests
        if count >= items_min // kind.part * (4 if unseen else 1):
            return made
    raise AssertionError(f"{len(made)} requests have only {count} items")


def _examples(strategy: st.SearchStrategy[Any], number: int) -> list[Any]:
    made: list[Any] = []

    @seed(number)
    @settings(max_examples=_ROUND, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def keep(request: Any) -> None:
        made.append(request)

    keep()
    return made


class Delivered(NamedTuple):
    """A request that was answered: what had to become of its items, and what is stored."""

    expected: list[bytes]
    found: list[bytes]

    def differences(self) -> list[Difference]:
        return differences(self.expected, self.found)


class _Sent(NamedTuple):
    request: Any
    batch_id: UUID
    earliest: int
    latest: int


def deliver(clients: Clients, way: Way, requests: Sequence[Any]) -> list[Delivered]:
    """Send all, some at a time, then read all back. The receipts have to agree, too."""

    def send(request: Any) -> _Sent:
        earliest = time.time_ns()
        return _Sent(request, way.send(clients, request), earliest, time.time_ns())

    with ThreadPoolExecutor(_THREADS) as pool:
        sent = list(pool.map(send, requests))
    delivered: list[Delivered] = []
    for start in range(0, len(sent), _READ_AT_ONCE):
        delivered += _read(clients, way, sent[start : start + _READ_AT_ONCE])
    return delivered


def _read(clients: Clients, way: Way, sent: Sequence[_Sent]) -> Iterator[Delivered]:
    ids = ", ".join(f"'{one.batch_id}'" for one in sent)
    those = f"BatchId IN ({ids})"
    receipts = {
        UUID(row["BatchId"]): row
        for row in map(
            json.loads,
            clients.query(
                "SELECT BatchId, toUnixTimestamp64Nano(ReceivedAt) AS At, Received, arraySum(mapValues(Accepted)) AS Kept,"
                f" arraySum(mapValues(Rejected)) AS Refused FROM telemetry_batches WHERE {those}",
                "JSONEachRow",
            ).splitlines(),
        )
    }
    found: dict[UUID, list[bytes]] = {one.batch_id: [] for one in sent}
    for item in stored_where(clients, those):
        found[UUID(bytes=TelemetryRecordV1.FromString(item).batch_id)].append(item)
    for request, batch_id, earliest, latest in sent:
        receipt = receipts.get(batch_id)
        at = latest if receipt is None else receipt["At"]
        assert earliest <= at <= latest
        expected = KINDS[way.kind].expected(way.carried(request), header_of(batch_id, at))
        told = (0, 0, 0) if receipt is None else (receipt["Received"], receipt["Kept"], receipt["Refused"])
        assert (len(expected.items) + expected.rejected, len(expected.items), expected.rejected) == told
        yield Delivered(expected.items, found[batch_id])
