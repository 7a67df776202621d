"""A server as the store, beyond the contract: what it is asked for, what is said when it fails, TLS, timeouts, going away."""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches
from support.ports import free_port
from support.processes.clickhouse_server import OPTIONS, PASSWORD, USER, Bridge, Server, bridge, server
from support.processes.commands import pause, resume
from support.records import encoded
from support.waiting import until

from collector.broker.contract import METRICS_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreError, StoreMisconfigured, StoreUnavailable
from collector.store.insert import SETTINGS, format_text
from collector.store.migrations import DEAD_LETTERS_FORMAT, LOGS_FORMAT, METRICS_FORMAT, TRACES_FORMAT, migrations
from collector.store.options import QueryLimits, StoreOptions

# What proxies allow a request's first line, by default, is 8 KiB or more.
URI_BYTES_MAX = 1024
TOO_MANY_PARTS = {"do": "error", "code": 252, "text": "Too many parts (3000). (TOO_MANY_PARTS)"}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One bridge for the tests that leave it alive; each test has messages, or databases, of its own."""
    with bridge(tmp_path_factory.mktemp("bridge")) as made:
        with closing(made.store()) as store:
            store.apply_schema()
        yield made


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server at CLICKHOUSE_URL, if there is one."""
    with server(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture
def store(there: Bridge) -> Iterator[ClickHouseStore]:
    there.faults()
    with closing(there.store()) as opened:
        yield opened


_PAYLOADS = iter(range(1, 10**6))


def payload(points: int = 3) -> tuple[bytes, str]:
    """One that no other test has, and a query that counts its rows."""
    number = next(_PAYLOADS)
    batch_id = batches.batch_id(number).hex()
    count = f"SELECT count() FROM otel_metrics_gauge WHERE BatchId = toUUID('{batch_id}')"
    return encoded(batches.gauge(number, points)), count


def rows(store: ClickHouseStore, count: str) -> int:
    return int(store.query(count, "TabSeparated"))


# At the start: what somebody has to change, and what is only away.


def refused(there: Server, **changes: Any) -> str:
    """What the start says, as a reason to end."""
    with closing(there.store(**changes)) as store, pytest.raises(StoreMisconfigured) as caught:
        store.apply_schema()
    said = str(caught.value)
    assert PASSWORD not in said
    assert "\n" not in said
    return said


def test_wrong_password(anywhere: Server) -> None:
    """The error names server and user, and not the password."""
    said = refused(anywhere, password="wr0ng")
    assert f"ClickHouse at {anywhere.url}, user {anywhere.user}" in said
    assert "AUTHENTICATION_FAILED" in said
    assert "wr0ng" not in said


def test_wrong_user(anywhere: Server) -> None:
    assert "user nobody" in refused(anywhere, user="nobody")


@pytest.mark.parametrize(
    "url", ["http://user:pässword@127.0.0.1:1", "127.0.0.1:8123", "ftp://127.0.0.1", "http://h:99999", "http://"]
)
def test_no_url(there: Bridge, url: str) -> None:
    """It is said what a URL must be; the wrong one, which may hold a password, is not repeated."""
    said = refused(there, url=url)
    assert "http://HOST:PORT" in said
    assert "pässword" not in said


def test_another_service(tmp_path: Path) -> None:
    """What answers is not ClickHouse: said at the start, not found out by lost inserts."""
    port = free_port()
    script = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    other = subprocess.Popen(["python", "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        said = "Connection refused"
        while "Connection refused" in said:
            with pytest.raises(StoreUnavailable) as caught:
                ClickHouseStore.server(f"http://127.0.0.1:{port}").apply_schema()
            said = str(caught.value)
            assert time.monotonic() < until
        assert isinstance(caught.value, StoreMisconfigured)
        assert "the answer is not from ClickHouse's HTTP interface" in said
    finally:
        other.kill()
        other.wait()


def test_away() -> None:
    """A server that is away is no reason to end: every call says so, in a line, at once."""
    store = ClickHouseStore.server(f"http://127.0.0.1:{free_port()}", user=USER, password=PASSWORD)
    for call in (
        store.apply_schema,
        store.ping,
        lambda: store.insert(METRICS_TOPIC, [b""], "t"),
        lambda: store.query("SELECT 1", "TSV"),
    ):
        with pytest.raises(
            StoreUnavailable, match=r"ClickHouse at http://127\.0\.0\.1:\d+, user infrasage.*Connection refused"
        ) as caught:
            call()
        assert not isinstance(caught.value, StoreMisconfigured)
    store.close()


def test_comes_later(tmp_path: Path) -> None:
    """Away when the program started: the first insert that finds the server makes database and tables."""
    data, count = payload()
    there = Bridge(url="", directory=tmp_path, port=free_port())
    there.url = f"http://127.0.0.1:{there.port}"
    with closing(there.store()) as store:
        with pytest.raises(StoreUnavailable):
            store.insert(METRICS_TOPIC, [data], "t")
        there.start()
        try:
            store.insert(METRICS_TOPIC, [data], "t")
            assert store.holds(METRICS_TOPIC, data)
            assert rows(store, count) == 3
        finally:
            there.kill()


@pytest.mark.parametrize("name", ["fresh", "it's `odd` \\ ☃"])
def test_database(there: Bridge, name: str) -> None:
    """The database is made if there is none, whatever its name; the second time nothing is."""
    data, count = payload()
    for applied in (len(migrations()), 0):
        with closing(there.store(database=name)) as store:
            assert len(store.apply_schema().migrations) == applied
            store.insert(METRICS_TOPIC, [data], "t")
            assert rows(store, count) == 3


# The requests to the server.


def test_up_to_date_is_only_read(there: Bridge) -> None:
    """A start with nothing to change runs no statement that changes: on a cluster each would wait for every server."""
    before = len(there.seen()["requests"])
    with closing(there.store()) as store:
        assert store.apply_schema() == ((), ())
    statements = [request["statement"] for request in there.seen()["requests"][before:]]
    assert statements
    assert [one for one in statements if not re.match(r"SELECT|EXISTS", one)] == []


def test_insert_settings(there: Bridge, store: ClickHouseStore) -> None:
    """An insert says all that decides how often its rows are stored, and nothing of it in the URL, which any proxy passes."""
    data, _ = payload()
    store.insert(METRICS_TOPIC, [data], "the 'token'\\/0-1")
    request = there.seen()["requests"][-1]
    assert request["settings"] == {
        **{name: str(value) for name, value in SETTINGS.items()},
        "max_memory_usage": str(StoreOptions().insert_memory_bytes_max),
        "insert_deduplication_token": "the 'token'\\/0-1",
        "format_schema_source": "string",
        "format_schema": format_text(METRICS_FORMAT),
        "format_schema_message_name": "Record",
    }
    parameters = request["parameters"]
    assert (parameters["wait_end_of_query"], parameters["database"]) == ("1", there.database)
    assert not parameters.keys() & (request["settings"].keys() | {"session_id", "query"})
    assert request["uri_bytes"] < URI_BYTES_MAX


def test_data_that_begins_like_the_end_of_a_statement(anywhere: Server) -> None:
    """A payload of 59 bytes begins, with its length, with a semicolon: behind the statement's line that ends nothing."""
    batch = TelemetryBatchV1()
    record = batch.records.add(batch_id=batches.batch_id(next(_PAYLOADS)))
    metric = record.metrics.add(name="m")
    metric.gauge.data_points.add(time_unix_nano=batches.NOW)
    metric.name = "m" * (ord(";") - len(encoded(batch)) + 1)
    data = encoded(batch)
    assert len(data) == ord(";")
    with closing(anywhere.store()) as store:
        store.insert(METRICS_TOPIC, [data], f"semicolon {record.batch_id.hex()}")
        stored = f"SELECT MetricName FROM otel_metrics_gauge WHERE BatchId = toUUID('{record.batch_id.hex()}')"
        assert store.query(stored, "TabSeparated").decode().strip() == metric.name


def test_quorum(there: Bridge) -> None:
    """Asked for, an insert counts only once so many replicas have it; what one of them has is no proof of that."""
    data, _ = payload()
    with closing(there.store(insert_quorum="auto")) as store:
        store.insert(METRICS_TOPIC, [data], "quorum")
        assert not store.holds(METRICS_TOPIC, data)
    assert there.seen()["requests"][-1]["settings"]["insert_quorum"] == "auto"


def test_an_insert_is_as_good_as_a_ping(tmp_path: Path) -> None:
    """A server that has taken one since the last ping is not asked; that it went away afterwards is found out by the next."""
    with bridge(tmp_path) as there, closing(there.store()) as store:
        data, _ = payload()
        store.insert(METRICS_TOPIC, [data], "as good")
        there.kill()
        store.ping()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                store.ping()


def test_connections_are_kept(there: Bridge) -> None:
    """Any number of calls, one after another, share one connection."""
    with closing(there.store()) as store:
        store.ping()
        before = there.seen()["connections"]
        for number in range(20):
            data, _ = payload()
            store.insert(METRICS_TOPIC, [data], f"kept/{number}")
            assert store.holds(METRICS_TOPIC, data)
        assert there.seen()["connections"] == before + 1  # the question's own


# When it fails.


@pytest.mark.parametrize(
    "fault",
    [
        TOO_MANY_PARTS,
        {"do": "error", "code": 241, "text": "(total) memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)"},
        {"do": "error", "code": 202, "text": "Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)"},
        {"do": "error", "code": 209, "text": "Timeout exceeded while reading from socket. (SOCKET_TIMEOUT)"},
        {"do": "error", "code": 243, "text": "Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)"},
        {"do": "error", "code": 242, "text": "Table is in readonly mode (replica path: /x). (TABLE_IS_READ_ONLY)"},
        {"do": "error", "code": 319, "text": "Unknown quorum status. (UNKNOWN_STATUS_OF_INSERT)"},
        {"do": "error", "code": 999, "text": "Coordination error: Connection loss. (KEEPER_EXCEPTION)"},
        {"do": "drop"},
        {"do": "drop", "when": "after"},
        {"do": "page"},
    ],
    ids=lambda fault: re.sub(r".*\((\w+)\)$", r"\1", fault.get("text", "")) or f"{fault['do']} {fault.get('when', 'before')}",
)
def test_failures_pass(there: Bridge, store: ClickHouseStore, fault: dict[str, object]) -> None:
    """Overloaded, without a quorum, gone before or after it had the rows, for a moment not ClickHouse at all: the insert is
    repeated, and the rows are there once."""
    data, count = payload()
    there.faults(fault)
    with pytest.raises(StoreUnavailable, match="ClickHouse at ") as caught:
        store.insert(METRICS_TOPIC, [data], f"passes/{count}")
    assert not isinstance(caught.value, StoreMisconfigured)
    store.insert(METRICS_TOPIC, [data], f"passes/{count}")
    assert rows(store, count) == 3


@pytest.mark.parametrize("place", ["127.0.0.1", "[::1]"])
def test_a_server_that_hangs_is_not_waited_for(place: str) -> None:
    """It takes connections and answers none, as one that is stopped or overloaded does: a start goes on without it."""
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    with socket.create_server((place.strip("[]"), 0), family=family) as hung:
        url = f"http://{place}:{hung.getsockname()[1]}/below"
        with closing(ClickHouseStore.server(url, connect_timeout_s=0.2)) as store:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"no answer to a ping within 0\.2 s \(clickhouse\.connect_timeout_s\)"):
                store.apply_schema()
            assert time.monotonic() - began < 30


def test_a_password_that_changes(there: Bridge, store: ClickHouseStore) -> None:
    """Later on, a refusal is waited for like any other failure."""
    data, count = payload()
    there.faults({"do": "error", "code": 516, "text": "Authentication failed. (AUTHENTICATION_FAILED)"})
    with pytest.raises(StoreUnavailable, match="AUTHENTICATION_FAILED"):
        store.insert(METRICS_TOPIC, [data], "t")
    store.insert(METRICS_TOPIC, [data], "t")
    assert rows(store, count) == 3


def test_overtaken(there: Bridge) -> None:
    """An insert that was abandoned is still running when it is repeated: whichever is first, the rows are there once."""
    data, count = payload(20_000)
    there.faults({"do": "hold"})
    with closing(there.store(request_timeout_s=1)) as hasty, closing(there.store()) as patient:
        with pytest.raises(StoreUnavailable, match="timed out"):
            hasty.insert(METRICS_TOPIC, [data], "overtaken")
        assert not patient.holds(METRICS_TOPIC, data)
        assert there.is_busy()
        with ThreadPoolExecutor(1) as another:
            repeated = another.submit(patient.insert, METRICS_TOPIC, [data], "overtaken")
            there.release()
            repeated.result()
        until(lambda: not there.is_busy())
        assert rows(patient, count) == 20_000


def test_what_is_missing_is_completed(there: Bridge, store: ClickHouseStore) -> None:
    """In sessions of its own, whose answers are lost again and again: what was there stays once, and so does what was not."""
    stored, count = payload(300)
    missing, count_missing = payload(200)
    store.insert(METRICS_TOPIC, [stored], "stored")
    for on in ("CREATE TEMP", "INSERT", "SELECT BATCHID", "INSERT INTO OTEL", "DROP TEMP"):
        there.faults({"do": "drop", "when": "after", "on": on, "times": 3})  # the client repeats a statement once
        with pytest.raises(StoreUnavailable):
            store.complete(METRICS_TOPIC, stored + missing, "token")
    there.faults()
    assert ({}, {}) == store.complete(METRICS_TOPIC, stored + missing, "token")
    assert (300, 200) == (rows(store, count), rows(store, count_missing))


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """The server is killed while it inserts; when it is back, the repeated insert completes it."""
    with bridge(tmp_path) as there, closing(there.store(StoreOptions())) as store:
        store.apply_schema()
        expected: dict[str, int] = {}
        for seconds in (0.02, 0.05, 0.1):
            data, count = payload(60_000)
            there.faults({"do": "die", "seconds": seconds})
            with suppress(StoreUnavailable):  # it dies in the insert, or just after
                store.insert(METRICS_TOPIC, [data], count)
            there.wait()
            there.start()
            store.insert(METRICS_TOPIC, [data], count)
            expected[count] = 60_000
        assert expected == {count: rows(store, count) for count in expected}


def test_a_frozen_server(tmp_path: Path) -> None:
    """A request that a server takes and does not answer fails after the timeout; repeated later, it is stored once."""
    with bridge(tmp_path) as there, closing(there.store()) as patient, closing(there.store(request_timeout_s=3)) as store:
        patient.apply_schema()
        store.apply_schema()  # connects
        pause(there.pid())
        try:
            data, count = payload()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.insert(METRICS_TOPIC, [data], "frozen")
            assert time.monotonic() - began < 50  # others wait for 60 s
        finally:
            resume(there.pid())
        patient.insert(METRICS_TOPIC, [data], "frozen")
        assert rows(patient, count) == 3


# Queries.


def test_query_limits(anywhere: Server) -> None:
    """A query past a limit fails, and the next one is answered."""
    limits = QueryLimits(time_max_s=1, memory_bytes_max=2**24, result_rows_max=10, result_bytes_max=10_000)
    with closing(anywhere.store(OPTIONS._replace(queries=limits))) as store:
        store.apply_schema()
        for sql, message in {
            "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1": "TIMEOUT_EXCEEDED",
            "SELECT groupArray(number) FROM numbers(100000000)": "MEMORY_LIMIT_EXCEEDED",
            "SELECT number FROM numbers(11)": "TOO_MANY_ROWS",
            "SELECT repeat('x', 10000 + number) FROM numbers(9)": "TOO_MANY_ROWS_OR_BYTES",
        }.items():
            with pytest.raises(StoreError, match=message):
                store.query(sql, "TabSeparated")
        assert store.query("SELECT 1", "TabSeparated") == b"1\n"


def test_close_ends_our_queries_only(there: Bridge) -> None:
    """Closing does not wait for a long query of ours, and leaves everybody else's alone."""
    long_query = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = {}"
    ours, others = there.store(), there.store()
    ended: dict[str, str] = {}

    def ask(name: str, store: ClickHouseStore, sql: str) -> None:
        try:
            store.query(sql, "TabSeparated")
        except StoreError as error:
            ended[name] = str(error)

    threads = [
        threading.Thread(target=ask, args=("ours", ours, long_query.format(1))),
        threading.Thread(target=ask, args=("others", others, long_query.format(2))),
    ]
    for thread in threads:
        thread.start()
    running = "SELECT count() FROM system.processes WHERE query LIKE '%) = {}%' AND query NOT LIKE '%system%'"
    with closing(there.store()) as watching:
        until = time.monotonic() + 20
        while [watching.query(running.format(number), "TSV") for number in (1, 2)] != [b"1\n", b"1\n"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        ours.close()
        threads[0].join(10)
        assert "QUERY_WAS_CANCELLED" in ended["ours"]
        assert watching.query(running.format(2), "TSV") == b"1\n"
    others.close()
    threads[1].join(10)


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority of our own, ca.pem, and what it vouches for: server.pem, server.key."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=bridge")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.pem", "-days", "2", "-extfile", "names"),
    )
    return directory


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls(tmp_path: Path, certificates: Path) -> None:
    """HTTPS works with the authority that vouches for the server. If the server can't be trusted, the error says so."""
    data, count = payload()
    secure = {"certificate": certificates / "server.pem", "key": certificates / "server.key"}
    with bridge(tmp_path, ca_file=certificates / "ca.pem", **secure) as there:
        with closing(there.store()) as store:
            store.apply_schema()
            store.insert(METRICS_TOPIC, [data], "tls")
            assert store.holds(METRICS_TOPIC, data)
            assert rows(store, count) == 3
        with closing(there.store(ca_file=None, verify=False)) as store:
            assert rows(store, count) == 3
        assert "CERTIFICATE_VERIFY_FAILED" in refused(there, ca_file=None)
        assert "CERTIFICATE_VERIFY_FAILED" in refused(there, url=there.url.replace("127.0.0.1", "localhost"))
        plain = there.url.replace("https", "http")
        with closing(there.store(url=plain)) as store, pytest.raises(StoreUnavailable):
            store.apply_schema()


def test_tls_to_a_plain_port(there: Bridge) -> None:
    assert "WRONG_VERSION_NUMBER" in refused(there, url=there.url.replace("http", "https"))


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_ca_file(there: Bridge, tmp_path: Path, content: str | None) -> None:
    """Certificates that can't be read are named."""
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    assert f"cannot read the certificates in {path}" in refused(there, ca_file=path)


@pytest.mark.parametrize(
    ("path", "first"),
    [
        *((path, "Resource resource=1;") for path in (METRICS_FORMAT, LOGS_FORMAT, TRACES_FORMAT)),
        (DEAD_LETTERS_FORMAT, "Letter letter=1;"),
    ],
    ids=["metrics", "logs", "traces", "dead letters"],
)
def test_landing_format_is_the_same_format(path: Path, first: str) -> None:
    """Without comments and spaces it has the same content as the file, and parses."""
    text = format_text(path)
    assert "//" not in text
    assert text.startswith(f'syntax="proto3";message Envelope{{message Record{{{first}')
