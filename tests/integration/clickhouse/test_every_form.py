"""What an adapter accepts, the engine can read: requests in every form that their protocol allows, through the real engine.

All forms of a test are adapted one by one and inserted at once, since it is inserts that take time. The engine takes them all,
and holds exactly the rows that the canonical form of the same requests becomes, value for value.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.adapted import batch_of, reasons
from support.limits import ALL
from support.processes.clickhouse_server import OPTIONS
from support.references.otlp_json import forget_nan_payloads
from support.references.stored import items, stored
from support.reopened_store import store_with_tables
from support.strategies.full_messages import FullMessages
from support.strategies.json_forms import MESSAGE_ODDITIES, TEXT_ODDITIES, JsonForms
from support.strategies.native import NOW_TEXT
from support.strategies.native import records as native_records
from support.strategies.otlp import NOW, fit_buckets, messages
from support.strategies.prometheus import requests_v2, write_requests
from support.strategies.wire_forms import ODDITIES, Forms, canonical

from adapters.errors import RequestRefused
from adapters.native import request as native
from adapters.otlp import json, logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, Adapted, Header
from adapters.rules import Rules
from collector.ingest.produce import TOPICS
from collector.ingest.reading import Adapt
from collector.ingest.validate import LimitRules
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreRefusedData

MESSAGE_BYTES_MAX = 1 << 19
# Messages that Hypothesis makes, beside those that have every field. Each is written in some dozen forms.
EXAMPLES = 8


class Form(NamedTuple):
    """A body, how it is odd, the same in canonical form; and whether a body with these oddities is another one."""

    body: bytes
    oddities: Sequence[str]
    canonical: bytes
    is_odd: bool


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = store_with_tables(tmp_path_factory.mktemp("store") / "store", OPTIONS)
    yield opened
    opened.close()


def adapted(adapt: Adapt, body: bytes, tenant: str, number: int) -> Adapted:
    source = SOURCE_NATIVE if adapt is native_batch else SOURCE_OTLP
    header = Header(tenant, source, NOW, number.to_bytes(16, "big"))
    return adapt(body, header, LimitRules(ALL, NOW), MESSAGE_BYTES_MAX)


def refused(store: ClickHouseStore, requests: Sequence[tuple[Form, Adapted]], token: str) -> list[str]:
    """Insert the messages of these requests; return the engine's error for each that it refuses."""
    by_topic: dict[str, list[bytes]] = {}
    for _, request in requests:
        for part in request.parts:
            by_topic.setdefault(TOPICS[part.signal], []).append(part.payload)
    try:
        for topic, payloads in by_topic.items():
            store.insert(topic, payloads, token)
    except StoreRefusedData as error:
        if len(requests) == 1:
            form = requests[0][0]
            return [f"{form.oddities}: {form.body[:200].hex()}… of {len(form.body)} bytes: {error}"]
        middle = len(requests) // 2
        return refused(store, requests[:middle], f"{token}/0") + refused(store, requests[middle:], f"{token}/1")
    return []


def check(store: ClickHouseStore, adapt: Adapt, forms: Sequence[Form], tenant: str) -> None:
    """Rows stored = items accepted, and their values are those of the canonical form."""
    requests = []
    expected: list[bytes] = []
    for number, form in enumerate(forms):
        usual = adapted(adapt, form.canonical, tenant, number)
        made = adapted(adapt, form.body, tenant, number)
        assert (form.oddities, made.accepted, reasons(made)) == (form.oddities, usual.accepted, reasons(usual))
        requests.append((form, made))
        expected += items(batch_of(usual))
    assert sum(made.accepted_count() for _, made in requests) == len(expected)
    assert refused(store, requests, tenant) == []
    found = stored(store, tenant)
    assert len(found) == len(expected)
    for one, other in zip(sorted(expected), found, strict=True):
        if one != other:
            record = TelemetryRecordV1.FromString(other)
            form = forms[int.from_bytes(record.batch_id, "big")]
            assert (form.oddities, record) == (form.oddities, TelemetryRecordV1.FromString(one))


