"""What is over a limit costs no more than its own item: keys and names are cut so that two of them stay two."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from infrasage.prometheus.v1 import write_pb2 as write_v1_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_pb2 import TelemetryRecord
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
from adapters.repairs import KEY_TRUNCATED, NAME_TRUNCATED, VALUE_LEFT_OUT, VALUE_TRUNCATED
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
    scope = scope_of(entry) if not isinstance(entry, TelemetryRecord) else entry
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
    "scope": lambda entry: entry.scope if isinstance(entry, TelemetryRecord) else scope_of(entry).scope,
    "item": item_of,
}
EACH_PLACE = pytest.mark.parametrize("place", PLACES)


@EACH_PLACE
@EACH_OTLP
def test_long_keys_are_cut_and_stay_two(route: str, place: str) -> None:
    """Of two keys that begin alike both are stored; of a key that comes twice the last value is."""
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
    """By the setting, or where the limit leaves no room for a digest."""
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
    """Also where a key of the item is there twice, so that all of it is written anew."""
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
    """In a resource or a scope it is left out, whatever else of it has to be written anew."""

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


@EACH_PLACE
@EACH_OTLP
def test_of_a_list_that_is_far_too_long_the_length_is_kept(route: str, place: str) -> None:
    """No text is made of it, and nothing is rejected."""

    def change(entry: Any) -> None:
        values = PLACES[place](entry).attributes.add(key="list").value.array_value.values
        for _ in range(50):
            values.add(int_value=1)

    found = adapted(route, change)
    assert (4, {VALUE_TRUNCATED: 1}) == (found.accepted_count(), found.repaired)
    stored = dict(pairs_of(PLACES[place](batch_of(found).records[0]).attributes))
    assert ("", "203") == (stored["list"], stored["infrasage.truncated.list"])


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
