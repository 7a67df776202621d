"""The ways in over HTTP: every route with every media type, and what an error looks like on each."""

import json
from collections.abc import Callable
from typing import NamedTuple

import cramjam
import pytest
from google.protobuf.json_format import Parse
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from support.fakes.receiving import (
    native_batch,
    native_record,
    otlp_logs,
    otlp_logs_json,
    otlp_metrics,
    otlp_metrics_json,
    otlp_traces,
    otlp_traces_json,
    remote_write,
    remote_write_v2,
)

SERVERS = ("builtin", "hypercorn")
JSON = "application/json"
PROTOBUF = "application/x-protobuf"
REMOTE_WRITE_V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"


def snappy(body: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(body))


class Way(NamedTuple):
    """A way in: `body(good, late, padding)` is one of its bodies, not compressed."""

    path: str
    content_type: str
    body: Callable[..., bytes]
    status: int = 200

    @property
    def name(self) -> str:
        return f"{self.path}-{self.content_type.split('/')[1]}"

    @property
    def is_otlp(self) -> bool:
        return self.path.startswith("/v1/")

    @property
    def is_remote_write(self) -> bool:
        return self.status == 204

    def as_sent(self, body: bytes) -> bytes:
        """Compressed where the protocol always is."""
        return snappy(body) if self.is_remote_write else body


WAYS = (
    Way("/api/v1/telemetry", JSON, native_record),
    Way("/api/v1/telemetry/batch", JSON, native_batch),
    Way("/v1/metrics", PROTOBUF, otlp_metrics),
    Way("/v1/metrics", JSON, otlp_metrics_json),
    Way("/v1/logs", PROTOBUF, otlp_logs),
    Way("/v1/logs", JSON, otlp_logs_json),
    Way("/v1/traces", PROTOBUF, otlp_traces),
    Way("/v1/traces", JSON, otlp_traces_json),
    Way("/api/v1/prometheus/write", PROTOBUF, remote_write, 204),
    Way("/api/v1/prometheus/write", REMOTE_WRITE_V2, remote_write_v2, 204),
)
WAYS_BY_NAME = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
PATHS = tuple(dict.fromkeys(way.path for way in WAYS))


class Told(NamedTuple):
    """An error, whatever its protocol. `error` is the reason's name, `code` gRPC's: each "" or 0 where the answer has none.

    `retry_after_s`: in the body.
    """

    message: str
    error: str = ""
    code: int = 0
    retry_after_s: float | None = None


def told(way: Way, content_type: str, body: bytes) -> Told:
    """What an error's answer says, in the protocol's own shape, which is checked."""
    if way.is_otlp:
        assert content_type == way.content_type
        status = Status.FromString(body) if content_type == PROTOBUF else Parse(body, Status())
        assert status.code > 0
        return Told(status.message, code=status.code, retry_after_s=retry_delay_s(status))
    if way.is_remote_write:
        assert content_type == "text/plain; charset=utf-8"
        error, _, message = body.decode().removesuffix("\n").partition(": ")
        assert "\n" not in message
        return Told(message, error)
    document = json.loads(body)
    assert content_type == JSON
    assert document.keys() == {"status", "error", "message"}
    assert document["status"] == "error"
    return Told(document["message"], document["error"])


def retry_delay_s(status: Status) -> float | None:
    """What its RetryInfo says; None: it has none, and nothing else either."""
    for detail in status.details:
        info = RetryInfo()
        assert detail.Unpack(info)
        return float(info.retry_delay.ToNanoseconds() / 1e9)
    return None