def of_each(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """Some examples of a strategy."""
    made = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def gather(example: Any) -> None:
        made.append(example)

    gather()
    return made


def oddities_of(forms: Sequence[Form]) -> set[str]:
    """Those that made a difference by themselves."""
    return {form.oddities[0] for form in forms if form.is_odd and len(form.oddities) == 1}


def forms_of(message: Message, lot: random.Random) -> Iterator[Form]:
    """A message in protobuf: with each oddity alone, here and there and everywhere, and with any of them at once."""
    usual = canonical(message)
    plain = Forms(lot, ()).form(message)
    choices: list[tuple[Sequence[str], float]] = [([oddity], oddness) for oddity in ODDITIES for oddness in (0.05, 0.6)]
    choices += [(lot.sample(ODDITIES, 2), 0.3), (lot.sample(ODDITIES, 3), 0.1), (ODDITIES, 0.02)]
    for oddities, oddness in choices:
        body = Forms(lot, oddities, oddness).form(message)
        assert canonical(type(message).FromString(body)) == canonical(message)
        yield Form(body, oddities, usual, body != plain)


def full_value(field: FieldDescriptor, turn: int) -> Any | None:
    """What no rule refuses."""
    if field.name.endswith("time_unix_nano"):
        return NOW - turn
    if field.name == "trace_id":
        return (turn + 1).to_bytes(16, "little")
    if field.name in ("span_id", "parent_span_id"):
        return (turn + 1).to_bytes(8, "little")
    return None


OTLP: dict[str, tuple[Adapt, type[Message], Callable[[bytes], bytes]]] = {
    "metrics": (metrics.adapt, ExportMetricsServiceRequest, json.metrics_to_wire),
    "logs": (logs.adapt, ExportLogsServiceRequest, json.logs_to_wire),
    "traces": (traces.adapt, ExportTraceServiceRequest, json.traces_to_wire),
}


def empty_lists(message: Message) -> None:
    """Make every list of numbers have no elements, in place: bucket counts and bounds."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in value if field.is_repeated else (value,):
                empty_lists(entry)
        elif field.is_repeated and field.type != FieldDescriptor.TYPE_STRING:
            message.ClearField(field.name)


def otlp_messages(class_: type[Message]) -> list[Message]:
    """One with every field, one whose lists are empty, and any."""
    descriptor: Any = class_.DESCRIPTOR
    full = FullMessages(full_value).message(descriptor)
    fit_buckets(full)
    empty = FullMessages(full_value).message(descriptor)
    empty_lists(empty)
    return [full, empty, *of_each(messages(descriptor))]


@pytest.mark.parametrize("signal", OTLP)
def test_otlp_in_every_form(store: ClickHouseStore, signal: str) -> None:
    """Fields in any order, repeated, in pieces, padded, unknown; lists packed, not packed, split, empty."""
    adapt, class_, _ = OTLP[signal]
    lot = random.Random(1)
    full, empty, *any_ = otlp_messages(class_)
    forms = [form for message in (full, full, empty, *any_) for form in forms_of(message, lot)]
    usual = adapted(adapt, full.SerializeToString(), signal, 0)
    assert usual.rejected_count() == 0
    without = {"list_split", "list_unpacked", "list_empty"} if signal != "metrics" else set()
    assert oddities_of(forms) == set(ODDITIES) - without
    check(store, adapt, forms, signal)


@pytest.mark.parametrize("signal", OTLP)
def test_otlp_json_in_every_form(store: ClickHouseStore, signal: str) -> None:
    """Null, empty lists and empty objects at every field; defaults written out, numbers as text, unknown and repeated keys."""
    adapt, class_, to_wire = OTLP[signal]
    lot = random.Random(2)
    oddities = (*MESSAGE_ODDITIES, *TEXT_ODDITIES)
    choices: list[tuple[Sequence[str], float]] = [([oddity], 0.6) for oddity in oddities]
    choices += [(["null_field"], 1.0), (["empty_list"], 1.0), (oddities, 0.1), ([], 1.0)]
    forms = []
    for message in otlp_messages(class_):
        forget_nan_payloads(message)
        usual = JsonForms(lot, ()).message(message)
        for some, oddness in choices:
            body = JsonForms(lot, some, oddness).message(message)
            forms.append(Form(body, some, usual, body != usual))

    def adapt_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
        return adapt(to_wire(body), header, rules, message_bytes_max)

    assert oddities_of(forms) == set(oddities)
    check(store, adapt_json, forms, f"{signal}-json")


def series_v1() -> write_pb2.WriteRequest:
    """Of each kind one: samples, histograms of integers and of floats, custom buckets with and without bounds, exemplars,
    metadata of a series and alone."""
    request = write_pb2.WriteRequest()
    for name in ("sampled", "counted", "floating", "custom", "custom_bare", "exemplary"):
        series = request.timeseries.add()
        for label, value in (("__name__", name), ("instance", "a:1"), ("job", "node"), ("zone", "b")):
            series.labels.add(name=label, value=value)
    sampled, counted, floating, custom, bare, exemplary = request.timeseries
    now = NOW // 1_000_000
    for n in range(3):
        sampled.samples.add(value=n + 0.5, timestamp=now - n)
        exemplar = sampled.exemplars.add(value=n, timestamp=now - n)
        exemplar.labels.add(name="trace_id", value="ab" * 16)
        exemplar.labels.add(name="user", value="u")
    exemplary.exemplars.add(value=1.5, timestamp=now)
    counted.histograms.add(count_int=7, sum=3.5, schema=3, zero_threshold=1e-9, zero_count_int=1, timestamp=now)
    counted.histograms[0].positive_deltas.extend([1, 1])
    counted.histograms[0].negative_deltas.append(3)
    counted.histograms[0].positive_spans.add(offset=-2, length=2)
    counted.histograms[0].negative_spans.add(offset=4, length=1)
    floating.histograms.add(count_float=4, sum=1, schema=-2, zero_count_float=0.5, timestamp=now, positive_counts=[1.5, 2])
    floating.histograms[0].positive_spans.add(length=1)
    floating.histograms[0].positive_spans.add(offset=3, length=1)
    custom.histograms.add(count_int=3, sum=2, schema=-53, timestamp=now, positive_deltas=[1, 1], custom_values=[0.5, 1.0])
    custom.histograms[0].positive_spans.add(length=2)
    bare.histograms.add(schema=-53, timestamp=now)
    request.metadata.add(type=2, metric_family_name="sampled", help="How many.", unit="bytes")
    request.metadata.add(type=1, metric_family_name="alone", help="Of no series.")
    return request


def series_v2() -> write_v2_pb2.Request:
    """The same, with symbols; and start times."""
    request = write_v2_pb2.Request(symbols=[""])
    numbers: dict[str, int] = {}

    def refs(labels: Any) -> list[int]:
        texts = [text for label in labels for text in (label.name, label.value)]
        for text in texts:
            if text not in numbers:
                numbers[text] = len(request.symbols)
                request.symbols.append(text)
        return [numbers[text] for text in texts]

    for sent in series_v1().timeseries:
        series = request.timeseries.add(labels_refs=refs(sent.labels), created_timestamp=NOW // 1_000_000 - 60_000)
        for sample in sent.samples:
            series.samples.add(value=sample.value, timestamp=sample.timestamp, start_timestamp=sample.timestamp - 1_000)
        for histogram in sent.histograms:
            series.histograms.add().ParseFromString(histogram.SerializeToString())
        for exemplar in sent.exemplars:
            series.exemplars.add(value=exemplar.value, timestamp=exemplar.timestamp, labels_refs=refs(exemplar.labels))
        series.metadata.type = write_v2_pb2.Metadata.METRIC_TYPE_COUNTER
    return request


REMOTE_WRITE: dict[str, tuple[Adapt, Message, st.SearchStrategy[Any]]] = {
    "v1": (write_v1.adapt, series_v1(), write_requests()),
    "v2": (write_v2.adapt, series_v2(), requests_v2()),
}


def is_taken(adapt: Adapt, message: Message) -> bool:
    """Whether the request is not refused as a whole, in any form: one without items is refused for its unknown fields."""
    try:
        found = adapted(adapt, canonical(message), "none", 0)
    except RequestRefused:
        return False
    return bool(found.accepted_count() + found.rejected_count())


@pytest.mark.parametrize("version", REMOTE_WRITE)
def test_remote_write_in_every_form(store: ClickHouseStore, version: str) -> None:
    """The same of labels, symbols, references, samples, histograms' spans, deltas, counts and bounds, exemplars, metadata."""
    adapt, full, any_ = REMOTE_WRITE[version]
    lot = random.Random(3)
    assert adapted(adapt, canonical(full), "none", 0).rejected_count() == 0
    made = [full, full, *(message for message in of_each(any_) if is_taken(adapt, message))]
    forms = [form for message in made for form in forms_of(message, lot)]
    # 1.0 has no singular submessage.
    assert oddities_of(forms) == set(ODDITIES) - ({"two_pieces"} if version == "v1" else set())
    check(store, adapt, forms, version)


def native_batch(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    return native.adapt_batch(body, header, rules, message_bytes_max, 10_000)


NATIVE_FIELDS = ("service_id", "type", "metric_name", "value", "body", "trace_id", "timestamp", "attributes")


def test_native_json_in_every_form(store: ClickHouseStore) -> None:
    """Null where a field is not, unknown and repeated names, members in any order, escapes and spaces."""
    lot = random.Random(4)
    full: list[dict[str, Any]] = [
        {
            "service_id": "s",
            "type": type_,
            "metric_name": "cpu",
            "value": 1.5,
            "body": "hé\n",
            "trace_id": "ab" * 16,
            "timestamp": NOW_TEXT,
            "attributes": {"a": None, "b": [], "c": {}, "d": [None, {}], "é": "x", "n": 1, "t": True},
        }
        for type_ in ("metric", "log", "trace", "event", "profile", "slo")
    ]
    oddities = ("null_field", "unknown_key", "spaces", "escapes", "key_twice")
    forms = []
    for records in (full, *of_each(st.lists(native_records(), max_size=5))):
        usual = JsonForms(lot, ()).text(records).encode()
        for some in (*([oddity] for oddity in oddities), oddities):
            writer = JsonForms(lot, some)
            odd = []
            for record in records:
                made = dict(record) if isinstance(record, dict) else record
                if isinstance(made, dict):
                    for name in NATIVE_FIELDS:
                        if name not in made and writer.is_("null_field"):
                            made[name] = None
                    if writer.is_("unknown_key"):
                        made["later"] = lot.choice([None, [], {}, [None]])
                odd.append(made)
            body = writer.text(odd).encode()
            forms.append(Form(body, some, usual, body != usual))
    assert adapted(native_batch, forms[0].canonical, "none", 0).accepted_count() == len(full)
    assert oddities_of(forms) == set(oddities)
    check(store, native_batch, forms, "native")
