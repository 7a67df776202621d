"""A trace as a tree, and the chart of the last hour."""

from typing import Any

from collector.api.web.search import chart, trace_in, waterfall
from collector.query.recent import Inflow, Minute


def span(span_id: str, parent: str, at: int, duration: int = 10) -> dict[str, Any]:
    return {"span_id": span_id, "parent_span_id": parent, "at_unix_nano": at, "duration_ns": str(duration), "name": span_id}


def test_spans_are_shown_below_their_parents() -> None:
    rows = [span("a", "", 0, 1000), span("c", "b", 200, 100), span("b", "a", 100, 500), span("d", "a", 700, 300)]
    shown = waterfall("t", rows)["spans"]
    assert [("a", 0, 0, 1000), ("b", 1, 100, 500), ("c", 2, 200, 100), ("d", 1, 700, 300)] == [
        (row["span_id"], row["depth"], row["left"], row["width"]) for row in shown
    ]


def test_a_span_whose_parent_is_not_there_is_a_root() -> None:
    assert [("b", 0)] == [(row["span_id"], row["depth"]) for row in waterfall("t", [span("b", "gone", 5)])["spans"]]


def test_spans_that_are_each_others_parents_end() -> None:
    found = waterfall("t", [span("a", "b", 0), span("b", "a", 1), span("c", "c", 2), span("d", "", 3), span("d", "", 3)])
    assert ["c", "d", "d"] == [row["span_id"] for row in found["spans"]]
    assert found["left_out"] == 2


def test_a_trace_as_deep_as_it_has_spans_is_shown() -> None:
    rows = [span(str(number), str(number - 1) if number else "", number) for number in range(1000)]
    assert len(waterfall("t", rows)["spans"]) == 1000


def test_the_chart_has_every_minute_of_the_hour() -> None:
    """Up to the last one that is over, so that no line falls at its end; a minute without a row is 0."""
    now = 7200.0 + 30
    inflow = Inflow([Minute(7140, {"log": 120}, 60), Minute(7200, {"log": 6}, 0)], {"x": 60}, {}, 1, [], {})
    made = chart(inflow, now)
    assert made["data"]["times"][-1] == 7140
    assert len(made["data"]["times"]) == 60
    assert made["data"]["series"]["log"] == [0.0] * 59 + [2.0]
    assert [("log", 2.0, 126), ("rejected", 1.0, 60)] == [(row["name"], row["per_s"], row["total"]) for row in made["rows"]]


def test_nothing_makes_an_empty_chart() -> None:
    assert [] == chart(Inflow([], {}, {}, 0, [], {}), 0.0)["rows"]


def test_a_trace_is_named_by_32_hex_digits() -> None:
    assert trace_in("/ui/traces/" + "a" * 32) == "a" * 32
    for path in ("/ui/traces/", "/ui/traces/" + "a" * 31, "/ui/traces/" + "g" * 32, "/ui/traces", "/x" + "a" * 32):
        assert trace_in(path) == ""
