"""Read the usage of a tenant from the counters of collector/telemetry/metrics.py.

Invariants:
1. The numbers are those of /metrics, so a comparison of the two finds no difference (test_usage_is_what_metrics_show).
"""

from typing import Final, NamedTuple

from collector.telemetry.aggregate import Snapshot
from collector.telemetry.tenant_ranking import tenant_of
from collector.tenancy.plans import DIMENSIONS

_REQUESTS: Final = "infrasage_tenant_requests_total"
_ITEMS: Final = "infrasage_tenant_items_total"
_BYTES: Final = "infrasage_tenant_bytes_total"
_LIMITED: Final = {f"limited_by_{dimension}": dimension for dimension in DIMENSIONS}


class Usage(NamedTuple):
    """The counts since the gateway's start. Bytes are those of requests that were taken, decompressed."""

    requests: dict[str, int]  # accepted, rejected (all of its items), refused, failed
    items: dict[str, int]  # accepted, rejected, rate_limited, failed
    size_bytes: int
    limited: dict[str, int]  # requests over the plan, by the dimension that they were over


def usage_of(snapshot: Snapshot, tenant: str) -> Usage:
    """Return the usage of `tenant`, from a snapshot that has every tenant under its own name."""
    return _used(snapshot, tenant).get(tenant) or _nothing()


def usage_by_tenant(snapshot: Snapshot) -> dict[str, Usage]:
    """Return the usage of every tenant in the snapshot."""
    return _used(snapshot, None)


def _used(snapshot: Snapshot, only_tenant: str | None) -> dict[str, Usage]:
    """Return the usage by tenant: only of `only_tenant`, or of all if that is None."""
    found: dict[str, Usage] = {}
    for family in snapshot:
        if not family.name.startswith("infrasage_tenant_"):
            continue
        for key, value in family.samples.items():
            name, labels = key
            tenant = tenant_of(key)
            if only_tenant is not None and tenant != only_tenant:
                continue
            usage = found.get(tenant)
            if usage is None:
                usage = found[tenant] = _nothing()
            status = dict(labels).get("status", "")
            if name == _BYTES:
                found[tenant] = usage._replace(size_bytes=int(value))
            elif name == _ITEMS:
                usage.items[status] = int(value)
            elif name == _REQUESTS and status in _LIMITED:
                usage.limited[_LIMITED[status]] = int(value)
            elif name == _REQUESTS:
                usage.requests[status] = int(value)
    return found


def _nothing() -> Usage:
    return Usage(
        dict.fromkeys(("accepted", "rejected", "refused", "failed"), 0),
        dict.fromkeys(("accepted", "rejected", "rate_limited", "failed"), 0),
        0,
        dict.fromkeys(DIMENSIONS, 0),
    )
