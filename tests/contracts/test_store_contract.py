"""The store's contract, as a suite: an implementation is one more line in IMPLEMENTATIONS."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import batches
from support.batch_strategies import batches as any_batches
from support.clickhouse_server import OPTIONS
from support.clickhouse_server import server as any_server
from support.stored import items, stored

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import Store, StoreError, StoreRefusedData

_TOPICS = {"metrics": METRICS_TOPIC, "log_records": LOGS_TOPIC, "spans": TRACES_TOPIC}
_NUMBERS = itertools.count(1)


@contextmanager
def embedded(directory: Path) -> Iterator[Store]:
    with closing(ClickHouseStore.embedded(directory, OPTIONS)) as store:
        store.apply_schema()
        yield store


@contextmanager
def server(directory: Path) -> Iterator[Store]:
    with any_server(directory) as there, closing(there.store()) as store:
        store.apply_schema()
        yield store


IMPLEMENTATIONS = [pytest.param(embedded, id="embedded"), pytest.param(server, id="server")]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for the whole suite, since opening one takes a second: each test has batches and tenants of its own."""
    opened: Callable[[Path], AbstractContextManager[Store]] = request.param
    with opened(tmp_path_factory.mktemp("store")) as open_store:
        yield open_store


@pytest.fixture
def number() -> int:
    """A batch that no other test has."""
    return next(_NUMBERS)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{next(_NUMBERS)}"


def rows(store: Store, number: int, table: str = "otel_metrics_gauge") -> int:
    batch_id = batches.batch_id(number).hex()
    sql = f"SELECT count() FROM {table} WHERE replaceAll(toString(BatchId), '-', '') = '{batch_id}'"
    return int(store.query(sql, "TabSeparated"))


@pytest.mark.parametrize(
    ("topic", "make"),
    [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)],
    ids=["metrics", "logs", "traces"],
)
def test_every_field(store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatch]) -> None:
    """Every field of every OTLP signal is read back as it was sent, doubles and times to the bit."""
    batch = make(number, tenant)
    store.insert(topic, batch.SerializeToString(), "every-field")
    assert stored(store, tenant) == sorted(items(batch))


@pytest.mark.parametrize("signal", _TOPICS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_batch(store: Store, signal: str, data: st.DataObject) -> None:
    """Whatever the adapters may make of a request, the store gives back."""
    unique = next(_NUMBERS)
    batch = data.draw(any_batches(signal, f"any-{unique}", unique))
    payload = batch.SerializeToString()
    store.insert(_TOPICS[signal], payload, f"any/{unique}")
    assert stored(store, f"any-{unique}") == sorted(items(batch))


def test_same_token(store: Store, number: int) -> None:
    """The same payload under the same token is stored once."""
    payload = batches.gauge(number, 5).SerializeToString()
    for _ in range(3):
        store.insert(METRICS_TOPIC, payload, f"same/{number}")
    assert rows(store, number) == 5


@pytest.mark.parametrize(
    ("topic", "make", "tables"),
    [
        (METRICS_TOPIC, batches.metrics, {"otel_metrics_sum": 16, "otel_metrics_histogram": 2, "otel_metrics_summary": 2}),
        (LOGS_TOPIC, batches.logs, {"otel_logs": 4}),
        (TRACES_TOPIC, batches.traces, {"otel_traces": 7, "otel_traces_trace_id_ts": 1}),
    ],
    ids=["metrics", "logs", "traces"],
)
def test_same_token_everywhere(
    store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatch], tables: dict[str, int]
) -> None:
    """A token counts in every table that the payload reaches."""
    payload = make(number, tenant).SerializeToString()
    for _ in range(2):
        store.insert(topic, payload, f"everywhere/{number}")
    assert {table: rows(store, number, table) for table in tables} == tables


