"""What is over a limit costs no more than its own item: keys and names are cut so that two of them stay two."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from infrasage.prometheus.v1 import write_pb2 as write_v1_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from support.adapted import batch_of, reasons
from support.limits import DEFAULT, LOW, LOW_TRUNCATED
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.remote_write import write_request, write_request_v2
from support.references.twins import NOW

from adapters import errors
from adapters.native import request as native
from adapters.otlp import json as otlp_json
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import Adapted, Header
from adapters.repairs import (
    ATTRIBUTES_DROPPED,
    EXEMPLAR_DROPPED,
    ID_DROPPED,
    KEY_TRUNCATED,
    NAME_TRUNCATED,
    TEMPORALITY_ASSUMED,
    VALUE_LEFT_OUT,
    VALUE_TRUNCATED,
)
from collector.ingest.validate import LimitRules, Limits

OTLP: dict[str, Any] = {"metrics": metrics, "logs": logs, "traces": traces}
ROUTES = (*OTLP, *(f"{signal}-json" for signal in OTLP))
EACH_OTLP = pytest.mark.parametrize("route", ROUTES)
MESSAGE_BYTES_MAX = 512 << 10
LONG = "k" * 101
# A character of two bytes is at the place of the cut: it is left out whole.
WIDE = "k" * 82 + "é" * 20


def cut(name: str, bytes_max: int = 100) -> str:
    raw = name.encode()
    return f"{raw[: bytes_max - 17].decode(errors='ignore')}~{hashlib.sha256(raw).hexdigest()[:16]}"


def adapted(route: str, change: Callable[[Any], Any], limits: Limits = LOW_TRUNCATED) -> Adapted:
    """Two resources with two items each; `change` is given the first resource entry."""
    signal, _, form = route.partition("-")
    request = REQUESTS[signal]()
    for _ in range(2):
        entry = getattr(request, "resource_spans" if signal == "traces" else f"resource_{signal}").add()
        entry.resource.attributes.add(key="service.name").value.string_value = "s"
        if signal == "metrics":
            points = entry.scope_metrics.add().metrics.add(name="m").gauge.data_points
            for _ in range(2):
                points.add(time_unix_nano=NOW, as_double=1)
        elif signal == "logs":
            records = entry.scope_logs.add().log_records
            for _ in range(2):
                records.add(time_unix_nano=NOW)
        else:
            spans = entry.scope_spans.add().spans
            for _ in range(2):
                spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=NOW, name="n")
    change(getattr(request, "resource_spans" if signal == "traces" else f"resource_{signal}")[0])
    body = request.SerializeToString()
    rules = LimitRules(limits, NOW, dead_letter_items_max=100, dead_letter_bytes_max=1 << 20)
    if form:
        document = json.dumps(to_json(request)).encode()
        body = getattr(otlp_json, f"{signal}_to_wire")(document, rules)
    found: Adapted = OTLP[signal].adapt(body, Header("acme", 2, NOW, bytes(16)), rules, MESSAGE_BYTES_MAX)
    return found


def scope_of(entry: Any) -> Any:
    return next(value[0] for field, value in entry.ListFields() if field.name.startswith("scope_"))


def item_of(entry: Any) -> Any:
    """The first item, in a request or in a record."""
    scope = scope_of(entry) if not isinstance(entry, TelemetryRecordV1) else entry
    for field, value in scope.ListFields():
        if field.name in ("log_records", "spans"):
            return value[0]
    return scope.metrics[0].gauge.data_points[0]


def put(attributes: Any, pairs: list[tuple[str, str]]) -> None:
    for key, value in pairs:
        attributes.add(key=key).value.string_value = value


def pairs_of(attributes: Any) -> list[tuple[str, str]]:
    return [(pair.key, pair.value.string_value) for pair in attributes]


PLACES: dict[str, Callable[[Any], Any]] = {
    "resource": lambda entry: entry.resource,
    "scope": lambda entry: entry.scope if isinstance(entry, TelemetryRecordV1) else scope_of(entry).scope,
    "item": item_of,
}
EACH_PLACE = pytest.mark.parametrize("place", PLACES)


@EACH_PLACE
@EACH_OTLP
def test_long_keys_are_cut_and_stay_two(route: str, place: str) -> None:
    """Two keys that begin alike are both stored. Of a key that comes twice, the last value is."""
    sent = [(LONG, "1"), (LONG + "x", "2"), (LONG, "3")]
    found = adapted(route, lambda entry: put(PLACES[place](entry).attributes, sent[: 3 - (place == "resource")]))
    assert (4, 0) == (found.accepted_count(), found.rejected_count())
    assert {KEY_TRUNCATED: 2 if place == "resource" else 3} == found.repaired
    stored = dict(pairs_of(PLACES[place](batch_of(found).records[0]).attributes))
    stored.pop("service.name", None)
    assert {cut(LONG): "1" if place == "resource" else "3", cut(LONG + "x"): "2"} == stored
    assert {100} == {len(key) for key in stored}


@EACH_OTLP
def test_a_long_key_of_a_value_that_is_no_text_and_one_that_is_too_long(route: str) -> None:
    """The marker has the key as it is stored; a cut leaves whole characters."""

    def change(entry: Any) -> None:
        attributes = item_of(entry).attributes
        attributes.add(key=WIDE).value.int_value = 7
        put(attributes, [(LONG, "v" * 21)])

    found = adapted(route, change)
    assert (4, {KEY_TRUNCATED: 2, VALUE_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    stored = pairs_of(item_of(batch_of(found).records[0]).attributes)
    assert [(cut(WIDE), "7"), (cut(LONG), "v" * 20), (f"infrasage.truncated.{cut(LONG)}", "21")] == stored


@EACH_OTLP
def test_keys_that_are_to_be_rejected_are(route: str) -> None:
    """They are rejected if the setting says so, or if the limit leaves no room for a digest."""
    small = Limits(
        past_max_s=86_400,
        future_max_s=600,
        attributes_max=3,
        attribute_key_bytes_max=31,
        attribute_value_bytes_max=20,
        name_bytes_max=31,
        attribute_value_too_long="truncate",
    )
    for limits in (LOW, small):
        found = adapted(route, lambda entry: put(item_of(entry).attributes, [(LONG, "")]), limits)
        assert [(0, errors.ATTRIBUTE_KEY_TOO_LONG)] == reasons(found)


@EACH_OTLP
def test_long_names_of_services_and_scopes_are_cut(route: str) -> None:
    """The resource's attribute keeps as much of the service as a value may have."""

    def change(entry: Any) -> None:
        entry.resource.attributes[0].value.string_value = "n" * 101
        scope_of(entry).scope.name = "n" * 101

    limits = Limits(
        past_max_s=86_400,
        future_max_s=600,
        attributes_max=3,
        attribute_key_bytes_max=100,
        attribute_value_bytes_max=200,
        name_bytes_max=100,
        attribute_value_too_long="truncate",
    )
    found = adapted(route, change, limits)
    assert (4, {NAME_TRUNCATED: 2}) == (found.accepted_count(), found.repaired)
    record = batch_of(found).records[0]
    assert (cut("n" * 101), cut("n" * 101)) == (record.service_id, record.scope.name)
    assert [("service.name", "n" * 101)] == pairs_of(record.resource.attributes)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("form", ["", "-json"])
