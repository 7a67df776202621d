"""Counters, histograms and gauges that cost a request little: plain numbers, which are read at each scrape.

Invariants:
1. A counter never goes back. (test_a_counter_is_shown_as_the_librarys)
2. A series is shown as the Prometheus library would show it. (test_a_histogram_is_shown_as_the_librarys)

They belong to one event loop, so there are no locks. The library's take a lock for each number and walk all buckets: ten of
them were a fifth of the cost of a small request (docs/adr/0013), and reading them cost 5 ms for 50 tenants.
"""

from collections.abc import Callable, Sequence
from typing import Final

from mypy_extensions import i64
from prometheus_client.utils import floatToGoString

from collector.telemetry.aggregate import Family, Key


class Count:
    """One series of a counter."""

    def __init__(self) -> None:
        self.value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class Distribution:
    """One series of a histogram. `bounds` are the upper bounds of its buckets, ascending, without infinity."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final[list[float]] = list(bounds)
        self._counts: Final[list[int]] = [0] * (len(self._bounds) + 1)
        self._sum: float = 0.0

    def observe(self, value: float) -> None:
        # Compiled, this compares floats, and bisect_left would compare objects.
        bounds = self._bounds
        low: i64 = 0
        high: i64 = len(bounds)
        while low < high:
            middle = low + high >> 1
            if bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        self._counts[low] += 1
        self._sum += value

    def values(self) -> list[float]:
        """Return the values as they are shown: the count up to each bound and infinity, the total count, and the sum."""
        shown: list[float] = []
        below = 0
        for count in self._counts:
            below += count
            shown.append(float(below))
        shown.append(float(below))
        shown.append(self._sum)
        return shown


class Level:
    """One series of a gauge."""

    def __init__(self) -> None:
        self._value: float = 0.0
        self._read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self._value = float(value)

    def set_function(self, read: Callable[[], float]) -> None:
        """Call `read` for the value at each scrape."""
        self._read = read

    def value(self) -> float:
        return self._value if self._read is None else float(self._read())


class Counter:
    """A counter's series by its labels. Without labels it has one series."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        """`name` is without `_total`."""
        self._name: Final = name
        self._meaning: Final = meaning
        self._labels: Final = tuple(labels)
        self._series: Final[dict[tuple[str, ...], Count]] = {}
        self._keys: Final[list[tuple[Key, Count]]] = []
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Count:
        """Return the series with these values, in the order of the labels."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Count()
            self._keys.append(((f"{self._name}_total", _labels(self._labels, values)), series))
        return series

    def start_with(self, values: Sequence[str]) -> None:
        """Show the series of these values of the only label before anything was counted."""
        for value in values:
            self.labels(value)

    def family(self) -> Family:
        return Family(self._name, self._meaning, "counter", {key: series.value for key, series in self._keys})


class Histogram:
    """A histogram's series by its labels. Without labels it has one series."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name: Final = name
        self._meaning: Final = meaning
        self._labels: Final = tuple(labels)
        self._bounds: Final = tuple(bounds)
        self._series: Final[dict[tuple[str, ...], Distribution]] = {}
        self._keys: Final[list[tuple[list[Key], Distribution]]] = []
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Distribution:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Distribution(self._bounds)
            labels = _labels(self._labels, values)
            bounds: list[str] = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]  # the library has no types for it
            keys: list[Key] = [(f"{self._name}_bucket", (*labels, ("le", bound))) for bound in bounds]
            keys.append((f"{self._name}_count", labels))
            keys.append((f"{self._name}_sum", labels))
            self._keys.append((keys, series))
        return series

    def family(self) -> Family:
        samples: dict[Key, float] = {}
        for keys, series in self._keys:
            samples.update(zip(keys, series.values(), strict=True))
        return Family(self._name, self._meaning, "histogram", samples)


class Gauge:
    """A gauge's series by its labels. Without labels it has one series."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        self._name: Final = name
        self._meaning: Final = meaning
        self._labels: Final = tuple(labels)
        self._series: Final[dict[tuple[str, ...], Level]] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Level:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Level()
        return series

    def clear(self) -> None:
        """Forget all series."""
        self._series.clear()

    def family(self) -> Family:
        samples: dict[Key, float] = {
            (self._name, _labels(self._labels, values)): series.value() for values, series in self._series.items()
        }
        return Family(self._name, self._meaning, "gauge", samples)


def _labels(names: Sequence[str], values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple([(name, values[index]) for index, name in enumerate(names)])
