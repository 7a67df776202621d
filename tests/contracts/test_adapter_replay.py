"""A rejected item is kept so that it can be replayed: whatever is sent, by whatever adapter."""

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from support.examples import examples
from support.references.otlp import REQUESTS
from support.references.replaying import NOW, Adapter, check_budget, check_replays
from support.strategies.native import records
from support.strategies.otlp import messages, oddly_written
from support.strategies.prometheus import requests_v2, write_requests

from adapters.errors import RequestRefused
from adapters.native import request as native
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2

OTLP = {
    "logs": Adapter(SOURCE_OTLP, logs.adapt, logs.adapt),
    "metrics": Adapter(SOURCE_OTLP, metrics.adapt, metrics.adapt),
    "traces": Adapter(SOURCE_OTLP, traces.adapt, traces.adapt),
}
REMOTE_WRITE = {
    "v1": (Adapter(SOURCE_PROMETHEUS_WRITE_V1, write_v1.adapt, write_v1.adapt), write_requests()),
    "v2": (Adapter(SOURCE_PROMETHEUS_WRITE_V2, write_v2.adapt, write_v2.adapt), requests_v2()),
}
NATIVE = Adapter(SOURCE_NATIVE, partial(native.adapt_batch, batch_items_max=10_000), native.adapt)
NATIVE_ONE = Adapter(SOURCE_NATIVE, native.adapt, native.adapt)

# From those that hardly anything fits to one that everything does.
message_sizes = st.sampled_from([150, 250, 400, 1 << 20, 1 << 20, 1 << 20])
budgets = st.tuples(st.sampled_from([0, 1, 2, 3, 1_000]), st.sampled_from([0, 1, 60, 200, 500, 2_000, 1 << 20]))


@st.composite
def json_texts(draw: st.DrawFn, value: Any) -> str:
    """JSON of `value`, as one may write it: with space here and there, or none, escaped or not; a NaN now and then."""
    spaces = st.sampled_from(["", "", " ", "\n\t ", "\r\n"])
    separators = (draw(spaces) + "," + draw(spaces), draw(spaces) + ":" + draw(spaces))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=separators)
    return text.replace("87.3", draw(st.sampled_from(["87.3", "NaN", "1e999", "-0"])))


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    spaces = st.sampled_from(["", "", " ", "\n\t "])
    texts = [draw(spaces) + draw(json_texts(record)) + draw(spaces) for record in draw(st.lists(records(), max_size=6))]
    return (draw(spaces) + "[" + ",".join(texts) + "]" + draw(spaces)).encode()


@pytest.mark.parametrize("signal", sorted(OTLP))
@examples(60)
@given(data=st.data())
def test_any_rejected_otlp_item_can_be_replayed(signal: str, data: st.DataObject) -> None:
    """Plainly or oddly written; whatever is wrong with it, its metric, its scope or its resource."""
    request = data.draw(messages(REQUESTS[signal].DESCRIPTOR))
    body = data.draw(oddly_written(request)) if data.draw(st.booleans()) else request.SerializeToString()
    try:
        check_replays(OTLP[signal], body, data.draw(message_sizes))
    except RequestRefused:
        # Written so oddly that it is malformed, for which tests/unit/adapters/otlp has the verdict.
        return
    check_budget(OTLP[signal], body, *data.draw(budgets))


@pytest.mark.parametrize("version", sorted(REMOTE_WRITE))
@examples(200)
@given(data=st.data())
def test_any_rejected_remote_write_item_can_be_replayed(version: str, data: st.DataObject) -> None:
    """Samples, histograms and exemplars, with and without metadata, or that alone, plainly or oddly written."""
    adapter, requests = REMOTE_WRITE[version]
    request: Any = data.draw(requests)
    body = data.draw(oddly_written(request)) if data.draw(st.booleans()) else request.SerializeToString()
    try:
        check_replays(adapter, body, data.draw(message_sizes))
    except RequestRefused:
        return
    check_budget(adapter, body, *data.draw(budgets))


def test_the_labels_of_another_series_do_not_make_a_histogram_too_large() -> None:
    """With messages of 180 bytes the first fits no message for its labels, and the second does."""
    request = write_pb2.WriteRequest()
    for instance, schema in (("shop", 0), ("", -53)):
        series = request.timeseries.add()
        for name, value in (("__name__", "up"), ("job", "node"), ("service_instance_id", instance)):
            if value:
                series.labels.add(name=name, value=value)
        series.histograms.add(count_int=0, schema=schema, custom_values=[0.0] if schema else [], timestamp=NOW // 10**6)
    adapted = check_replays(REMOTE_WRITE["v1"][0], request.SerializeToString(), 180)
    assert ([0], 1) == ([rejection.index for rejection in adapted.rejections], adapted.accepted_count())


@examples(200)
@given(batches(), st.data())
def test_any_rejected_record_can_be_replayed(body: bytes, data: st.DataObject) -> None:
    """It can be replayed however the array is written, and whichever way it has to be read."""
    check_replays(NATIVE, body, data.draw(message_sizes))
    check_budget(NATIVE, body, *data.draw(budgets))


@examples(60)
@given(records(), st.data())
def test_a_rejected_single_record_can_be_replayed(record: Any, data: st.DataObject) -> None:
    """What is kept is the body."""
    body = data.draw(json_texts(record)).encode()
    adapted = check_replays(NATIVE_ONE, body, data.draw(message_sizes))
    assert {body} >= {rejection.payload for rejection in adapted.rejections}
    check_budget(NATIVE_ONE, body, *data.draw(budgets))
