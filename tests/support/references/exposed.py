"""Snapshots of metrics as the Prometheus library writes them: what our own writer is compared with."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, exposition

from collector.telemetry.aggregate import Snapshot


class _Shown:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for family in self._snapshot:
            metric = Metric(family.name, family.help, family.type)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def written_by_library(snapshot: Snapshot, accept: str) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Shown(snapshot))
    encode, _ = exposition.choose_encoder(accept)
    return encode(registry)
