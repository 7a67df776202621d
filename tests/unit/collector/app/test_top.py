"""What `top` makes of two answers of a collector."""

import pytest
from support.top import GATEWAY, WRITER, Collector

from collector.app.top import (
    RATES_OVER_S,
    DeadLetterStats,
    PolledPages,
    RateHistory,
    ReasonRates,
    SignalRates,
    TopView,
    view_of,
)


def signal(view: TopView, name: str) -> SignalRates:
    return {row.name: row for row in view.signals}[name]


def looks(collector: Collector, first: PolledPages, at_s: float = 12.0) -> TopView:
    """What is shown after a first answer at 10 s."""
    return view_of(first, collector.answer(at_s))


def test_rates_are_by_signal() -> None:
    """Requests and bytes by the route, items by their type and what became of them."""
    collector = Collector()
    collector.take("acme", accepted=1000)
    first = collector.answer(10)
    for _ in range(4):
        collector.take("acme", accepted=90, rejected=10, size_bytes=500)
    collector.metrics.grpc_method("opentelemetry.proto.collector.logs.v1.LogsService/Export").answered("OK", 0.1, 3000)
    collector.metrics.grpc_method("grpc.health.v1.Health/Check").answered("OK", 0.1, 77)
    collector.endpoints["/api/v1/prometheus/write"].answered(204, 0.1, 60)
    collector.endpoints["/api/v1/telemetry/batch"].answered(200, 0.1, 40)
    view = looks(collector, first)
    logs = signal(view, "logs")
    assert (logs.requests, logs.size_bytes) == (2.5, 2500.0)
    assert logs.items == {"accepted": 180.0, "rejected": 20.0, "rate_limited": 0.0, "failed": 0.0}
    assert (signal(view, "metrics").requests, signal(view, "metrics").size_bytes) == (0.5, 30.0)
    assert signal(view, "JSON").requests == 0.5
    assert list(signal(view, "JSON").items.values()) == [None] * 4, "its items are of every type"
    assert view.rates_over_s == 2.0


def test_the_first_answer_has_no_rates() -> None:
    collector = Collector()
    collector.take("acme", accepted=1000)
    view = RateHistory().add(collector.answer(10))
    assert (signal(view, "logs").requests, view.tenants[0].accepted, view.rates_over_s) == (None, None, None)
    assert view.reasons == []


def test_rates_are_by_tenant_and_the_busiest_is_first() -> None:
    collector = Collector()
    for name in ("quiet", "busy", "limited"):
        collector.take(name, accepted=5000)
    first = collector.answer(10)
    collector.take("busy", accepted=100, rejected=4, size_bytes=300)
    for _ in range(6):
        collector.metrics.tenant("limited").limited("items")
    collector.metrics.tenant("limited").limited("bytes")
    collector.metrics.tenant("limited").refused()
    busy, limited, quiet = looks(collector, first).tenants
    assert (busy.name, busy.requests, busy.accepted, busy.rejected, busy.size_bytes) == ("busy", 0.5, 50.0, 2.0, 150.0)
    assert (limited.name, limited.limited, limited.limited_by, limited.refused) == ("limited", 3.5, "items", 0.5)
    assert (quiet.name, quiet.requests, quiet.limited_by) == ("quiet", 0.0, "")


def test_tenants_without_names_are_one() -> None:
    """A collector shows them so without an admin's key. A key that is revoked makes no rates."""
    collector = Collector()
    collector.take("acme", accepted=10)
    named = collector.answer(10)
    collector.take("other", accepted=10)
    first = collector.answer(12, has_names=False)
    collector.take("other", accepted=10)
    view = view_of(first, collector.answer(14, has_names=False))
    assert [(row.name, row.accepted) for row in view.tenants] == [("", 5.0)]
    assert not view.has_names
    assert [(row.name, row.accepted) for row in view_of(named, collector.answer(14, has_names=False)).tenants] == [("", None)]
    assert view_of(None, named).has_names


def test_reasons_are_counted_since_the_start() -> None:
    """Rejected, repaired and refused, the most frequent now first; what never happened is not shown."""
    collector = Collector()
    collector.take("a", accepted=1, repaired=7)
    collector.take("b", accepted=1, repaired=1)
    first = collector.answer(10)
    collector.take("a", accepted=1, rejected=6)
    collector.metrics.store_refused("otlp", 2)
    assert looks(collector, first).reasons == [
        ReasonRates("rejected items", "timestamp_too_old", 3.0, 6.0),
        ReasonRates("items refused by the store", "otlp", 1.0, 2.0),
        ReasonRates("repaired", "invalid_text", 0.0, 8.0),
    ]


