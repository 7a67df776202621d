"""Collectors as `top` sees them, without a process: the real metrics, written and read back."""

from adapters.errors import TIMESTAMP_TOO_OLD
from adapters.record import TYPE_LOG, Adapted
from adapters.repairs import REPAIRS
from collector.api.health import CLICKHOUSE, EMBEDDED_ENGINE, EMBEDDED_LOG, KAFKA, NOT_USED, Health
from collector.app.top import PolledPages
from collector.broker.contract import Partition
from collector.telemetry.metrics import Metrics
from collector.telemetry.scrape import read_text
from collector.telemetry.tenant_ranking import without_names

SERVE = Health("ok", "ok", "ok", broker=EMBEDDED_LOG, store=EMBEDDED_ENGINE)
GATEWAY = Health(NOT_USED, "ok", broker=KAFKA, store=NOT_USED)
WRITER = Health("ok", "ok", broker=KAFKA, store=CLICKHOUSE)
ENDPOINTS = (
    "/v1/logs",
    "/v1/metrics",
    "/v1/traces",
    "/api/v1/telemetry",
    "/api/v1/telemetry/batch",
    "/api/v1/prometheus/write",
)


class Collector:
    """One, with metrics of its own. `receives`: it has the routes of a gateway."""

    def __init__(self, health: Health = SERVE, *, receives: bool = True) -> None:
        self.health = health
        self.metrics = Metrics()
        self.endpoints = {path: self.metrics.http_endpoint(path) for path in ENDPOINTS} if receives else {}

    def take(self, tenant: str, *, accepted: int, rejected: int = 0, repaired: int = 0, size_bytes: int = 1000) -> None:
        """A request with logs was answered."""
        adapted = Adapted()
        adapted.accepted[TYPE_LOG] = accepted
        if rejected:
            adapted.rejected[TYPE_LOG, TIMESTAMP_TOO_OLD] = rejected
        if repaired:
            adapted.repaired = {REPAIRS[0].code: repaired}
        self.metrics.ingested(adapted, {TIMESTAMP_TOO_OLD: rejected})
        self.metrics.tenant(tenant).ingested(adapted, size_bytes)
        self.endpoints["/v1/logs"].answered(200, 0.01, size_bytes)

    def store(self, messages: int, *, lag: int = 0, waited_s: float = 0.0) -> None:
        """Logs were stored."""
        partition = Partition("infrasage.logs", 0)
        self.metrics.written("infrasage.logs", messages, messages * 100, 0.01)
        self.metrics.log_lag({partition: lag})
        self.metrics.log_lag_seconds({partition: waited_s})

    def page(self, *, has_names: bool = True) -> str:
        """What /metrics answers."""
        snapshot = self.metrics.shown()
        return self.metrics.text(snapshot if has_names else without_names(snapshot), "text/plain").decode()

    def answer(self, at_s: float, *, has_names: bool = True, kafka: str = "ok") -> PolledPages:
        page, health = self.page(has_names=has_names), self.health._replace(kafka=kafka)
        return PolledPages(at_s, 1_800_000_000 + at_s, "ok", "1.2.3", at_s, health, read_text(page))
