"""How fast counters grow between two snapshots."""

from support.top import Collector

from collector.telemetry.aggregate import Family, Key, Snapshot
from collector.telemetry.rates import Rates, remembering
from collector.telemetry.scrape import read_text
from collector.telemetry.tenant_ranking import NO_NAMES

COUNTER = "infrasage_tenant_items"


def snapshot(counts: dict[str, float], *, help_: str = "", cpu_s: float = 1.0) -> Snapshot:
    samples: dict[Key, float] = {(f"{COUNTER}_total", (("tenant", tenant),)): count for tenant, count in counts.items()}
    cpu: dict[Key, float] = {("process_cpu_seconds_total", ()): cpu_s}
    return [Family(COUNTER, help_, "counter", samples), Family("process_cpu_seconds", "", "counter", cpu)]


def growth(before: Snapshot | None, now: Snapshot, seconds: float = 2.0) -> dict[str, float | None]:
    return {labels["tenant"]: per_s for labels, _, per_s in Rates(before, now, seconds).of(f"{COUNTER}_total")}


def test_a_rate_is_the_growth_by_time() -> None:
    assert growth(snapshot({"a": 100, "b": 7}), snapshot({"a": 110, "b": 7})) == {"a": 5.0, "b": 0.0}


def test_one_snapshot_has_no_rates() -> None:
    assert growth(None, snapshot({"a": 100})) == {"a": None}


def test_after_a_restart_counters_grow_from_zero() -> None:
    """This holds also for those that are larger than before: one that fell shows the restart."""
    before, now = snapshot({"a": 100, "b": 7}), snapshot({"a": 10, "b": 70})
    assert Rates(before, now, 2).is_restarted
    assert growth(before, now) == {"a": 5.0, "b": 35.0}
    assert growth(snapshot({"a": 5}, cpu_s=9.0), snapshot({"a": 8}, cpu_s=0.5)) == {"a": 4.0}


def test_a_sum_in_another_order_is_no_restart() -> None:
    """Counters of several processes are added up as they come, so the last digit may be smaller."""
    assert growth(snapshot({"a": 100}, cpu_s=0.1 + 0.2 + 0.3), snapshot({"a": 110}, cpu_s=0.3 + 0.2 + 0.1)) == {"a": 5.0}


def test_a_new_series_grows_from_zero() -> None:
    assert growth(snapshot({"a": 100}), snapshot({"a": 100, "b": 6})) == {"a": 0.0, "b": 3.0}


def test_a_series_that_comes_back_grows_from_where_it_was() -> None:
    """A tenant that lost its name to a larger one goes on where it was when it is named again."""
    first, second, third = snapshot({"a": 100}), snapshot({"b": 200}), snapshot({"a": 104, "b": 200})
    assert growth(remembering(first, second), third) == {"a": 2.0, "b": 0.0}
    assert growth(second, third) == {"a": 52.0, "b": 0.0}, "without it, everything counts again"


def test_what_was_before_a_restart_is_not_remembered() -> None:
    now = snapshot({"b": 1}, cpu_s=0.1)
    assert remembering(snapshot({"a": 100}, cpu_s=9.0), now) == now


def test_names_that_appear_are_no_growth() -> None:
    """An admin's key that is revoked, or in force again, moves counts between the names and all others."""
    hidden = snapshot({"": 100}, help_=f"Items. {NO_NAMES}")
    shown = snapshot({"a": 60, "b": 41}, help_="Items.")
    assert growth(hidden, shown) == {"a": None, "b": None}
    assert growth(shown, hidden) == {"": None}
    assert not Rates(shown, hidden, 2).is_restarted


def test_the_real_page_is_compared() -> None:
    collector = Collector()
    collector.take("acme", accepted=10)
    before = read_text(collector.page())
    collector.take("acme", accepted=30)
    rates = Rates(before, read_text(collector.page()), 2.0)
    events = {
        (labels["type"], labels["status"]): (value, per_s)
        for labels, value, per_s in rates.of("infrasage_ingestion_events_total")
    }
    assert events["log", "accepted"] == (40.0, 15.0)
    assert {per_s for key, (_, per_s) in events.items() if key != ("log", "accepted")} == {0.0}
