"""Which tenants /metrics shows by name."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from collector.telemetry.aggregate import Family, Key, Snapshot
from collector.telemetry.tenant_ranking import THE_REST, Ranking, tenant_of, without_names

REQUESTS = "infrasage_tenant_requests"


def snapshot(counts: dict[str, int]) -> Snapshot:
    samples: dict[Key, float] = {
        (f"{REQUESTS}_total", (("tenant", tenant), ("status", "accepted"))): float(count) for tenant, count in counts.items()
    }
    return [Family("infrasage_other", "", "gauge", {("infrasage_other", ()): 1.0}), Family(REQUESTS, "", "counter", samples)]


def shown(ranking: Ranking, counts: dict[str, int]) -> dict[str, int]:
    other, family = ranking.shown(snapshot(counts))
    assert other.samples == {("infrasage_other", ()): 1.0}, "what counts no tenants is as it was"
    return {tenant_of(key): int(value) for key, value in family.samples.items()}


def test_the_largest_have_names() -> None:
    """The largest tenants are shown by name, the others as one."""
    assert shown(Ranking(2), {"a": 1, "b": 50, "c": 20, "d": 3}) == {"b": 50, "c": 20, THE_REST: 4}


def test_all_have_names_where_there_is_room() -> None:
    """While they are few, none is among the rest."""
    assert shown(Ranking(4), {"a": 1, "b": 50}) == {"a": 1, "b": 50}


def test_none_need_be_named() -> None:
    """With a maximum of no names, every tenant is among the rest."""
    assert shown(Ranking(0), {"a": 1, "b": 50}) == {THE_REST: 51}


def test_a_tenant_that_grows_takes_a_place() -> None:
    """A tenant twice as large as the smallest shown takes its place; what it did before stays with the rest."""
    ranking = Ranking(1)
    assert shown(ranking, {"a": 10, "b": 5}) == {"a": 10, THE_REST: 5}
    assert shown(ranking, {"a": 10, "b": 19}) == {"a": 10, THE_REST: 19}, "not twice as large"
    assert shown(ranking, {"a": 10, "b": 30}) == {"b": 11, THE_REST: 19}
    assert shown(ranking, {"a": 15, "b": 31}) == {"b": 12, THE_REST: 24}
    assert shown(ranking, {"a": 70, "b": 31}) == {"a": 65, THE_REST: 24}, "named again, it goes on from where it was"


@given(st.integers(0, 4), st.lists(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 100)), max_size=12))
def test_nothing_goes_back_and_nothing_is_lost(shown_max: int, growth: list[dict[str, int]]) -> None:
    """Whichever tenants are shown: each series only grows, and with those that are hidden for now the sum is exact."""
    ranking = Ranking(shown_max)
    totals: Counter[str] = Counter()
    last: dict[str, int] = {}
    for step in growth:
        totals.update(step)
        now = shown(ranking, dict(totals))
        assert len(now) <= shown_max + 1
        assert all(value >= last.get(tenant, 0) for tenant, value in now.items())
        last |= now
        assert sum(last.values()) == totals.total(), "a hidden series stands where it stood"


def test_without_names_all_are_one() -> None:
    """Those that are shown and the rest, added up; what counts no tenants is as it was."""
    named = Ranking(2).shown(snapshot({"a": 1, "b": 50, "c": 20, "d": 3}))
    other, family = without_names(named)
    assert {("infrasage_other", ()): 1.0} == other.samples
    assert {(f"{REQUESTS}_total", (("tenant", THE_REST), ("status", "accepted"))): 74.0} == family.samples
