"""Counters and histograms that a request can afford: plain numbers, shown by the Prometheus library when somebody looks.

The law: one event loop's, so no locks; what was counted is never taken back. The library's own take a lock for each number,
and walk all buckets: ten of them were a fifth of what a small request cost (docs/adr/0013).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Count:
    """One counter's one series."""

    def __init__(self) -> None:
        self.value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class Distribution:
    """One histogram's one series. `bounds`: the upper ones of its buckets, ascending, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final[list[float]] = list(bounds)
        self._counts: Final[list[int]] = [0] * (len(self._bounds) + 1)
        self._sum: float = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """As they are shown: each bound, and how many were not above it."""
        shown: list[tuple[str, float]] = []
        below = 0
        for index, count in enumerate(self._counts):
            below += count
            bound = self._bounds[index] if index < len(self._bounds) else float("inf")
            shown.append((floatToGoString(bound), float(below)))  # type: ignore[no-untyped-call]  # the library has no types for it
        return shown

    def sum(self) -> float:
        return self._sum


class Counter:
    """A counter's series by its labels; a collector, as the Prometheus library has it. Without labels it has one series."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        """`name`: without `_total`."""
        self._name: Final = name
        self._meaning: Final = meaning
        self._labels: Final = tuple(labels)
        self._series: Final[dict[tuple[str, ...], Count]] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Count:
        """The one with these values, in the order of the labels."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Count()
        return series

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        return iter((family,))


class Histogram:
    """A histogram's series by its labels, likewise."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name: Final = name
        self._meaning: Final = meaning
        self._labels: Final = tuple(labels)
        self._bounds: Final = tuple(bounds)
        self._series: Final[dict[tuple[str, ...], Distribution]] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Distribution:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Distribution(self._bounds)
        return series

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.buckets(), series.sum())
        return iter((family,))
