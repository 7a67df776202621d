"""Counters, histograms and gauges of our own show what the Prometheus library's would."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from support.references.exposed import written_by_library

from collector.telemetry.counters import Counter, Gauge, Histogram

BOUNDS = (0.0, 0.5, 1.0, 2.5, 100.0)
VALUES = st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(-10, 1000, allow_nan=False)), max_size=50)
LABELS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=4)


def shown(ours: Counter | Gauge | Histogram) -> str:
    return _sorted(written_by_library([ours.family()], ""))


def shown_by_library(theirs: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(theirs)
    return _sorted(generate_latest(registry))


def _sorted(text: bytes) -> str:
    return "\n".join(sorted(line for line in text.decode().splitlines() if "_created" not in line))


@given(values=VALUES, labels=LABELS)
def test_a_histogram_is_shown_as_the_librarys(values: list[float], labels: list[tuple[str, str]]) -> None:
    """Each value in the same buckets, the bounds themselves included; the same names, labels, counts and sums."""
    ours = Histogram("h_seconds", "Help.", ("one", "two"), BOUNDS)
    theirs = prometheus_client.Histogram("h_seconds", "Help.", ("one", "two"), buckets=BOUNDS, registry=None)
    for index, value in enumerate(values):
        where = labels[index % len(labels)]
        ours.labels(*where).observe(value)
        theirs.labels(*where).observe(value)
    assert shown_by_library(theirs) == shown(ours)


@given(amounts=st.lists(st.integers(0, 2**53), max_size=20), labels=LABELS)
def test_a_counter_is_shown_as_the_librarys(amounts: list[int], labels: list[tuple[str, str]]) -> None:
    ours = Counter("c", "Help.", ("one", "two"))
    theirs = prometheus_client.Counter("c", "Help.", ("one", "two"), registry=None)
    for index, amount in enumerate(amounts):
        where = labels[index % len(labels)]
        ours.labels(*where).inc(amount)
        theirs.labels(*where).inc(amount)
    assert shown_by_library(theirs) == shown(ours)


@given(values=st.lists(st.floats(allow_nan=False), max_size=20), labels=LABELS)
def test_a_gauge_is_shown_as_the_librarys(values: list[float], labels: list[tuple[str, str]]) -> None:
    """The last value that was set, or what a function says; and none once it is cleared."""
    ours = Gauge("g", "Help.", ("one", "two"))
    theirs = prometheus_client.Gauge("g", "Help.", ("one", "two"), registry=None)
    for index, value in enumerate(values):
        where = labels[index % len(labels)]
        ours.labels(*where).set(value)
        theirs.labels(*where).set(value)
    ours.labels("f", "f").set_function(lambda: 7)
    theirs.labels("f", "f").set_function(lambda: 7)
    assert shown_by_library(theirs) == shown(ours)
    ours.clear()
    theirs.clear()
    assert shown_by_library(theirs) == shown(ours)


def test_what_has_no_labels_is_there_from_the_start() -> None:
    """It is 0: so a rate over it has no gap at the first event of its kind."""
    counter = prometheus_client.Counter("c", "Help.", registry=None)
    assert shown_by_library(counter) == shown(Counter("c", "Help.", ()))
    histogram = prometheus_client.Histogram("h", "Help.", buckets=BOUNDS, registry=None)
    assert shown_by_library(histogram) == shown(Histogram("h", "Help.", (), BOUNDS))
    assert shown_by_library(prometheus_client.Gauge("g", "Help.", registry=None)) == shown(Gauge("g", "Help.", ()))


def test_a_series_is_one_however_often_it_is_asked_for() -> None:
    counter = Counter("c", "Help.", ("one",))
    counter.labels("a").inc()
    counter.labels("a").inc(2)
    assert {("c_total", (("one", "a"),)): 3.0} == counter.family().samples
