"""Combine the metrics of several processes into one set.

Invariants:
1. A counter that was shown never goes back when its process dies, because Prometheus would take the fall for a restart and
   count everything again. So the process that aggregates keeps the counts of dead processes
   (test_what_was_counted_outlives_its_process).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

# A sample's name, and its labels in their order.
Key = tuple[str, tuple[tuple[str, str], ...]]

_COUNTING: Final = frozenset({"counter", "histogram", "summary"})
# Metrics whose common value is the smallest and not the sum: sizes and states that all processes share.
_SMALLEST: Final = frozenset(
    {
        "process_start_time_seconds",
        "process_max_fds",
        "infrasage_descriptors_reserve",
        "infrasage_up",
        "infrasage_tls_certificate_expires_seconds",
    }
)
# Metrics whose common value is the largest. For descriptors, since each process has its own limit.
_LARGEST: Final = frozenset({"python_info", "process_open_fds", "infrasage_dlq_depth"})


class Family(NamedTuple):
    """One metric with all of its samples, as in the Prometheus library, without its classes."""

    name: str
    help: str
    type: str
    samples: dict[Key, float]

    @property
    def counts(self) -> bool:
        """Return whether the metric only ever grows."""
        return self.type in _COUNTING


# The metrics of one process.
Snapshot = list[Family]


def combine(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add up the snapshots, except for times (the earliest counts) and values that all processes share."""
    together: dict[str, Family] = {}
    for snapshot in snapshots:
        for family in snapshot:
            samples = together.setdefault(family.name, family._replace(samples={})).samples
            for key, value in family.samples.items():
                samples[key] = _both(key[0], samples[key], value) if key in samples else value
    return list(together.values())


def _both(name: str, one: float, other: float) -> float:
    if name in _SMALLEST:
        return min(one, other)
    return max(one, other) if name in _LARGEST else one + other


def counted(snapshot: Snapshot) -> Snapshot:
    """Return the metrics of a process that outlive it: its counts, not its gauges."""
    return [family for family in snapshot if family.counts]