def test_long_names_of_spans_and_events_are_cut(form: str, twice: bool) -> None:
    """They are cut also if a key of the item is there twice, so that all of it is written anew."""
    keys = [("a", "1"), ("a", "2")][: 1 + twice]

    def change_span(entry: Any) -> None:
        span = item_of(entry)
        span.name = "n" * 101
        span.events.add(name="e" * 101)
        put(span.attributes, keys)

    def change_log(entry: Any) -> None:
        log = item_of(entry)
        log.event_name = "n" * 101
        put(log.attributes, keys)

    found = adapted(f"traces{form}", change_span)
    assert (4, {NAME_TRUNCATED: 2}) == (found.accepted_count(), found.repaired)
    span = item_of(batch_of(found).records[0])
    assert (cut("n" * 101), cut("e" * 101), keys[-1:]) == (span.name, span.events[0].name, pairs_of(span.attributes))
    found = adapted(f"logs{form}", change_log)
    assert (4, {NAME_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    assert cut("n" * 101) == item_of(batch_of(found).records[0]).event_name


@pytest.mark.parametrize("route", ["metrics", "metrics-json"])
def test_a_long_name_of_a_metric_costs_its_own_points(route: str) -> None:
    """It is no other metric's, and what finds a metric by its name would not find it."""

    def change(entry: Any) -> None:
        scope = scope_of(entry)
        scope.metrics.add().CopyFrom(scope.metrics[0])
        scope.metrics[0].name = "m" * 101

    found = adapted(route, change)
    assert [(0, errors.NAME_TOO_LONG), (1, errors.NAME_TOO_LONG)] == reasons(found)
    assert (4, None) == (found.accepted_count(), found.repaired)


def nest(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = value.array_value.values.add()
    value.string_value = "x"


@pytest.mark.parametrize("limits", [DEFAULT, LOW_TRUNCATED])
@pytest.mark.parametrize("twice", [False, True])
@EACH_PLACE
@pytest.mark.parametrize("signal", OTLP)
def test_what_is_nested_too_deep_costs_its_item(signal: str, place: str, twice: bool, limits: Limits) -> None:
    """In a resource or a scope, it is left out, whatever else of that has to be written anew."""

    def change(entry: Any) -> None:
        attributes = PLACES[place](entry).attributes
        nest(attributes.add(key="deep").value, 65)
        put(attributes, [("b", "2")])
        if twice and place != "resource":
            put(attributes, [("b", "3")])

    # No JSON here: the reader of a test's own does not nest as deep.
    found = adapted(signal, change, limits)
    if place == "item":
        assert [(0, errors.NESTED_TOO_DEEP)] == reasons(found)
        assert 3 == found.accepted_count()
        return
    assert (4, {VALUE_LEFT_OUT: 1}) == (found.accepted_count(), found.repaired)
    stored = pairs_of(PLACES[place](batch_of(found).records[0]).attributes)
    assert ("b", "3" if twice and place == "scope" else "2") == stored[-1]
    assert "deep" not in dict(stored)


def test_metadata_that_is_nested_too_deep_is_left_out() -> None:
    """It belongs to all points of its metric."""
    found = adapted("metrics", lambda entry: nest(scope_of(entry).metrics[0].metadata.add(key="deep").value, 65))
    assert (4, {VALUE_LEFT_OUT: 1}) == (found.accepted_count(), found.repaired)
    assert [] == list(batch_of(found).records[0].metrics[0].metadata)


def long_array(value: Any) -> None:
    for _ in range(50):
        value.array_value.values.add(int_value=1)


def long_text_in_an_array(value: Any) -> None:
    value.array_value.values.add(int_value=1)
    value.array_value.values.add(string_value="é" * 100)
    value.array_value.values.add(string_value="unread")


def long_map(value: Any) -> None:
    for n in range(50):
        value.kvlist_value.values.add(key=f"k{n}").value.kvlist_value.values.add(key="a" * n)


def long_key_in_a_map(value: Any) -> None:
    value.kvlist_value.values.add(key="k" * 200).value.string_value = "v"


def long_bytes(value: Any) -> None:
    value.bytes_value = b"\xff\x00\x01" * 50


def long_bytes_in_an_array(value: Any) -> None:
    value.array_value.values.add(bytes_value=b"\xff\x00\x01" * 50)


@pytest.mark.parametrize(
    ("make", "beginning", "sent_bytes"),
    [
        (long_array, "[1,1,1,1,1,1,1,1,1,1", "203"),
        (long_text_in_an_array, '[1,"éééééééé', "223"),
        (long_map, '{"k0":{"":null},"k1"', "1966"),
        (long_key_in_a_map, '{"kkkkkkkkkkkkkkkkkk', "214"),
        (long_bytes, "/wAB/wAB/wAB/wAB/wAB", "153"),
        (long_bytes_in_an_array, '["/wAB/wAB/wAB/wAB/w', "159"),
    ],
)
@EACH_PLACE
@EACH_OTLP
def test_of_a_value_that_is_far_too_long_the_beginning_is_kept(
    route: str, place: str, make: Callable[[Any], None], beginning: str, sent_bytes: str
) -> None:
    """No more of its text is made, its length as it was sent is kept, and nothing is rejected."""
    found = adapted(route, lambda entry: make(PLACES[place](entry).attributes.add(key="list").value))
    assert (4, {VALUE_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    stored = dict(pairs_of(PLACES[place](batch_of(found).records[0]).attributes))
    assert (beginning, sent_bytes) == (stored["list"], stored["infrasage.truncated.list"])


def test_native_records_are_cut_alike() -> None:
    """Keys, and the names of services and events; a metric's name costs its record."""
    log = {"service_id": "s", "type": "log", "body": "b", "timestamp": "2026-04-10T12:00:00Z"}
    metric = {"service_id": "s", "metric_name": "m", "value": 1, "timestamp": "2026-04-10T12:00:00Z"}
    bodies = [
        log | {"attributes": {LONG: "1", LONG + "x": "2"}},
        metric | {"attributes": {LONG: "1"}, "service_id": "n" * 101},
        log | {"type": "event", "metric_name": "e" * 101},
        log | {"type": "event", "attributes": {"event.name": "e" * 20 + "é" * 50}},
        metric | {"metric_name": "m" * 101},
        log,
    ]
    rules = LimitRules(LOW_TRUNCATED, NOW)
    found = native.adapt_batch(json.dumps(bodies).encode(), Header("acme", 1, NOW, bytes(16)), rules, MESSAGE_BYTES_MAX, 10)
    assert [(4, errors.NAME_TOO_LONG)] == reasons(found)
    assert (5, {KEY_TRUNCATED: 3, NAME_TRUNCATED: 3, VALUE_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    batch = batch_of(found)
    services = {record.service_id for record in batch.records}
    assert {"s", cut("n" * 101)} == services
    first = next(record for record in batch.records if record.type == 2).log_records[0]
    assert [(cut(LONG), "1"), (cut(LONG + "x"), "2")] == pairs_of(first.attributes)
    events = next(record for record in batch.records if record.type == 4).log_records
    assert [cut("e" * 101), cut("e" * 20 + "é" * 50)] == [event.event_name for event in events]


@pytest.mark.parametrize("write", [(write_v1, write_request), (write_v2, write_request_v2)], ids=["v1", "v2"])
def test_a_series_with_a_long_label_costs_that_series(write: tuple[Any, Any]) -> None:
    """Cut, two series could become one: neither names nor values are."""
    adapter, encode = write
    sample = [(1.0, NOW // 10**6)]
    labels = ({"a": "1"}, {"k" * 101: "v"}, {"a": "v" * 21}, {"job": "j" * 101}, {"__name__": "m" * 101}, {"a": "2"})
    body = encode([({"__name__": "m"} | each, sample) for each in labels])
    found = adapter.adapt(body, Header("acme", 3, NOW, bytes(16)), LimitRules(LOW_TRUNCATED, NOW), MESSAGE_BYTES_MAX)
    assert (2, None) == (found.accepted_count(), found.repaired)
    expected = (errors.ATTRIBUTE_KEY_TOO_LONG, errors.ATTRIBUTE_VALUE_TOO_LONG, errors.NAME_TOO_LONG, errors.NAME_TOO_LONG)
    assert list(enumerate(expected, 1)) == reasons(found)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_long_labels_of_an_exemplar_are_cut(version: str) -> None:
    """They cost neither their sample nor its neighbours."""
    labels = [(LONG, "1"), (LONG + "x", "2"), ("a", "v" * 21)]
    request: Any = write_v1_pb2.WriteRequest() if version == "v1" else write_v2_pb2.Request(symbols=["", "__name__", "m"])
    series = request.timeseries.add()
    series.samples.add(value=1, timestamp=NOW // 10**6)
    exemplar = series.exemplars.add(value=1, timestamp=NOW // 10**6)
    if version == "v1":
        series.labels.add(name="__name__", value="m")
        for name, value in labels:
            exemplar.labels.add(name=name, value=value)
    else:
        series.labels_refs.extend([1, 2])
        request.symbols.extend(text for pair in labels for text in pair)
        exemplar.labels_refs.extend(range(3, 9))
    adapter = write_v1 if version == "v1" else write_v2
    header = Header("acme", 3, NOW, bytes(16))
    found = adapter.adapt(request.SerializeToString(), header, LimitRules(LOW_TRUNCATED, NOW), MESSAGE_BYTES_MAX)
    assert (1, {KEY_TRUNCATED: 2, VALUE_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    [point] = batch_of(found).records[0].metrics[0].gauge.data_points
    stored = pairs_of(point.exemplars[0].filtered_attributes)
    assert [(cut(LONG), "1"), (cut(LONG + "x"), "2"), ("a", "v" * 20), ("infrasage.truncated.a", "21")] == stored


# Attributes as they are sent, and as they are stored: a key that is made may have been sent, too.
MADE_KEYS = {
    "cut, then sent": ([(LONG, "1"), (cut(LONG), "2")], [(cut(LONG), "2")]),
    "sent, then cut": ([(cut(LONG), "2"), (LONG, "1")], [(cut(LONG), "1")]),
    "cut twice, and sent": ([(LONG, "1"), (cut(LONG), "2"), (LONG, "3")], [(cut(LONG), "3")]),
    "cut with its value, then sent": ([(LONG, "v" * 21), ("b", "3"), (cut(LONG), "2")], [("b", "3"), (cut(LONG), "2")]),
    "a marker, then sent": (
        [("a", "v" * 21), ("b", "3"), ("infrasage.truncated.a", "2")],
        [("a", "v" * 20), ("b", "3"), ("infrasage.truncated.a", "2")],
    ),
    "sent, then a marker": (
        [("infrasage.truncated.a", "2"), ("b", "3"), ("a", "v" * 21)],
        [("b", "3"), ("a", "v" * 20), ("infrasage.truncated.a", "21")],
    ),
    "a marker of what comes again": ([("a", "v" * 21), ("a", "1")], [("a", "1")]),
    "a long marker, then a marker": (
        [("infrasage.truncated.a", "w" * 21), ("a", "v" * 21)],
        [("a", "v" * 20), ("infrasage.truncated.a", "21")],
    ),
}


@EACH_PLACE
@pytest.mark.parametrize("kind", MADE_KEYS)
@EACH_OTLP
def test_a_key_that_is_made_is_stored_once(route: str, kind: str, place: str) -> None:
    """The last one, as of a key that is sent twice: a map has each key once."""
    sent, expected = MADE_KEYS[kind]

    def change(entry: Any) -> None:
        if place == "resource":
            del entry.resource.attributes[:]
        put(PLACES[place](entry).attributes, sent)

    found = adapted(route, change)
    assert expected == pairs_of(PLACES[place](batch_of(found).records[0]).attributes)
    assert (4, 0) == (found.accepted_count(), found.rejected_count())


@pytest.mark.parametrize("kind", [kind for kind, (sent, _) in MADE_KEYS.items() if len(dict(sent)) == len(sent)])
def test_a_key_that_is_made_is_stored_once_by_other_routes(kind: str) -> None:
    """This holds for a native record, be it a point or a log record, and for an exemplar."""
    sent, expected = MADE_KEYS[kind]
    log = {"service_id": "s", "type": "log", "body": "b", "timestamp": "2026-04-10T12:00:00Z", "attributes": dict(sent)}
    metric = {"service_id": "s", "metric_name": "m", "value": 1, "timestamp": "2026-04-10T12:00:00Z", "attributes": dict(sent)}
    body = json.dumps([metric, log]).encode()
    rules = LimitRules(LOW_TRUNCATED, NOW)
    points, logs_ = batch_of(native.adapt_batch(body, Header("acme", 1, NOW, bytes(16)), rules, MESSAGE_BYTES_MAX, 10)).records
    assert expected == pairs_of(points.metrics[0].gauge.data_points[0].attributes)
    assert expected == pairs_of(logs_.log_records[0].attributes)
    for version in ("v1", "v2"):
        [point] = batch_of(with_exemplars(version, [sent])).records[0].metrics[0].gauge.data_points
        assert expected == pairs_of(point.exemplars[0].filtered_attributes)


def with_exemplars(version: str, exemplars: list[list[tuple[str, str]]], *, samples: int = 1, spoilt: bool = False) -> Adapted:
    """A series whose exemplars have these labels. `spoilt`: those of the first refer to symbols that are not there."""
    request: Any = write_v1_pb2.WriteRequest() if version == "v1" else write_v2_pb2.Request(symbols=["", "__name__", "m"])
    series = request.timeseries.add()
    for n in range(samples):
        series.samples.add(value=1, timestamp=NOW // 10**6 + n)
    if version == "v1":
        series.labels.add(name="__name__", value="m")
    else:
        series.labels_refs.extend([1, 2])
    for labels in exemplars:
        exemplar = series.exemplars.add(value=1, timestamp=NOW // 10**6)
        for pair in labels:
            if version == "v1":
                exemplar.labels.add(name=pair[0], value=pair[1])
            else:
                exemplar.labels_refs.extend(range(len(request.symbols), len(request.symbols) + 2))
                request.symbols.extend(pair)
    if spoilt:
        series.exemplars[0].labels_refs.extend([1_000, 1_000])
    adapter = write_v1 if version == "v1" else write_v2
    rules = LimitRules(LOW_TRUNCATED, NOW)
    found: Adapted = adapter.adapt(request.SerializeToString(), Header("acme", 3, NOW, bytes(16)), rules, MESSAGE_BYTES_MAX)
    return found


MANY = [(f"k{n}", "v") for n in range(4)]


@pytest.mark.parametrize(("version", "spoilt"), [("v1", False), ("v2", False), ("v2", True)])
def test_an_exemplar_that_breaks_a_rule_is_left_out_alone(version: str, spoilt: bool) -> None:
    """Its sample is stored, with the other exemplars; what is repaired of it is not counted."""
    bad = [("a", "v" * 21)] if spoilt else [*MANY, ("a", "v" * 21)]
    found = with_exemplars(version, [bad, [("a", "1")]], samples=2, spoilt=spoilt)
    assert (2, [], {EXEMPLAR_DROPPED: 1}) == (found.accepted_count(), found.rejections, found.repaired)
    first, second = batch_of(found).records[0].metrics[0].gauge.data_points
    assert [[("a", "1")], []] == [
        [pair for each in point.exemplars for pair in pairs_of(each.filtered_attributes)] for point in (first, second)
    ]
    assert (2, 1) == (found.samples, found.exemplars)


@pytest.mark.parametrize(("version", "spoilt"), [("v1", False), ("v2", False), ("v2", True)])
def test_exemplars_that_come_alone_are_rejected_where_each_breaks_a_rule(version: str, spoilt: bool) -> None:
    """Otherwise nothing would report that they are lost. With a good one among them, they are taken."""
    bad = [("a", "1")] if spoilt else MANY
    found = with_exemplars(version, [bad], samples=0, spoilt=spoilt)
    assert [(0, errors.INVALID_SERIES if spoilt else errors.TOO_MANY_ATTRIBUTES)] == reasons(found)
    assert (None, 0) == (found.repaired, found.exemplars)
    found = with_exemplars(version, [bad, [("a", "1")]], samples=0, spoilt=spoilt)
    assert (1, [], {EXEMPLAR_DROPPED: 1}) == (found.accepted_count(), found.rejections, found.repaired)


def spoil(route: str, item: Any) -> None:
    """Have an item rejected for its time, and something of it repaired before."""
    put(item.attributes, [(LONG, "v" * 21), *MANY])
    if route.startswith("metrics"):
        item.time_unix_nano = 1
        item.exemplars.add(trace_id=b"t")
    elif route.startswith("logs"):
        item.time_unix_nano = 1
        item.trace_id = b"t"
    else:
        item.start_time_unix_nano = 1
        item.parent_span_id = b"t"
        item.name = "n" * 101


@EACH_OTLP
def test_repairs_of_what_is_rejected_are_not_counted(route: str) -> None:
    """It is a dead letter as it was sent. Those of a resource and a scope are counted once, if an item of theirs is stored."""

    def change(entry: Any) -> None:
        put(entry.resource.attributes, [("r", "v" * 21)])
        put(scope_of(entry).scope.attributes, [(LONG, "v")])
        spoil(route, item_of(entry))

    found = adapted(route, change)
    assert (3, [(0, errors.TIMESTAMP_TOO_OLD)]) == (found.accepted_count(), reasons(found))
    assert {VALUE_TRUNCATED: 1, KEY_TRUNCATED: 1} == found.repaired
    assert LONG.encode() in found.rejections[0].payload

    def change_both(entry: Any) -> None:
        change(entry)
        scope = scope_of(entry)
        items = scope.metrics[0].gauge.data_points if route.startswith("metrics") else None
        for item in items or getattr(scope, "log_records", None) or scope.spans:
            spoil(route, item)

    found = adapted(route, change_both)
    assert (2, 2, None) == (found.accepted_count(), found.rejected_count(), found.repaired)


def test_repairs_of_points_are_counted_once_however_their_metric_is_packed() -> None:
    """A metric that does not fit a message is read once more; what is too large then is rejected."""
    request = REQUESTS["metrics"]()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    put(metric.metadata, [(LONG, "v")])
    for n in range(300):
        point = metric.sum.data_points.add(time_unix_nano=NOW, as_double=1)
        put(point.attributes, [(LONG, str(n))])
        point.exemplars.add(trace_id=b"t")
    for n in range(300):
        metric.sum.data_points[299].exemplars.add(time_unix_nano=NOW + n)
    limits = Limits(
        past_max_s=86_400,
        future_max_s=600,
        attributes_max=3,
        attribute_key_bytes_max=100,
        attribute_value_bytes_max=20,
        name_bytes_max=100,
        attribute_value_too_long="truncate",
        otlp_temporality_missing="cumulative",
    )
    found = metrics.adapt(request.SerializeToString(), Header("acme", 2, NOW, bytes(16)), LimitRules(limits, NOW), 2_000)
    assert [(299, errors.RECORD_TOO_LARGE)] == reasons(found)
    assert {TEMPORALITY_ASSUMED: 1, KEY_TRUNCATED: 1 + 299, ID_DROPPED: 299} == found.repaired


def test_repairs_of_native_records_that_are_rejected_are_not_counted() -> None:
    """Be it while they are read or while they are packed."""
    log = {"service_id": "s", "type": "log", "body": "b", "timestamp": "2026-04-10T12:00:00Z"}
    odd: dict[str, Any] = {"attributes": {LONG: "v" * 21, **dict(MANY)}}
    records = [log | odd, log | odd | {"timestamp": "1999-01-01T00:00:00Z"}, log | odd | {"body": "b" * 3_000}]
    header = Header("acme", 1, NOW, bytes(16))
    found = native.adapt_batch(json.dumps(records).encode(), header, LimitRules(LOW_TRUNCATED, NOW), 2_000, 10)
    assert [(1, errors.TIMESTAMP_TOO_OLD), (2, errors.RECORD_TOO_LARGE)] == reasons(found)
    assert {KEY_TRUNCATED: 1, VALUE_TRUNCATED: 1, ATTRIBUTES_DROPPED: 2} == found.repaired
