"""What /metrics writes, beside what the Prometheus library writes of the same metrics."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.references.exposed import written_by_library

from collector.telemetry.aggregate import Family, Key, Snapshot
from collector.telemetry.exposition import PageWriter, content_type_of
from collector.telemetry.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
FORMATS = pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
# The library's parsers split lines where str.splitlines does; our labels hold names of tenants, which have no such characters.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]) | st.sampled_from('\\"n{},='), max_size=8
)
FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**53), 2**53).map(float)


def parsed(text: bytes, accept: str) -> list[Any]:
    parse = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    return [
        (
            family.name,
            family.documentation,
            family.type,
            [(s.name, s.labels, "NaN" if math.isnan(s.value) else s.value) for s in family.samples],
        )
        for family in parse(text.decode())
    ]


def families(values: dict[tuple[str, str], float], meaning: str) -> Snapshot:
    gauges: dict[Key, float] = {("g", (("one", one), ("a", a))): value for (one, a), value in values.items()}
    counters: dict[Key, float] = {
        ("c_total", (("one", one), ("a", a))): abs(value) for (one, a), value in values.items() if not math.isnan(value)
    }
    return [
        Family("g", meaning, "gauge", gauges),
        Family("c", meaning, "counter", counters),
        Family("x", meaning, "gauge", {("x", ()): 1.0}),
    ]


@FORMATS
@given(values=st.dictionaries(st.tuples(TEXTS, TEXTS), FLOATS, max_size=5), meaning=TEXTS)
def test_it_says_what_the_library_says(accept: str, values: dict[tuple[str, str], float], meaning: str) -> None:
    """The same families, help texts, labels and values, to the bit, in the same order."""
    snapshot = families(values, meaning)
    ours = PageWriter().written(snapshot, content_type_of(accept))
    assert parsed(written_by_library(snapshot, accept), accept) == parsed(ours, accept)


@FORMATS
def test_all_metrics_of_a_process(accept: str) -> None:
    """They are shown also a second time, when the lines' beginnings are known."""
    metrics = Metrics()
    metrics.http_endpoint("/v1/logs").answered(200, 0.2, 100)
    metrics.tenant('a"b\\c').refused()
    snapshot = metrics.shown()
    writer = PageWriter()
    for _ in range(2):
        assert parsed(written_by_library(snapshot, accept), accept) == parsed(
            writer.written(snapshot, content_type_of(accept)), accept
        )


def test_series_that_are_gone_are_not_kept_for_ever() -> None:
    """A hundred thousand that came and went leave room for few."""
    writer = PageWriter()
    for start in range(0, 100_000, 1000):
        values = {(str(number), ""): 1.0 for number in range(start, start + 1000)}
        writer.written(families(values, ""), content_type_of(""))
    assert len(writer._begun) < 10_000
