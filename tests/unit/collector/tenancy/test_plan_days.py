"""Days of retention by plans: of the keys in force, and of what the keys file has now."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collector.tenancy import keys
from collector.tenancy.keys import KeysUnusable
from collector.tenancy.keys_file import Key
from collector.tenancy.plan_days import KeysFileDays, PlanDays
from collector.tenancy.plans import BUILT_IN_PLANS, Plan
from collector.tenancy.scopes import Scope

NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)
PLANS = {
    name: Plan(name, None, None, None, retention_days=days) for name, days in (("Week", 7), ("Year", 365), ("Plain", None))
}


def key(tenant: str, plan: str, ends: datetime | None = None) -> Key:
    return Key("a" * 8, tenant, Scope.INGEST, plan, "0" * 64, NOW, ends, "")


def plan_days(*given: Key, now: datetime = NOW, anonymous: tuple[str, str] | None = None) -> PlanDays:
    made = PlanDays(PLANS, now.timestamp, anonymous)
    made.set_keys(given)
    return made


def test_a_tenant_has_the_most_days_of_its_plans() -> None:
    """It has none if one of its plans has none: that one promises what the settings say for everyone."""
    found = plan_days(
        *(key("one", "Week"), key("two", "Week"), key("two", "Year"), key("open", "Year"), key("open", "Plain")),
        key("plain", "Plain"),
        anonymous=("nobody", "Week"),
    )
    assert found.by_tenant() == {"one": 7, "two": 365, "nobody": 7}
    assert (found.of("two"), found.of("open"), found.of("unknown")) == (365, None, None)


def test_a_key_that_ended_counts_only_alone() -> None:
    """A tenant that has left keeps its days; one that has changed its plan has those of the new one."""
    ended = NOW - timedelta(days=1)
    found = plan_days(key("left", "Year", ended), key("moved", "Year", ended), key("moved", "Week"))
    assert found.by_tenant() == {"left": 365, "moved": 7}


def test_a_key_that_ends_no_longer_counts() -> None:
    """It stops counting by itself, without a change of the keys file."""
    now = [NOW.timestamp()]
    made = PlanDays(PLANS, lambda: now[0])
    made.set_keys(
        [key("acme", "Year", NOW + timedelta(hours=1)), key("acme", "Week", NOW + timedelta(hours=2)), key("b", "Week")]
    )
    assert made.of("acme") == 365
    now[0] += 3600
    assert made.of("acme") == 7
    now[0] += 3600
    assert made.of("acme") == 365, "both have ended"


def test_plans_that_are_no_more_say_nothing() -> None:
    """They are plans of ended keys. Without any days there is nothing to keep."""
    assert plan_days(key("acme", "Gone", NOW)).by_tenant() == {}
    made = PlanDays(BUILT_IN_PLANS, NOW.timestamp)
    made.set_keys([key("acme", "Pro")])
    assert not made.has_any
    assert made.by_tenant() == {}


def test_days_follow_the_file(tmp_path: Path) -> None:
    """A key that is made or ended changes them at the next look; a broken file is an error."""
    path = tmp_path / "keys.json"
    made = KeysFileDays(path, PlanDays(PLANS, NOW.timestamp), may_be_missing=False)
    first = keys.create(path, tenant="acme", scope=Scope.INGEST, plan="Week", now=NOW)
    assert made.by_tenant() == {"acme": 7}
    keys.create(path, tenant="acme", scope=Scope.INGEST, plan="Year", now=NOW)
    assert made.of("acme") == 365
    keys.create(path, tenant="acme", scope=Scope.INGEST, plan="Plain", now=NOW)
    assert made.by_tenant() == {}
    keys.end(path, first.key.id, at=NOW, now=NOW)
    path.write_text("{")
    with pytest.raises(KeysUnusable):
        made.by_tenant()


def test_a_keys_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """It is none before the first file is made, when no row can be lost, and without days of plans."""
    path = tmp_path / "keys.json"
    with pytest.raises(KeysUnusable, match=r"the keys file .*keys\.json.*does not exist: set tenants\.keys_file"):
        KeysFileDays(path, plan_days(), may_be_missing=False).by_tenant()
    new = KeysFileDays(path, plan_days(anonymous=("nobody", "Week")), may_be_missing=True)
    assert new.by_tenant() == {"nobody": 7}
    keys.create(path, tenant="acme", scope=Scope.INGEST, plan="Year", now=NOW)
    assert new.by_tenant() == {"nobody": 7, "acme": 365}
    path.unlink()
    with pytest.raises(KeysUnusable):
        new.by_tenant()
    assert KeysFileDays(path, PlanDays(BUILT_IN_PLANS, NOW.timestamp), may_be_missing=False).by_tenant() == {}
