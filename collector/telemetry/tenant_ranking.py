"""Show only the largest tenants by name in /metrics, so that the number of series is bounded. The rest are one series.

Invariants:
1. No series goes back, and nothing is counted twice: the counts of a tenant that was among the rest stay with the rest, even
   if it is shown by name later. So sums over all series are exact, and Prometheus sees no counter restart
   (test_nothing_goes_back_and_nothing_is_lost).
"""

from collections import Counter
from typing import Final

from collector.telemetry.aggregate import Family, Key, Snapshot

THE_REST: Final = ""
# In the help of metrics without tenants' names.
NO_NAMES: Final = (
    'Here tenant="" is all of them: names are shown to a key of scope admin, and to all with tenants.metrics_names = "yes".'
)

# A tenant takes another's place when it is this many times as large, so that two of equal size do not alternate.
_LARGER: Final = 2


class _Rest:
    """One series of the tenants that are not shown by name."""

    __slots__ = ("is_shown", "key", "value")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.value = 0.0
        self.is_shown = False


class _Series:
    """The count of a series when it was last shown, and how much of it is under the tenant's own name."""

    __slots__ = ("credited", "rest", "seen", "tenant")

    def __init__(self, tenant: str, rest: _Rest) -> None:
        self.tenant = tenant
        self.rest = rest
        self.seen = 0.0
        self.credited = 0.0


class Ranking:
    """Ranks the tenants of one exposition. It remembers what it has shown."""

    def __init__(self, shown_max: int) -> None:
        self._shown_max: Final = shown_max
        self._named: Final[set[str]] = set()
        self._series: Final[dict[Key, _Series]] = {}
        self._rests: Final[dict[Key, _Rest]] = {}

    def shown(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot, with the tenants that are not among the largest as one, whose name is THE_REST."""
        families = [family for family in snapshot if _counts_tenants(family)]
        if not families:
            return snapshot
        self._choose(families)
        return [self._collapsed(family) if _counts_tenants(family) else family for family in snapshot]

    def _choose(self, families: list[Family]) -> None:
        """Choose the tenants with names by the number of their requests."""
        sizes: Counter[str] = Counter()
        for family in families:
            if family.name == _SIZE:
                for key, value in family.samples.items():
                    sizes[self._series_of(key).tenant] += int(value)
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
        named = self._named
        for key, value in family.samples.items():
            series = self._series_of(key)
            more = value - series.seen
            series.seen = value
            rest = series.rest
            if series.tenant in named:
                series.credited += more
                samples[key] = series.credited
            else:
                rest.value += more
                rest.is_shown = True
            if rest.is_shown:
                samples[rest.key] = rest.value
        return family._replace(samples=samples)

    def _series_of(self, key: Key) -> _Series:
        series = self._series.get(key)
        if series is None:
            rest_key = _of_the_rest(key)
            rest = self._rests.setdefault(rest_key, _Rest(rest_key))
            series = self._series[key] = _Series(tenant_of(key), rest)
        return series


def without_names(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot, with all tenants as one, whose name is THE_REST."""
    return [_summed(family) if _counts_tenants(family) else family for family in snapshot]


def _summed(family: Family) -> Family:
    samples: dict[Key, float] = {}
    for key, value in family.samples.items():
        rest = _of_the_rest(key)
        samples[rest] = samples.get(rest, 0.0) + value
    return family._replace(samples=samples, help=f"{family.help} {NO_NAMES}")


# The family by which tenants are ranked.
_SIZE: Final = "infrasage_tenant_requests"
_REPAIRED: Final = "infrasage_repaired"


def _counts_tenants(family: Family) -> bool:
    return family.name.startswith("infrasage_tenant_") or family.name == _REPAIRED


def tenant_of(key: Key) -> str:
    """Return the tenant of a sample."""
    return dict(key[1]).get("tenant", THE_REST)


def _of_the_rest(key: Key) -> Key:
    name, labels = key
    return name, tuple((label, THE_REST if label == "tenant" else value) for label, value in labels)
