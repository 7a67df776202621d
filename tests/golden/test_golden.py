"""What each adapter makes of a known request, to the letter.

After a change on purpose: UPDATE_GOLDEN=1 make test ARGS=tests/golden, and read the diff.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from google.protobuf import text_format
from infrasage.prometheus.v1.write_pb2 import WriteRequest
from infrasage.prometheus.v2.write_pb2 import Request
from support.limits import DEFAULT
from support.records import flat

from adapters.errors import REASON
from adapters.native import request as native
from adapters.otlp import json, logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2, Adapted, Header
from adapters.rules import Rules
from collector.ingest.validate import LimitRules

HERE = Path(__file__).parent
NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
LIMITS = DEFAULT

Adapt = Callable[[bytes, Header, Rules, int], Adapted]
CASES: dict[str, tuple[int, Callable[[bytes], bytes], Adapt]] = {
    "otlp_traces.json": (SOURCE_OTLP, json.traces_to_wire, traces.adapt),
    "otlp_logs.json": (SOURCE_OTLP, json.logs_to_wire, logs.adapt),
    "otlp_metrics.json": (SOURCE_OTLP, json.metrics_to_wire, metrics.adapt),
    "native_batch.json": (SOURCE_NATIVE, bytes, partial(native.adapt_batch, batch_items_max=10_000)),
    "remote_write_v1.textproto": (
        SOURCE_PROMETHEUS_WRITE_V1,
        lambda text: text_format.Parse(text.decode(), WriteRequest()).SerializeToString(),
        write_v1.adapt,
    ),
    "remote_write_v2.textproto": (
        SOURCE_PROMETHEUS_WRITE_V2,
        lambda text: text_format.Parse(text.decode(), Request()).SerializeToString(),
        write_v2.adapt,
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_record_is_what_it_was(name: str) -> None:
    """The same input gives the same records and the same refusals as when the file was written."""
    source, to_body, adapt = CASES[name]
    header = Header("acme", source, NOW, bytes(range(16)))
    adapted = adapt(to_body((HERE / name).read_bytes()), header, LimitRules(LIMITS, NOW), 524_288)
    batch = flat(b"".join(part.payload for part in adapted.parts))
    refusals = [f"# item {each.index} is refused: {REASON[each.reason].name}: {each.message}\n" for each in adapted.rejections]
    actual = "".join(refusals) + text_format.MessageToString(batch, as_utf8=True)
    expected = HERE / (name.partition(".")[0] + ".expected")
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(actual, encoding="utf-8")
    assert expected.read_text(encoding="utf-8") == actual
