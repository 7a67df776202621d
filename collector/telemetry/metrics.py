"""Every metric of the collector: its name, type, labels and help.

Labels come from closed sets (types, reasons, routes, codes, topics), never from a sender.

Invariants:
1. The sum accepted + rejected + rate_limited + failed is every item that was received and decoded (test_the_counters_add_up).
2. A counter that an alert watches for its first event is there from the start, with 0: Prometheus sees no growth in a series
   that begins with its first event (test_what_alerts_watch_for_is_there_from_the_start).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from adapters.errors import INVALID_JSON, REASONS
from adapters.record import TYPE_NAMES, Adapted
from collector.broker.contract import TOPICS, Partition
from collector.telemetry.aggregate import Family, Snapshot
from collector.telemetry.counters import Counter, Gauge, Histogram
from collector.telemetry.exposition import PageWriter, content_type_of
from collector.telemetry.instruments import APPEND_ERRORS, SOURCES, STATUSES, Age, Described, Endpoint, Produced, Tenant
from collector.telemetry.tenant_ranking import Ranking

AuditResult = Literal["adds_up", "difference", "not_judged", "failed"]
AUDIT_RESULTS: Final[tuple[AuditResult, ...]] = ("adds_up", "difference", "not_judged", "failed")

_SIZE_BUCKETS: Final = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)
_SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The registry of all metrics. It is cheap enough for the hot path, since labels are resolved beforehand."""

    def __init__(self, tenants_shown_max: int = 50) -> None:
        """At most `tenants_shown_max` tenants are shown by name."""
        # The process's own metrics, from the library.
        self._process: Final = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        # All metrics of the collector, and their descriptions for the documentation.
        self._families: Final[list[Counter | Gauge | Histogram]] = []
        self.described: Final[list[Described]] = []
        self._writer: Final = PageWriter()

        events = self._counter("ingestion_events", "Items received, by type and by what became of them.", "type", "status")
        self._events: Final = {status: [events.labels(type_name, status) for type_name in TYPE_NAMES] for status in STATUSES}
        failures = self._counter("validation_failures", "Items rejected, by reason.", "reason")
        unkept = self._counter(
            "dlq_not_kept", "Items rejected that are counted, but not kept as dead letters: past their tenant's cap.", "reason"
        )
        refused = self._counter("requests_refused", "Requests refused as a whole, by reason.", "reason")
        self._validation_failures: Final = {
            reason.code: failures.labels(reason.name) for reason in REASONS if reason.code < INVALID_JSON
        }
        self._not_kept: Final = {reason.code: unkept.labels(reason.name) for reason in REASONS if reason.code < INVALID_JSON}
        self._refused: Final = {reason.code: refused.labels(reason.name) for reason in REASONS}
        self._repeated: Final = self._counter(
            "repeated_requests", "Requests that were answered as before, since they were durable already."
        ).labels()
        self._left_out: Final = self._counter(
            "writer_repeated_messages", "Messages that were not stored, since one with the same fingerprint was.", "topic"
        )
        self._looked_up: Final = self._counter(
            "writer_fingerprint_lookups", "Fingerprints that the writer asked the store for, as its memory did not reach back."
        ).labels()
        self._batch_size: Final = self._histogram("ingestion_batch_size", "Items of a request.", _SIZE_BUCKETS).labels()

        self._http_requests: Final = self._counter("http_requests", "HTTP requests answered.", "endpoint", "code")
        self._http_seconds: Final = self._seconds("http_request_duration_seconds", "From head to answer.", "endpoint")
        self._http_bytes: Final = self._counter("http_request_body_bytes", "Bytes of bodies, as sent.", "endpoint")
        self._connections_refused: Final = self._counter("http_connections_refused", "Connections over the limit.").labels()
        self._descriptors_refused: Final = self._counter(
            "descriptors_refused",
            "Connections refused because the file descriptors that are left are for the log and the store.",
        ).labels()
        self._connections_evicted: Final = self._counter(
            "connections_evicted", "Idle connections closed to make room for new ones."
        ).labels()
        self._handshakes_failed: Final = self._counter(
            "tls_handshakes_failed",
            "TLS handshakes that failed: no TLS, or no version, cipher or certificate that is accepted.",
        ).labels()
        self._certificate_expires: Final = self._gauge(
            "tls_certificate_expires_seconds", "When the certificate in use expires, in seconds since 1970. 0: no TLS."
        ).labels()
        self._grpc_requests: Final = self._counter("grpc_requests", "gRPC requests answered.", "method", "code")
        self._grpc_seconds: Final = self._seconds("grpc_request_duration_seconds", "From request to answer.", "method")
        self._grpc_bytes: Final = self._counter("grpc_request_bytes", "Bytes of requests, decompressed.", "method")
        self._in_flight: Final = self._gauge("in_flight_bytes", "Bytes of requests that are not answered yet.").labels()
        self._in_flight_limit: Final = self._gauge(
            "in_flight_limit_bytes", "Bytes that requests may hold at once (broker.in_flight_bytes_max), of all processes."
        ).labels()
        self._connections: Final = self._gauge("http_connections", "Open HTTP connections.").labels()
        self._connection_reads: Final[list[tuple[Callable[[], int], int]]] = []
        self._connections_limit: Final = self._gauge(
            "http_connections_limit", "HTTP connections that may be open (http.connections_max), of all processes."
        ).labels()
        self._grpc_connections: Final = self._gauge("grpc_connections", "Open gRPC connections.").labels()
        self._grpc_connections_limit: Final = self._gauge(
            "grpc_connections_limit", "gRPC connections that may be open (grpc.connections_max), of all processes."
        ).labels()
        self._descriptors_reserve: Final = self._gauge(
            "descriptors_reserve",
            "File descriptors of process_max_fds that connections leave to the log and the store (open_files_reserve).",
        ).labels()
        self._dlq_depth: Final = self._gauge(
            "dlq_depth", "Open dead letters. Known where the store is: a gateway shows 0."
        ).labels()

        self._tenant_requests: Final = self._counter(
            "tenant_requests", 'Requests of a tenant, by outcome; tenant="" is all but the largest tenants.', "tenant", "status"
        )
        self._tenant_items: Final = self._counter(
            "tenant_items", 'Items of a tenant, by outcome; tenant="" is all but the largest tenants.', "tenant", "status"
        )
        self._tenant_bytes: Final = self._counter(
            "tenant_bytes", 'Decompressed bytes of accepted requests; tenant="" is all but the largest tenants.', "tenant"
        )
        self._repaired: Final = self._counter(
            "repaired", 'Repairs, by kind; tenant="" is all but the largest tenants.', "tenant", "reason"
        )
        self._tenants: Final[dict[str, Tenant]] = {}
        self._ranking: Final = Ranking(tenants_shown_max)

        self._append_seconds: Final = self._seconds(
            "append_duration_seconds", "From a request's append to its being durable, or to its failure."
        ).labels()
        self._append_errors: Final = self._counter("append_errors", "Appends of requests that failed.", "kind")
        self._append_errors.start_with(APPEND_ERRORS)
        self._produce_seconds: Final = self._seconds("produce_duration_seconds", "One batch to Kafka, acknowledged.", "topic")
        self._produce_messages: Final = self._counter("produce_messages", "Messages that Kafka acknowledged.", "topic")
        self._produce_bytes: Final = self._counter("produce_bytes", "Bytes of messages that Kafka acknowledged.", "topic")
        self._produced: Final[dict[str, Produced]] = {}  # by topic
        self._produce_errors: Final = self._counter("produce_errors", "Batches to Kafka that failed.", "topic", "kind")
        self._partitions_added: Final = self._counter(
            "kafka_partitions_added",
            "Partitions that this process saw added to a topic. A request sent before and again after it may be stored twice.",
            "topic",
        )
        self._log_lag: Final = self._gauge(
            "log_lag_messages",
            "Messages in the local log or Kafka that are not stored yet, of the partitions that this process writes.",
            "topic",
            "partition",
        )
        self._log_lag_seconds: Final = self._gauge(
            "log_lag_seconds",
            "Seconds for which the oldest message that is not stored yet has waited, as long as this process has watched.",
            "topic",
            "partition",
        )
        self._log_bytes: Final = self._gauge("log_bytes", "Bytes that the local log takes.").labels()
        self._log_limit: Final = self._gauge(
            "log_limit_bytes", "Bytes that the local log may take (local_log.bytes_max). 0: there is none."
        ).labels()
        self._log_lost: Final = self._gauge(
            "log_lost_messages",
            "Acknowledged messages that the local log lost, that were damaged in it, or that an older store beside it lacks,"
            " and that no operator has confirmed yet.",
        ).labels()
        self._store_damaged_parts: Final = self._gauge(
            "store_damaged_parts",
            "Parts of the embedded store that are damaged, were put aside, and that nobody has removed yet.",
        ).labels()
        self._log_damages: Final = self._gauge(
            "log_damages", "Times that the local log's files were found damaged, and that no operator has confirmed yet."
        ).labels()
        self._disk_free: Final = self._gauge(
            "disk_free_bytes", "Bytes that are free on the file system of a directory. directory: data_dir.", "directory"
        )
        self._disk_size: Final = self._gauge(
            "disk_size_bytes", "Bytes that the file system of a directory has in all. directory: data_dir.", "directory"
        )
        self._disk_reserve: Final = self._gauge(
            "disk_reserve_bytes",
            "Bytes of that file system that are kept for the store: with less free, no telemetry is taken.",
            "directory",
        )
        self._up: Final = self._gauge(
            "up",
            "1: it works; 0: it does not. part: broker (the local log or Kafka), store, keys (the keys file), redis.",
            "part",
        )
        self._gauge("processes", "Processes that this page tells of.").labels().set(1)
        self._restarts: Final = self._counter(
            "process_restarts", "Processes of the gateway or the writer that died and were replaced."
        ).labels()
        self._writer_messages: Final = self._counter("writer_messages", "Messages stored.", "topic")
        self._writer_bytes: Final = self._counter("writer_bytes", "Bytes of messages stored.", "topic")
        self._writer_seconds: Final = self._seconds("writer_insert_duration_seconds", "One insert.", "topic")
        self._writer_errors: Final = self._counter("writer_errors", "Inserts that failed.", "topic", "kind")
        self._writer_dead_letters: Final = self._counter("writer_dead_letters", "Records that the store refused.", "topic")
        self._store_refused: Final = self._counter(
            "store_refused", "Items that the store refused, by their adapter: always a defect of the collector.", "source"
        )
        self._writer_dropped: Final = self._counter(
            "writer_dropped", "Entries and events of dead letters that the store refused, and so are not kept."
        ).labels()
        self._writer_completed: Final = self._counter(
            "writer_completed_rows", "Rows that an interrupted insert had left out, and that were stored afterwards.", "topic"
        )
        self._writer_missing: Final = self._counter(
            "writer_missing_rows", "Rows of an interrupted insert that are missing, since it is not known which.", "topic"
        )
        for rare, values in ((self._store_refused, SOURCES), (self._writer_completed, TOPICS), (self._writer_missing, TOPICS)):
            rare.start_with(values)
        self._newest_age: Final = self._gauge(
            "store_newest_item_age_seconds",
            "Seconds since the time of the newest item in the store; below 0 where its sender's clock is ahead. signal:"
            " metrics, logs, traces; absent while the store has none. Known where the store is written.",
            "signal",
        )
        self._audits: Final = self._counter(
            "audits",
            "Scheduled audits, by result: adds_up, difference, not_judged (messages wait to be stored), failed.",
            "result",
        )
        self._audit_difference: Final = self._gauge(
            "audit_difference",
            "What scheduled audits found that does not add up: items, receipts and requests. It stays until an audit of the"
            " same time adds up, or `audit --confirm`. 0: everything adds up.",
        )
        self._audit_from: Final = self._gauge(
            "audit_difference_timestamp_seconds",
            "Beginning of the earliest time in which scheduled audits found a difference that stays, in seconds since 1970.",
        )
        self._audit_time: Final = self._gauge(
            "audit_timestamp_seconds", "Up to when the last scheduled audit that judged has judged, in seconds since 1970."
        )
        self._audit_seconds: Final = self._gauge("audit_duration_seconds", "How long the last scheduled audit took.")
        self.forget_audit()  # before the first audit a difference of 0 would be a claim

    # Outcomes of items.

    def ingested(self, adapted: Adapted, dead_letters: Mapping[int, int]) -> None:
        """Count an answered request, with accepted and rejected items. `dead_letters` are the items kept, by reason."""
        accepted = self._events["accepted"]
        not_kept: dict[int, int] = {}
        count = 0
        for type_, items in enumerate(adapted.accepted):
            if items:
                accepted[type_].inc(items)
                count += items
        for (type_, reason), items in adapted.rejected.items():
            self._events["rejected"][type_].inc(items)
            self._validation_failures[reason].inc(items)
            not_kept[reason] = not_kept.get(reason, 0) + items
            count += items
        for reason, items in not_kept.items():
            self._not_kept[reason].inc(items - dead_letters.get(reason, 0))
        self._batch_size.observe(count)

    def failed(self, adapted: Adapted) -> None:
        """Count a request that could not be kept: all of its items failed, and its sender may send them again."""
        failed = self._events["failed"]
        count = 0
        for type_, items in enumerate(adapted.accepted):
            failed[type_].inc(items)
            count += items
        for (type_, _reason), items in adapted.rejected.items():
            failed[type_].inc(items)
            count += items
        self._batch_size.observe(count)

    def rate_limited(self, adapted: Adapted) -> None:
        """Count a request over its tenant's plan that was already decoded when that was known."""
        limited = self._events["rate_limited"]
        for type_, items in enumerate(adapted.accepted):
            limited[type_].inc(items)
        for (type_, _reason), items in adapted.rejected.items():
            limited[type_].inc(items)

    def tenant(self, tenant: str) -> Tenant:
        """Return the counters of a tenant, whose name comes from a key or a setting, never from a sender."""
        counted = self._tenants.get(tenant)
        if counted is None:
            counted = self._tenants[tenant] = Tenant(
                lambda status: self._tenant_requests.labels(tenant, status),
                lambda status: self._tenant_items.labels(tenant, status),
                self._tenant_bytes.labels(tenant),
                lambda reason: self._repaired.labels(tenant, reason),
            )
        return counted

    def refused(self, reason: int) -> None:
        """Count a request that was refused as a whole. Its items, if it was decoded, are counted separately."""
        self._refused[reason].inc()

    def dead_letters(self, items: int) -> None:
        """Set how many dead letters are kept now."""
        self._dlq_depth.set(items)

    # Receiving.

    def http_endpoint(self, endpoint: str) -> Endpoint:
        """Return the counters of `endpoint`, which is a known route, never a path as it was sent."""
        self._http_requests.labels(endpoint, "500")
        return Endpoint(
            lambda code: self._http_requests.labels(endpoint, code),
            self._http_seconds.labels(endpoint),
            self._http_bytes.labels(endpoint),
        )

    def grpc_method(self, method: str) -> Endpoint:
        self._grpc_requests.labels(method, "INTERNAL")
        return Endpoint(
            lambda code: self._grpc_requests.labels(method, code),
            self._grpc_seconds.labels(method),
            self._grpc_bytes.labels(method),
        )

    def connection_refused(self) -> None:
        self._connections_refused.inc()

    def connection_refused_for_descriptors(self) -> None:
        """Count it in addition to `connection_refused`."""
        self._descriptors_refused.inc()

    def connection_evicted(self) -> None:
        self._connections_evicted.inc()

    def watch_connections(self, read: Callable[[], int], connections_max: int) -> None:
        """Show the open HTTP connections, which `read` returns at each scrape for one server; servers are added up."""
        self._connection_reads.append((read, connections_max))
        self._connections.set_function(lambda: sum([read() for read, _ in self._connection_reads]))
        self._connections_limit.set(sum([limit for _, limit in self._connection_reads]))

    def watch_grpc_connections(self, read: Callable[[], int], connections_max: int) -> None:
        """Show the open gRPC connections, which `read` returns at each scrape."""
        self._grpc_connections.set_function(read)
        self._grpc_connections_limit.set(connections_max)

    def descriptors_reserve(self, descriptors: int) -> None:
        """Set how many descriptors are reserved for the log and the store."""
        self._descriptors_reserve.set(descriptors)

    def handshake_failed(self) -> None:
        self._handshakes_failed.inc()

    def watch_certificate(self, read: Callable[[], float]) -> None:
        """Show when the certificate in use expires: `read` returns that at each scrape, in seconds since 1970."""
        self._certificate_expires.set_function(read)

    def watch_in_flight(self, read: Callable[[], int], bytes_max: int) -> None:
        """Show the bytes in flight, which `read` returns at each scrape."""
        self._in_flight.set_function(read)
        self._in_flight_limit.set(bytes_max)

    # The log and the writer.

    def appended(self, seconds: float) -> None:
        """Count a request that is durable."""
        self._append_seconds.observe(seconds)

    def append_failed(self, kind: str, seconds: float) -> None:
        """Count a request that could not be made durable. `kind` is one of APPEND_ERRORS."""
        self._append_seconds.observe(seconds)
        self._append_errors.labels(kind).inc()

    def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """Count a batch that Kafka has acknowledged, `seconds` after its first message came."""
        produced = self._produced.get(topic)
        if produced is None:
            produced = self._produced[topic] = Produced(
                self._produce_seconds.labels(topic), self._produce_messages.labels(topic), self._produce_bytes.labels(topic)
            )
        produced.batch(messages, size_bytes, seconds)

    def produce_failed(self, topic: str, kind: str) -> None:
        """Count a batch that failed. `kind` is timeout or refused."""
        self._produce_errors.labels(topic, kind).inc()

    def partitions_added(self, topic: str, before: int, now: int) -> None:
        """Count the partitions by which a topic has grown."""
        self._partitions_added.labels(topic).inc(now - before)

    def log_lag(self, lag: Mapping[Partition, int]) -> None:
        """Set the lag in messages of the partitions that this process has now. Other processes show the others."""
        self._log_lag.clear()
        for partition, messages in lag.items():
            self._log_lag.labels(partition.topic, str(partition.index)).set(messages)

    def log_lag_seconds(self, seconds: Mapping[Partition, float]) -> None:
        """Set for how long the oldest message of these partitions has waited."""
        self._log_lag_seconds.clear()
        for partition, waited in seconds.items():
            self._log_lag_seconds.labels(partition.topic, str(partition.index)).set(waited)

    def log_bytes(self, size_bytes: int, bytes_max: int) -> None:
        """Set the bytes of the local log."""
        self._log_bytes.set(size_bytes)
        self._log_limit.set(bytes_max)

    def log_damaged(self, damages: int, lost_messages: int) -> None:
        """Set the damages that no operator has confirmed yet."""
        self._log_damages.set(damages)
        self._log_lost.set(lost_messages)

    def damaged_parts(self, parts: int) -> None:
        """Set how many damaged parts of the embedded store are detached and not removed yet."""
        self._store_damaged_parts.set(parts)

    def disk(self, free_bytes: int, reserve_bytes: int, size_bytes: int) -> None:
        """Set the figures of the data directory's disk."""
        self._disk_size.labels("data_dir").set(size_bytes)
        self._disk_free.labels("data_dir").set(free_bytes)
        self._disk_reserve.labels("data_dir").set(reserve_bytes)

    def up(self, part: str, up: bool) -> None:
        """Set whether a part works: broker, store, keys or redis."""
        self._up.labels(part).set(up)

    def restarted(self) -> None:
        """Note that this process takes the place of one that died."""
        self._restarts.inc()

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """Count an insert that is in the store."""
        self._writer_messages.labels(topic).inc(messages)
        self._writer_bytes.labels(topic).inc(size_bytes)
        self._writer_seconds.labels(topic).observe(seconds)

    def write_failed(self, topic: str, kind: str) -> None:
        """Count a failed insert. `kind` is unavailable (it is tried again) or refused (because of the data)."""
        self._writer_errors.labels(topic, kind).inc()

    def dead_lettered(self, topic: str, records: int) -> None:
        """Count records that the store refused, and that are kept as dead letters."""
        self._writer_dead_letters.labels(topic).inc(records)

    def store_refused(self, source: str, items: int) -> None:
        """Count items of an adapter that the store refused, and that are kept as dead letters."""
        self._store_refused.labels(source).inc(items)

    def dropped(self, records: int) -> None:
        """Count dead letters that the store refused."""
        self._writer_dropped.inc(records)

    def completed(self, topic: str, rows: int, in_part: int) -> None:
        """Count rows that an interrupted insert had left out: `rows` are stored now, `in_part` are missing."""
        self._writer_completed.labels(topic).inc(rows)
        self._writer_missing.labels(topic).inc(in_part)

    def newest_items(self, unix_s: Mapping[str, float], now: Callable[[], float]) -> None:
        """Set the time of each signal's newest stored item, in seconds since 1970. `now` is the same clock, for scrapes."""
        for signal, newest in unix_s.items():
            self._newest_age.labels(signal).set_function(Age(newest, now).seconds)

    def audits_scheduled(self) -> None:
        """Note that this process audits on a schedule. So the counters exist, with 0, before an audit has ended."""
        self._audits.start_with(AUDIT_RESULTS)

    def audited(self, result: AuditResult, seconds: float) -> None:
        """Count a scheduled audit that has ended after `seconds`."""
        self._audits.labels(result).inc()
        self._audit_seconds.labels().set(seconds)

    def audit_found(self, difference: int, from_unix_s: float) -> None:
        """Set the difference that all audits found, and its earliest time; 0 if that is unknown."""
        self._audit_difference.labels().set(difference)
        self._audit_from.clear()
        if from_unix_s:
            self._audit_from.labels().set(from_unix_s)

    def audit_judged(self, until_unix_s: float) -> None:
        """Set the time up to which a scheduled audit has judged all requests."""
        self._audit_time.labels().set(until_unix_s)

    def forget_audit(self) -> None:
        """Show no result of an audit: none has judged yet, or another process audits now."""
        for gauge in (self._audit_difference, self._audit_from, self._audit_time, self._audit_seconds):
            gauge.clear()

    def repeated(self) -> None:
        """Count a request that was answered from memory."""
        self._repeated.inc()

    def left_out(self, topic: str, messages: int) -> None:
        """Count messages that were not stored because they are repetitions."""
        self._left_out.labels(topic).inc(messages)

    def looked_up(self, fingerprints: int) -> None:
        """Count fingerprints that were looked up in the store."""
        self._looked_up.inc(fingerprints)

    # Exposition.

    def snapshot(self) -> Snapshot:
        """Return all metrics, as `collector.telemetry.aggregate` adds them up."""
        return [*self._of_the_process(), *[family.family() for family in self._families]]

    def expose(self, accept: str, snapshot: Snapshot | None = None) -> tuple[bytes, str]:
        """Return all metrics and their Content-Type: OpenMetrics if the header `accept` wants it, else Prometheus text.

        `snapshot` is shown in place of this process's own metrics.
        """
        content_type = content_type_of(accept)
        return self.text(self.shown() if snapshot is None else snapshot, content_type), content_type

    def text(self, snapshot: Snapshot, content_type: str) -> bytes:
        """Return a snapshot in one of the formats of `collector.telemetry.exposition`."""
        return self._writer.written(snapshot, content_type)

    def shown(self) -> Snapshot:
        """Return all metrics, with only the largest tenants by name."""
        return self.ranked(self.snapshot())

    def ranked(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with only the largest tenants by name. One thread at a time may call this."""
        return self._ranking.shown(snapshot)

    def _of_the_process(self) -> Snapshot:
        return [
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                {(sample.name, tuple(sample.labels.items())): sample.value for sample in metric.samples},
            )
            for metric in self._process.collect()
        ]

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        name = self._describe(f"infrasage_{name}_total", "counter", labels, help_)
        counter = Counter(name.removesuffix("_total"), help_, labels)
        self._families.append(counter)
        return counter

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        gauge = Gauge(self._describe(f"infrasage_{name}", "gauge", labels, help_), help_, labels)
        self._families.append(gauge)
        return gauge

    def _histogram(self, name: str, help_: str, bounds: Sequence[float], *labels: str) -> Histogram:
        histogram = Histogram(self._describe(f"infrasage_{name}", "histogram", labels, help_), help_, labels, bounds)
        self._families.append(histogram)
        return histogram

    def _seconds(self, name: str, help_: str, *labels: str) -> Histogram:
        return self._histogram(name, help_, _SECONDS_BUCKETS, *labels)

    def _describe(self, name: str, type_: str, labels: tuple[str, ...], meaning: str) -> str:
        self.described.append(Described(name, type_, labels, meaning))
        return name
