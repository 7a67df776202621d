"""The observer that is notified of the outcome of batches produced to Kafka."""

from typing import Protocol


class ProduceObserver(Protocol):
    """Receives the outcome of batches; collector.telemetry.metrics.Metrics is one."""

    def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """Count one batch that is durable, `seconds` after its first message came."""

    def produce_failed(self, topic: str, kind: str) -> None:
        """Count one batch that failed, or was abandoned. `kind` is timeout or refused (by Kafka, or on the way)."""

    def partitions_added(self, topic: str, before: int, now: int) -> None:
        """Report that a topic has more partitions than before, so that some fingerprints have another partition."""


class NoObserver:
    """Observes nothing."""

    def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        pass

    def produce_failed(self, topic: str, kind: str) -> None:
        pass

    def partitions_added(self, topic: str, before: int, now: int) -> None:
        pass
