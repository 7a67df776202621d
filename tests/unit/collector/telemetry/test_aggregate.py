"""Metrics of several processes as those of one: what is added up, what is shared, what outlives its process."""

import pytest

from collector.telemetry.aggregate import Family, Key, Snapshot, combine, counted


def key(name: str, **labels: str) -> Key:
    return name, tuple(sorted(labels.items()))


def family(name: str, type_: str, *samples: tuple[Key, float]) -> Family:
    return Family(name, "help", type_, dict(samples))


@pytest.mark.parametrize(
    ("name", "type_", "values", "expected"),
    [
        ("requests_total", "counter", [1, 2, 4], 7),
        ("infrasage_in_flight_bytes", "gauge", [10, 0, 5], 15),
        ("process_start_time_seconds", "gauge", [300, 100, 200], 100),
        ("infrasage_up", "gauge", [1, 0, 1], 0),
        ("infrasage_dlq_depth", "gauge", [3, 5, 4], 5),
        ("python_info", "gauge", [1, 1, 1], 1),
        ("process_open_fds", "gauge", [90, 200, 80], 200),
        ("process_max_fds", "gauge", [1024, 1024, 4096], 1024),
    ],
)
def test_several_become_one(name: str, type_: str, values: list[float], expected: float) -> None:
    """Counters and sizes are added up; of a state that all share, one is shown: the earliest start, the worst health."""
    snapshots = [[family(name, type_, (key(name), value))] for value in values]
    assert [family(name, type_, (key(name), expected))] == combine(snapshots)


def test_series_that_only_some_have_are_kept() -> None:
    """Labels tell series apart; what one process alone has seen is not lost among the others."""
    ok, bad = key("requests_total", code="200"), key("requests_total", code="400")
    first: Snapshot = [family("requests", "counter", (ok, 1.0))]
    second: Snapshot = [family("requests", "counter", (ok, 2.0), (bad, 3.0)), family("other", "gauge", (key("other"), 1.0))]
    requests, other = combine([first, second])
    assert {ok: 3.0, bad: 3.0} == requests.samples
    assert "other" == other.name
    assert {ok: 1.0} == first[0].samples  # what was given is not touched


def test_what_was_counted_outlives_its_process() -> None:
    """A counter, histogram or summary of a dead process goes on counting in the sum; its gauges do not."""
    counting = [family(type_, type_, (key(type_), 1.0)) for type_ in ("counter", "histogram", "summary")]
    assert counting == counted([*counting, family("gauge", "gauge", (key("gauge"), 1.0))])
    alive: Snapshot = [family("counter", "counter", (key("counter"), 5.0))]
    assert 6.0 == combine([counted(counting), alive])[0].samples[key("counter")]
