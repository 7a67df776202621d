"""How fast the counters of a collector grow, from two snapshots of it.

Invariants:
1. A rate is never negative, and excludes everything counted before `before` (test_a_rate_is_the_growth_by_time).
2. A counter that fell shows that the collector was restarted. Then every counter has grown by its value
   (test_after_a_restart_counters_grow_from_zero).
3. A new series has grown by its value, since a series appears when it first counts
   (test_a_new_series_grows_from_zero). With `remembering` this also holds for a tenant that loses its name to a larger one and
   gets it back (test_a_series_that_comes_back_grows_from_where_it_was).
4. If the names of tenants were hidden in one of the snapshots, their series have no rates
   (test_names_that_appear_are_no_growth).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from collector.telemetry.aggregate import Key, Snapshot

# The values of processes are added up in any order, so the last digits of a float may differ.
_TOLERANCE: Final = 1e-6


def remembering(before: Snapshot, now: Snapshot) -> Snapshot:
    """Return `now` for the next comparison, with the counters' series that were in `before` and are not shown any more."""
    if Rates(before, now, 0).is_restarted:
        return now
    earlier = {family.name: family for family in before if family.counts}
    return [
        family._replace(samples=earlier[family.name].samples | family.samples)
        if family.name in earlier and earlier[family.name].help == family.help
        else family
        for family in now
    ]


class Rates:
    """The samples of a snapshot by name, and the growth of its counters since an earlier snapshot of the same collector."""

    def __init__(self, before: Snapshot | None, now: Snapshot, seconds: float) -> None:
        """`before` is None if there is only one snapshot yet. `seconds` is the time between the two; with 0 nothing grows."""
        self._now: Final = {family.name: family for family in now}
        self._before: Final = {} if before is None else {family.name: family for family in before}
        self.seconds: Final = seconds if before is not None and seconds > 0 else None
        self.is_restarted: Final = any(self._has_fallen(name) for name, family in self._now.items() if family.counts)

    def of(self, name: str) -> Iterator[tuple[Mapping[str, str], float, float | None]]:
        """Yield labels, value and growth a second of each series. The growth is None if it is not known.

        `name` is that of the samples, so with `_total` for a counter. The growth of a gauge has no meaning.
        """
        family = self._now.get(name.removesuffix("_total")) or self._now.get(name.removesuffix("_count"))
        if family is None:
            return
        before = self._samples_before(family.name)
        for key, value in family.samples.items():
            if key[0] != name:
                continue
            per_s = None
            if self.seconds is not None and before is not None:
                start = 0.0 if self.is_restarted else before.get(key, 0.0)
                per_s = max(value - start, 0.0) / self.seconds
            yield dict(key[1]), value, per_s

    def hides(self, family: str, hint: str) -> bool:
        """Return whether the help of a metric now has this hint."""
        return family in self._now and hint in self._now[family].help

    def _has_fallen(self, name: str) -> bool:
        before = self._samples_before(name)
        if not before:
            return False
        now = self._now[name].samples
        return any(now[key] < value - _TOLERANCE * max(1.0, abs(value)) for key, value in before.items() if key in now)

    def _samples_before(self, name: str) -> Mapping[Key, float] | None:
        """Return the earlier samples; None if they can't be compared with those of now."""
        before = self._before.get(name)
        if before is None:
            return {}
        # The help says whether tenants have names.
        return before.samples if before.help == self._now[name].help else None
