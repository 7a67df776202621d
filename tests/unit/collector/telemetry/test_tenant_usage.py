"""What a tenant has used, as counted for /metrics."""

from adapters.errors import INVALID_VALUE
from adapters.record import TYPE_METRIC, Adapted
from collector.telemetry.metrics import Metrics
from collector.telemetry.tenant_usage import usage_of


def adapted(accepted: int, rejected: int = 0) -> Adapted:
    made = Adapted()
    made.accepted[TYPE_METRIC] = accepted
    if rejected:
        made.rejected[TYPE_METRIC, INVALID_VALUE] = rejected
    return made


def test_what_is_counted_is_reported() -> None:
    """Every count of a tenant is in its usage, and none of another's."""
    metrics = Metrics(tenants_shown_max=0)
    acme = metrics.tenant("acme")
    acme.ingested(adapted(7, 2), 100)
    acme.ingested(adapted(1), 11)
    acme.ingested(adapted(0, 3), 5)
    acme.ingested(adapted(0), 1)
    acme.refused()
    acme.failed(adapted(5))
    acme.limited("requests")
    acme.limited("items")
    acme.rate_limited(adapted(3, 1))
    metrics.tenant("other").ingested(adapted(1000), 9999)
    used = usage_of(metrics.snapshot(), "acme")
    assert used.requests == {"accepted": 3, "rejected": 1, "refused": 1, "failed": 1}
    assert used.items == {"accepted": 8, "rejected": 5, "rate_limited": 4, "failed": 5}
    assert used.size_bytes == 117
    assert used.limited == {"requests": 1, "items": 1, "bytes": 0}


def test_who_has_sent_nothing_has_used_nothing() -> None:
    """A tenant that nothing is known of has used nothing; that is no error."""
    used = usage_of(Metrics().snapshot(), "acme")
    assert used.requests == {"accepted": 0, "rejected": 0, "refused": 0, "failed": 0}
    assert used.items == {"accepted": 0, "rejected": 0, "rate_limited": 0, "failed": 0}
    assert used.size_bytes == 0
    assert used.limited == {"requests": 0, "items": 0, "bytes": 0}


def test_no_series_for_what_never_happened() -> None:
    """Tenants may be many: each has series only of what has happened to it."""
    metrics = Metrics()
    metrics.tenant("acme").ingested(adapted(1), 1)
    text = metrics.expose("")[0].decode()
    assert 'infrasage_tenant_requests_total{status="accepted",tenant="acme"} 1.0' in text
    assert "limited_by" not in text
    assert 'status="failed",tenant=' not in text
