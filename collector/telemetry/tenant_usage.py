"""What a tenant has used, read from the counters of collector/telemetry/metrics.py.

Invariants:
1. The numbers are those of /metrics, so a comparison of the two finds no difference (test_usage_is_what_metrics_show).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from collector.telemetry.aggregate import Snapshot
from collector.telemetry.tenant_ranking import tenant_of
from collector.tenancy.plans import DIMENSIONS

_REQUESTS: Final = "infrasage_tenant_requests_total"
_ITEMS: Final = "infrasage_tenant_items_total"
_BYTES: Final = "infrasage_tenant_bytes_total"
_LIMITED: Final = {f"limited_by_{dimension}": dimension for dimension in DIMENSIONS}


class Usage(NamedTuple):
    """Counts since the gateway's start. Bytes are of accepted requests, decompressed."""

    requests: Mapping[str, int]  # accepted, rejected (all of its items), refused, failed
    items: Mapping[str, int]  # accepted, rejected, rate_limited, failed
    size_bytes: int
    limited: Mapping[str, int]  # requests over the plan, by the dimension that they were over


def usage_of(snapshot: Snapshot, tenant: str) -> Usage:
    """Return what `tenant` has used, from a snapshot that has every tenant under its own name."""
    requests = dict.fromkeys(("accepted", "rejected", "refused", "failed"), 0)
    items = dict.fromkeys(("accepted", "rejected", "rate_limited", "failed"), 0)
    limited: dict[str, int] = dict.fromkeys(DIMENSIONS, 0)
    size_bytes = 0
    for family in snapshot:
        for key, value in family.samples.items():
            name, labels = key
            if not name.startswith("infrasage_tenant_") or tenant_of(key) != tenant:
                continue
            status = dict(labels).get("status", "")
            if name == _BYTES:
                size_bytes = int(value)
            elif name == _ITEMS:
                items[status] = int(value)
            elif name == _REQUESTS and status in _LIMITED:
                limited[_LIMITED[status]] = int(value)
            elif name == _REQUESTS:
                requests[status] = int(value)
    return Usage(requests, items, size_bytes, limited)
