"""What differs between two TTLs: nothing but the days of tenants, or more."""

import pytest

from collector.store.retention import Retention, tenants_that_differ

BASE = Retention(days=30, tenants={"acme": 7, "it's": 7, "odd ), (\\": 90})


@pytest.mark.parametrize(
    ("other", "tenants"),
    [
        (BASE, set()),
        (BASE._replace(tenants={**BASE.tenants, "new": 7}), {"new"}),
        (BASE._replace(tenants={**BASE.tenants, "new": 8, "it's": 90}), {"new", "it's"}),
        (BASE._replace(tenants={"acme": 7}), {"it's", "odd ), (\\"}),
        (BASE._replace(days=31), None),
        (BASE._replace(logs=5), None),
        (BASE._replace(tenants={}), None),
        (BASE._replace(days=None), None),
        (BASE._replace(cold_volume="cold", cold_after_days=3), None),
    ],
)
def test_tenants_that_differ(other: Retention, tenants: set[str] | None) -> None:
    """They may differ in either direction. A rule for everyone that gets a condition is another rule."""
    one, two = BASE.ttl("otel_logs"), other.ttl("otel_logs")
    assert tenants_that_differ(one, two) == tenants_that_differ(two, one) == tenants


def test_tenants_without_a_rule_for_all_others() -> None:
    none, some = Retention(), Retention(tenants={"acme": 7})
    assert tenants_that_differ(none.ttl("otel_logs"), some.ttl("otel_logs")) == {"acme"}
    cold = Retention(cold_volume="cold", cold_after_days=3)
    assert tenants_that_differ(cold.ttl("otel_logs"), cold._replace(tenants=some.tenants).ttl("otel_logs")) == {"acme"}