def test_other_token(store: Store) -> None:
    """Equal items under other tokens are other items: out of order and repeated samples are kept."""
    number = next(_NUMBERS)
    payload = batches.gauge(number, 2).SerializeToString()
    for token in ("first", "second"):
        store.insert(METRICS_TOPIC, payload, f"{token}/{number}")
    assert rows(store, number) == 4


def test_concatenated(store: Store, number: int) -> None:
    """Concatenated payloads are stored as one."""
    parts = [batches.gauge(number, 3, part=part).SerializeToString() for part in range(4)]
    store.insert(METRICS_TOPIC, b"".join(parts), f"concatenated/{number}")
    assert rows(store, number) == 12


def test_empty(store: Store) -> None:
    """Nothing can be stored too, and is then held."""
    store.insert(LOGS_TOPIC, b"", f"empty/{next(_NUMBERS)}")
    assert store.holds(LOGS_TOPIC, b"")


@pytest.mark.parametrize(
    ("topic", "make"),
    [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)],
    ids=["metrics", "logs", "traces"],
)
def test_holds(store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatch]) -> None:
    """A payload is held once it is stored, and not before."""
    payload = make(number, tenant).SerializeToString()
    assert not store.holds(topic, payload)
    store.insert(topic, payload, f"holds/{number}")
    assert store.holds(topic, payload)


def test_holds_part(store: Store, number: int) -> None:
    """Of two messages one is stored: together they are not held."""
    first, second = (batches.gauge(number, 3, part=part).SerializeToString() for part in range(2))
    store.insert(METRICS_TOPIC, first, f"part/{number}")
    assert store.holds(METRICS_TOPIC, first)
    assert not store.holds(METRICS_TOPIC, second)
    assert not store.holds(METRICS_TOPIC, first + second)


def test_holds_many(store: Store) -> None:
    """Thousands of small messages are looked up too."""
    payload = b"".join(batches.gauge(next(_NUMBERS), 1).SerializeToString() for _ in range(2_500))
    missing = batches.gauge(next(_NUMBERS), 1).SerializeToString()
    store.insert(METRICS_TOPIC, payload, f"many/{next(_NUMBERS)}")
    assert store.holds(METRICS_TOPIC, payload)
    assert not store.holds(METRICS_TOPIC, payload + missing)


def test_refused(store: Store, number: int) -> None:
    """Bytes that can't be read are refused, at whatever byte they end, and nothing of them is kept."""
    good = batches.gauge(number, 2).SerializeToString()
    for end in range(len(good) - 60, len(good), 7):
        with pytest.raises(StoreRefusedData):
            store.insert(METRICS_TOPIC, good[:end], f"refused/{number}/{end}")
    assert not store.holds(METRICS_TOPIC, good[:-1])
    assert rows(store, number) == 0
    store.insert(METRICS_TOPIC, good, f"refused/{number}")
    assert rows(store, number) == 2


def test_refused_batch_id(store: Store, number: int) -> None:
    """A batch id that is no UUID is the data's fault."""
    batch = batches.gauge(number, 1)
    batch.records[0].batch_id = b"seventeen bytes.."
    with pytest.raises(StoreRefusedData):
        store.insert(METRICS_TOPIC, batch.SerializeToString(), f"batch-id/{number}")


def test_days(store: Store, number: int) -> None:
    """Items of a hundred and more days at once are stored."""
    batch = batches.gauge(number, 110)
    for day, point in enumerate(batch.records[0].metrics[0].gauge.data_points):
        point.time_unix_nano += day * 24 * 3600 * 10**9
    store.insert(METRICS_TOPIC, batch.SerializeToString(), f"days/{number}")
    assert rows(store, number) == 110


def test_query_format(store: Store) -> None:
    """The answer is in the format asked for, unless the statement names one itself."""
    assert store.query("SELECT 1 AS a, 'x' AS b;", "JSONEachRow") == b'{"a":1,"b":"x"}\n'
    assert store.query("SELECT 1 AS a FORMAT TSVWithNames", "JSONEachRow") == b"a\n1\n"