def test_rates_survive_a_restart() -> None:
    """Nothing is negative; the first rates are since the start, the next ones do not reach back behind it."""
    history, before, after = RateHistory(), Collector(), Collector()
    before.take("acme", accepted=1000)
    history.add(before.answer(10))
    before.take("acme", accepted=1000)
    assert signal(history.add(before.answer(12)), "logs").items["accepted"] == 500.0
    after.take("acme", accepted=40)
    assert signal(history.add(after.answer(14)), "logs").items["accepted"] == 20.0
    after.take("acme", accepted=60)
    view = history.add(after.answer(16))
    assert (signal(view, "logs").items["accepted"], view.rates_over_s) == (30.0, 2.0)


def test_rates_reach_back_so_many_seconds() -> None:
    """The span is RATES_OVER_S, or that to the last answer if it is longer ago."""
    history, collector = RateHistory(), Collector()
    spans = []
    for at_s in (0, 2, 4, 6, 8, 10, 12, 40):
        collector.take("acme", accepted=1)
        spans.append(history.add(collector.answer(at_s)).rates_over_s)
    assert spans == [None, 2, 4, 6, 8, RATES_OVER_S, RATES_OVER_S, 28]


def test_a_page_that_is_shown_twice_changes_no_rate() -> None:
    """A collector with a large http.metrics_interval_s shows the same page again: that is no time without traffic."""
    history, collector = RateHistory(), Collector()
    history.add(collector.answer(10))
    collector.take("acme", accepted=80)
    answer = collector.answer(12)
    assert signal(history.add(answer), "logs").items["accepted"] == 40.0
    again = history.add(answer._replace(at_s=14.0, unix_s=answer.unix_s + 2, status="stopping"))
    assert (signal(again, "logs").items["accepted"], again.overview.status) == (40.0, "stopping")
    collector.take("acme", accepted=80)
    assert signal(history.add(collector.answer(18)), "logs").items["accepted"] == 20.0


def test_the_way_to_the_store_is_shown() -> None:
    """Messages stored, what waits and for how long, and how old the newest item is."""
    collector = Collector()
    first = collector.answer(10)
    collector.store(8, lag=3, waited_s=1.5)
    collector.metrics.newest_items({"logs": 100.0}, lambda: 104.0)
    collector.metrics.dead_letters(5)
    view = looks(collector, first)
    logs = {row.name: row for row in view.topics}["logs"]
    assert (logs.produced, logs.stored, logs.stored_bytes, logs.newest_age_s) == (None, 4.0, 400.0, 4.0)
    assert logs.lag is not None
    assert (logs.lag.messages, logs.lag.seconds) == (3.0, 1.5)
    assert (view.role, view.dead_letters, view.messages_behind) == ("serve", 5.0, None)


def test_a_gateway_produces() -> None:
    """Its lag and its dead letters are known from dlq-stats only."""
    collector = Collector(GATEWAY)
    first = collector.answer(10)
    collector.metrics.produced("infrasage.logs", 6, 600, 0.1)
    view = looks(collector, first)
    assert (view.role, view.produces, view.writes) == ("gateway", True, False)
    assert {row.name: (row.produced, row.stored, row.lag) for row in view.topics}["logs"] == (3.0, None, None)
    assert (view.dead_letters, view.messages_behind) == (None, None)
    view = view_of(first, collector.answer(12), DeadLetterStats(4, 90))
    assert (view.dead_letters, view.messages_behind) == (4, 90)


def test_a_writer_receives_nothing() -> None:
    collector = Collector(WRITER, receives=False)
    view = view_of(collector.answer(10), collector.answer(12))
    assert (view.role, view.signals, view.tenants) == ("writer", (), [])
    assert [row.name for row in view.topics] == ["metrics", "logs", "traces", "dead_letters"]


@pytest.mark.parametrize("status", ["degraded", "unavailable", "stopping"])
def test_the_status_is_the_collectors_own(status: str) -> None:
    """A writer without its broker is degraded, a gateway unavailable: /healthz knows."""
    answer = Collector(WRITER, receives=False).answer(10, kafka="unavailable")._replace(status=status)
    view = view_of(None, answer)
    assert view.overview.status == status
    assert [(part.name, part.is_ok) for part in view.overview.parts] == [("broker", False), ("store", True)]
