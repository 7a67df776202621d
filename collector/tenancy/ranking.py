"""Which tenants are shown by name in /metrics: the largest, so that there are never too many series; the rest are one.

The law: nothing shown ever goes back, nor is anything shown twice: what a tenant did while it was among the rest stays with the
rest, though it is shown by name later. So sums over all series are exact, and Prometheus sees no counter restart.
"""

from collections import Counter
from typing import Final

from collector.combined import Family, Key, Snapshot

THE_REST: Final = ""

# A tenant takes another's place when it is so many times as large: two of a size do not take turns.
_LARGER: Final = 2


class Ranking:
    """One for whoever shows; it remembers what it has shown."""

    def __init__(self, shown_max: int) -> None:
        self._shown_max: Final = shown_max
        self._named: Final[set[str]] = set()
        self._seen: Final[dict[Key, float]] = {}  # what was counted when it was shown last
        self._credited: Final[dict[Key, float]] = {}  # how much of it is under the tenant's own name
        self._of_the_rest: Final[dict[Key, float]] = {}

    def shown(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with the tenants that are not among the largest as one, whose name is THE_REST."""
        families = [family for family in snapshot if _counts_tenants(family)]
        if not families:
            return snapshot
        self._choose(families)
        return [self._collapsed(family) if _counts_tenants(family) else family for family in snapshot]

    def _choose(self, families: list[Family]) -> None:
        """By how many requests they have sent."""
        sizes: Counter[str] = Counter()
        for family in families:
            if family.name == _SIZE:
                for key, value in family.samples.items():
                    sizes[tenant_of(key)] += int(value)
        named = self._named
        for tenant, size in sizes.most_common():
            if tenant in named:
                continue
            if len(named) < self._shown_max:
                named.add(tenant)
                continue
            smallest = min(named, key=lambda name: sizes[name], default=None)
            if smallest is None or size < _LARGER * sizes[smallest]:
                break
            named.remove(smallest)
            named.add(tenant)

    def _collapsed(self, family: Family) -> Family:
        samples: dict[Key, float] = {}
        for key, value in family.samples.items():
            more = value - self._seen.get(key, 0.0)
            self._seen[key] = value
            rest = _of_the_rest(key)
            if tenant_of(key) in self._named:
                samples[key] = self._credited[key] = self._credited.get(key, 0.0) + more
            else:
                self._of_the_rest[rest] = self._of_the_rest.get(rest, 0.0) + more
            if rest in self._of_the_rest:
                samples[rest] = self._of_the_rest[rest]
        return family._replace(samples=samples)


# The family by which tenants are ranked.
_SIZE: Final = "infrasage_tenant_requests"


def _counts_tenants(family: Family) -> bool:
    return family.name.startswith("infrasage_tenant_")


def tenant_of(key: Key) -> str:
    """The tenant that a sample is about."""
    return dict(key[1]).get("tenant", THE_REST)


def _of_the_rest(key: Key) -> Key:
    name, labels = key
    return name, tuple((label, THE_REST if label == "tenant" else value) for label, value in labels)
