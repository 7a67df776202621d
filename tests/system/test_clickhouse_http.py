"""ClickHouse's HTTP protocol over the embedded store: with clickhouse-connect, with plain HTTP, and with two tenants."""

import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from support.processes.clients import new_key
from support.processes.program import Program, started

from collector.api.clickhouse.hello import hello, is_hello
from collector.tenancy.scopes import Scope

TENANTS = ("acme", "globex")
HELLO = "SELECT displayName(), version(), revision(), timezone()"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    place = tmp_path_factory.mktemp("clickhouse") / "data"
    with started(Program(place, tenants__keys_reload_s=0.1, store__http_port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def keys(program: Program) -> dict[str, str]:
    """A readonly key of each tenant, an admin's, and one that only sends; each tenant has sent a log record and a metric."""
    for tenant in TENANTS:
        sender = {"X-API-Key": new_key(program, tenant)}
        now = datetime.now(UTC).isoformat()
        records = [
            {"service_id": f"of-{tenant}", "type": "log", "body": f"secret of {tenant}", "timestamp": now},
            {"service_id": f"of-{tenant}", "metric_name": "m", "value": 1.5, "timestamp": now, "attributes": {"a": "b"}},
        ]
        answer = httpx.post(f"{program.http}/api/v1/telemetry/batch", json=records, headers=sender)
        assert answer.json()["queued"] == 2
    made = {tenant: new_key(program, tenant, Scope.READONLY) for tenant in TENANTS}
    return made | {"admin": new_key(program, "ops", Scope.ADMIN), "ingest": new_key(program, "acme")}


def address(program: Program) -> str:
    found = re.search(r"ClickHouse HTTP (http://127\.0\.0\.1:\d+)", program.printed)
    assert found is not None
    return found[1]


def connected(program: Program, key: str, **more: object) -> Client:
    port = int(address(program).rpartition(":")[2])
    return clickhouse_connect.get_client(host="127.0.0.1", port=port, username="grafana", password=key, **more)  # type: ignore[arg-type]  # typed each by itself


@pytest.mark.parametrize("compress", [True, False, "gzip", "zstd", "lz4"])
def test_clickhouse_connect(program: Program, keys: dict[str, str], compress: bool | str) -> None:
    """Native with types of every kind, parameters, all ways of compression, and more rows than a block has."""
    with connected(program, keys["acme"], compress=compress) as client:
        (row,) = client.query(
            "SELECT TenantId, ServiceName, MetricName, Value, Attributes, TimeUnix FROM otel_metrics_gauge"
            " WHERE ServiceName = {service:String}",
            parameters={"service": "of-acme"},
        ).result_rows
        assert ("acme", "of-acme", "m", 1.5, {"a": "b"}) == row[:5]
        assert abs((datetime.now(UTC) - row[5].replace(tzinfo=UTC)).total_seconds()) < 600
        numbers = client.query("SELECT number, toString(number) FROM numbers(100000)")
        assert 100_000 == len(numbers.result_rows)
        assert (99_999, "99999") == numbers.result_rows[-1]
        assert client.command("SELECT count() FROM otel_logs") == 1
        assert client.ping()


def test_a_key_reads_its_own_tenant(program: Program, keys: dict[str, str]) -> None:
    """The key decides, whatever the user is called, and however the key comes; scope admin reads all."""
    sql = "SELECT arraySort(groupUniqArray(TenantId)) FROM otel_logs"
    for tenant, expected in (("acme", "['acme']"), ("globex", "['globex']"), ("admin", "['acme','globex']")):
        key = keys[tenant]
        ways: list[dict[str, object]] = [
            {"auth": ("default", key)},
            {"headers": {"X-ClickHouse-User": "x", "X-ClickHouse-Key": key}},
            {"params": {"user": "x", "password": key}},
            {"headers": {"X-API-Key": key}},
            {"headers": {"Authorization": f"Bearer {key}"}},
        ]
        for way in ways:
            answer = httpx.post(address(program), content=sql, **way)  # type: ignore[arg-type]  # each of its own type
            assert (200, expected) == (answer.status_code, answer.text.strip()), way


def test_without_a_key_that_reads_nothing_is_answered(program: Program, keys: dict[str, str]) -> None:
    """403 with ClickHouse's number, the same for a wrong key as for none, and no word of the key."""
    for auth in (None, ("default", ""), ("default", "isage_wrong"), ("default", keys["ingest"])):
        answer = httpx.post(address(program), content="SELECT 1", auth=auth)
        assert (403, "516") == (answer.status_code, answer.headers["x-clickhouse-exception-code"])
        assert "AUTHENTICATION_FAILED" in answer.text
        assert auth is None or not auth[1] or auth[1] not in answer.text
    assert "Ok.\n" == httpx.get(f"{address(program)}/ping").text
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        connected(program, "isage_wrong")


def test_errors_are_as_clickhouse_sends_them(program: Program, keys: dict[str, str]) -> None:
    """The number in a header, the text in the body with the version, a status that fits; also where the form is binary."""
    cases = {
        "SELEC 1": (400, "62", "SYNTAX_ERROR"),
        "SELECT * FROM nowhere": (404, "60", "UNKNOWN_TABLE"),
        "SELECT x": (404, "47", "UNKNOWN_IDENTIFIER"),
        "SELECT throwIf(number = 99999) FROM numbers(100000)": (500, "395", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        "SELECT 1 FORMAT NoSuch": (500, "73", "UNKNOWN_FORMAT"),
        "SELECT * FROM merge('default', '.*')": (403, "164", "READONLY"),
    }
    for sql, (status, code, name) in cases.items():
        for format_ in ("TabSeparated", "Native"):
            answer = httpx.post(
                address(program), params={"default_format": format_}, content=sql, auth=("default", keys["acme"])
            )
            assert (status, code) == (answer.status_code, answer.headers["x-clickhouse-exception-code"]), sql
            assert re.fullmatch(rf"Code: {code}\. DB::Exception: .*\({name}\).*\(version [\d.]+\)\n", answer.text, re.DOTALL), (
                sql
            )
    answer = httpx.post(address(program), params={"database": "x"}, content="SELECT 1", auth=("default", keys["acme"]))
    assert (404, "81") == (answer.status_code, answer.headers["x-clickhouse-exception-code"])


def test_nothing_is_written(program: Program, keys: dict[str, str]) -> None:
    """No method and no scope writes anything."""
    for key in (keys["acme"], keys["admin"]):
        for sql in (
            "INSERT INTO otel_logs (TenantId) VALUES ('x')",
            "DROP TABLE otel_logs",
            "CREATE TABLE x (y Int8) ENGINE = Log",
        ):
            for method in ("GET", "POST"):
                answer = httpx.request(method, address(program), params={"query": sql}, auth=("default", key))
                assert answer.status_code == 403, (sql, answer.text)
    assert 501 == httpx.put(address(program), params={"query": "SELECT 1"}, auth=("default", keys["admin"])).status_code


def test_forms_that_clients_ask_for(program: Program, keys: dict[str, str]) -> None:
    """A form is chosen by FORMAT, by default_format or by a header, with content type, the query's name, and a summary."""
    auth = ("default", keys["acme"])
    for sent, format_, type_, body in (
        ({"params": {"query": "SELECT 1 AS x FORMAT JSONEachRow"}}, "JSONEachRow", "application/x-ndjson", b'{"x":1}\n'),
        ({"params": {"query": "SELECT 1 AS x", "default_format": "CSVWithNames"}}, "CSVWithNames", "text/csv", b'"x"\n1\n'),
        (
            {"params": {"query": "SELECT 1"}, "headers": {"X-ClickHouse-Format": "RowBinary"}},
            "RowBinary",
            "application/octet-stream",
            b"\x01",
        ),
        ({"params": {"query": "SELECT 1"}}, "TabSeparated", "text/tab-separated-values", b"1\n"),
    ):
        answer = httpx.get(address(program), auth=auth, **sent)  # type: ignore[arg-type]  # as above
        assert body == answer.content
        assert (format_, type_) == (answer.headers["x-clickhouse-format"], answer.headers["content-type"].partition(";")[0])
        assert answer.headers["x-clickhouse-query-id"]
        assert '"result_bytes"' in answer.headers["x-clickhouse-summary"]
    both = httpx.post(address(program), params={"query": "SELECT 'a'", "query_id": "mine"}, content=b" || 'b'", auth=auth)
    assert ("ab\n", "mine") == (both.text, both.headers["x-clickhouse-query-id"])


def test_a_port_in_use_is_one_warning(program: Program, make_program: object) -> None:
    """Everything else runs."""
    port = int(address(program).rpartition(":")[2])
    other = make_program(store__http_port=port)  # type: ignore[operator]  # a fixture
    other.start()
    assert "ClickHouse HTTP" not in other.printed
    assert 1 == other.log().count("ClickHouse's protocol is not answered")
    assert 200 == httpx.get(f"{other.http}/healthz").status_code


def test_the_hello_of_clickhouse_go() -> None:
    """The hello is at the client's revision: with block info, and from 54454 on a byte a column; it names revision 0."""
    for revision, custom in ((54453, b""), (54454, b"\x00"), (54488, b"\x00")):
        assert is_hello(HELLO, "Native", revision)
        block = hello("26.9.2.1", "UTC", revision)
        info, columns_and_rows, rest = block[:8], block[8:10], block[10:]
        assert (b"\x01\x00\x02\xff\xff\xff\xff\x00", b"\x04\x01") == (info, columns_and_rows)
        assert b"\x0arevision()\x06UInt32" + custom + struct.pack("<I", 0) in rest
        assert rest.endswith(b"\x0atimezone()\x06String" + custom + b"\x03UTC")
    assert not is_hello(HELLO, "Native", 0)
    assert not is_hello(HELLO, "TabSeparated", 54488)
    assert not is_hello("SELECT 1", "Native", 54488)