def test_query_error(store: Store) -> None:
    """An error carries ClickHouse's message, on one line."""
    with pytest.raises(StoreError, match=r"UNKNOWN_IDENTIFIER") as caught:
        store.query("SELECT nonsense\nFROM otel_logs", "TabSeparated")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO otel_logs (Body) VALUES ('x')",
        "DROP TABLE otel_logs",
        "ALTER TABLE otel_logs DELETE WHERE 1",
        "TRUNCATE TABLE otel_logs",
        "CREATE TABLE mine (a Int8) ENGINE = Memory",
        "SET readonly = 0",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "USE system",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1; DROP TABLE otel_logs",
        "WITH 1 AS x INSERT INTO otel_logs (Body) SELECT 'x'",
        "SELECT 1 INTO OUTFILE 'written.txt'",
        "SELECT 1 /* INTO */ INTO -- comment\n OUTFILE 'written.txt'",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT file('/etc/hostname')",
        "SELECT `file`('/etc/hostname')",
        "SELECT * FROM Python(rows)",
        "SELECT * FROM url('http://127.0.0.1:9/x', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:9/bucket/key', 'CSV', 'a String')",
        "SELECT * FROM executable('true', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:9', system.one)",
        "SELECT * FROM sqlite('/tmp/x.db', 't')",
        "SELECT 1 WHERE 'a' IN (SELECT line FROM file('/etc/hostname', 'LineAsString'))",
        "SELECT 1 FORMAT",
        "",
    ],
)
def test_query_reads_only(store: Store, sql: str) -> None:
    """What writes, changes settings, or reaches files and the network is refused."""
    with pytest.raises(StoreError):
        store.query(sql, "TabSeparated")
    assert not Path("written.txt").exists()
    assert store.query("SELECT count() > 0 FROM otel_logs", "TabSeparated") in (b"0\n", b"1\n")


def test_view(store: Store, number: int, tenant: str) -> None:
    """The view telemetry shows every item once, under the API's own names."""
    store.insert(METRICS_TOPIC, batches.metrics(number, tenant).SerializeToString(), f"view/{number}/m")
    store.insert(LOGS_TOPIC, batches.logs(number, tenant).SerializeToString(), f"view/{number}/l")
    store.insert(TRACES_TOPIC, batches.traces(number, tenant).SerializeToString(), f"view/{number}/t")
    where = f"FROM telemetry WHERE tenant = '{tenant}'"
    counts = store.query(f"SELECT type, count() {where} GROUP BY type ORDER BY type", "TabSeparated")
    assert counts == b"log\t4\nmetric\t39\ntrace\t7\n"
    span = store.query(
        f"SELECT service_id, metric_name, value, body, trace_id, timestamp, attributes['http.route'] {where} "
        "AND metric_name != '' AND type = 'trace'",
        "TabSeparated",
    )
    assert span == b"payment-api\tGET /pay\t1234567\t\t" + b"ab" * 16 + b"\t2026-04-10 12:00:00.123456789\t/pay\n"
    log = store.query(f"SELECT metric_name, value, body, trace_id {where} AND metric_name = 'deploy'", "TabSeparated")
    assert log == b"deploy\t\\N\tpayment failed:\\n\\tcard declined \xe2\x98\x83\t" + b"ab" * 16 + b"\n"
    point = store.query(
        f"SELECT value, trace_id, attributes['point'] {where} AND metric_name = 'gauge.name' AND attributes['point'] = '3'",
        "TabSeparated",
    )
    assert point == b"-1e300\t" + b"ab" * 16 + b"\t3\n"
    without = store.query(f"SELECT count() {where} AND metric_name = 'gauge.name' AND value IS NULL", "TabSeparated")
    assert without == b"1\n"


def test_ping(store: Store) -> None:
    """It answers."""
    store.ping()
