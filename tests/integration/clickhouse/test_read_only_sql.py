"""What the query command allows: as ClickHouse's own parser has it, embedded and on a server."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from support.processes.clickhouse_server import OPTIONS
from support.processes.clickhouse_server import server as any_server

from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreError
from collector.store.options import QueryLimits


@contextmanager
def embedded(directory: Path) -> Iterator[ClickHouseStore]:
    with closing(ClickHouseStore.embedded(directory / "store", OPTIONS)) as store:
        yield store


@contextmanager
def server(directory: Path) -> Iterator[ClickHouseStore]:
    with any_server(directory) as there, closing(there.store()) as store:
        yield store


@pytest.fixture(scope="module", params=[pytest.param(embedded, id="embedded"), pytest.param(server, id="server")])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    """With its tables: one for all tests, since they only read."""
    opened: Callable[[Path], AbstractContextManager[ClickHouseStore]] = request.param
    with opened(tmp_path_factory.mktemp("store")) as open_store:
        open_store.apply_schema()
        yield open_store


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that no query may read."""
    path = tmp_path_factory.mktemp("elsewhere") / "secret.csv"
    path.write_text("swordfish\n")
    return path


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT 1", "1"),
        ("  select 1 ; ;\n", "1"),
        ("SELECT 1 -- the end", "1"),
        ("/* first */ SELECT 1 # comment", "1"),
        ("(SELECT 1) UNION ALL (SELECT 1)", "1\n1"),
        ("SELECT 1 INTERSECT SELECT 1", "1"),
        ("WITH 1 AS x SELECT x", "1"),
        ("FROM numbers(2) SELECT number", "0\n1"),
        ("SELECT 1 FORMAT JSONCompactColumns", "[\n\t[1]\n]"),
        ("SELECT 1 format CSV;", "1"),
        ("SELECT ';' || 'it''s' || 'a\\'b' || $x$ ; $x$", "\";it'sa'b ; \""),
        ("SELECT 'INTO OUTFILE', 'file('", '"INTO OUTFILE","file("'),
        ("SELECT 1 AS file, 'FORMAT CSV' AS `INTO OUTFILE` FORMAT CSVWithNames", '"file","INTO OUTFILE"\n1,"FORMAT CSV"'),
        ("WITH file AS (SELECT 7 AS x) SELECT x FROM file", "7"),
        ("SELECT file.x AS file FROM (SELECT 7 AS x) AS file", "7"),
        ("SELECT url FROM (SELECT 'u' AS url)", '"u"'),
        ("SELECT * APPLY(toString) APPLY(length) FROM (SELECT 100 AS x)", "3"),
        ("SELECT arrayMap(toString, [1])", "\"['1']\""),
        ("SELECT `naïve ☃` FROM (SELECT 'ü\\n' AS `naïve ☃`)", '"ü\n"'),
        ("SELECT profileless FROM (SELECT 1 AS profileless)", "1"),
        ("SELECT format('{}-{}', 'a', 'b')", '"a-b"'),
        ("SELECT arrayJoin([1, 2]) AS x ORDER BY x DESC", "2\n1"),
        ("SELECT sum(number) OVER (ORDER BY number) FROM numbers(3)", "0\n1\n3"),
        ("SELECT count() FROM numbers(3) AS a JOIN numbers(2) AS b USING (number)", "2"),
        ("SELECT arrayMap(x -> x + 1, [1])[1], (1, 'a').2, CAST('1' AS UInt8), 1.5::Decimal(9, 2)", '2,"a",1,1.5'),
        ("SELECT * FROM view(SELECT 1)", "1"),
        ("SELECT * FROM values('a Int8', 1, 2)", "1\n2"),
        ("SELECT * FROM generate_series(1, 2)", "1\n2"),
        ("SELECT * FROM merge('system', '^one$')", "0"),
        ("SELECT count() FROM telemetry", "0"),
        ("SELECT count() FROM system.tables WHERE name = 'otel_logs'", "1"),
        ("SHOW TABLES LIKE 'otel_logs'", '"otel_logs"'),
    ],
)
def test_reading(store: ClickHouseStore, sql: str, answer: str) -> None:
    """What only reads the store is answered, with one FORMAT clause, in the words of the statement."""
    assert answer == store.query(sql, "CSV").decode().strip("\n")


def test_columns_keep_their_names(store: ClickHouseStore) -> None:
    """A column without a name has the one that ClickHouse gives it, whatever has read the statement before."""
    assert store.query("SELECT 1 + 0x10, 'a', [1, 2]", "CSVWithNames") == b'"plus(1, 16)","\'a\'","[1, 2]"\n17,"a","[1,2]"\n'


def test_describing(store: ClickHouseStore) -> None:
    """SHOW CREATE, DESCRIBE and EXPLAIN say what the tables are."""
    assert b"CREATE TABLE" in store.query("SHOW CREATE TABLE otel_logs", "TSVRaw")
    assert b"Timestamp" in store.query("DESCRIBE TABLE otel_logs", "TSVRaw")
    assert b"otel_logs" in store.query("EXPLAIN SYNTAX SELECT Body FROM otel_logs", "TSVRaw")
    assert b"SelectWithUnionQuery" in store.query("EXPLAIN AST SELECT 1", "TSVRaw")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "Empty query"),
        (" -- nothing\n;", "Empty query"),
        ("INSERT INTO otel_logs (Body) VALUES ('x')", "not INSERT"),
        ("INSERT INTO otel_logs (Body) SELECT 'x'", "not INSERT"),
        ("INSERT INTO FUNCTION null('a Int8') SELECT 1", "not INSERT"),
        ("CREATE TABLE t (a Int8) ENGINE = Memory", "not CREATE"),
        ("kill query where 1", "not KILL"),
        ("SYSTEM SHUTDOWN", "not SYSTEM"),
        ("SET max_threads = 1", "not SET"),
        ("USE system", "not USE"),
        ("EXISTS TABLE `/etc/passwd`", "not EXISTS"),
        ("SELECT 1; SELECT 2", "Multi-statements are not allowed"),
        ("SELEKT 1", "Syntax error"),
        ("SELECT 1 SETTINGS max_threads = 3", "READONLY"),
    ],
)
def test_refused(store: ClickHouseStore, sql: str, message: str) -> None:
    """A statement that does more than read is refused by its name; what can't be parsed, in ClickHouse's words."""
    with pytest.raises(StoreError, match=message) as refused:
        store.query(sql, "CSV")
    assert "formatQuery" not in str(refused.value)


SPELLINGS = [
    "SELECT file('{path}')",
    "SELECT `fil\\x65`('{path}')",
    "SELECT `\\x66\\x69\\x6c\\x65`('{path}')",
    "SELECT \"file\" ('{path}')",
    "SELECT \"fi\\154e\"('{path}'), file('{path}')",
    "SELECT file/**/('{path}')",
    "SELECT file -- x\n ('{path}')",
    "SELECT “file”('{path}')",
    "SELECT ‘'’, file('{path}'), ‘'’",
    "SELECT 1 WHERE notEmpty(file('{path}'))",
    "SELECT arrayMap(x -> file(x), ['{path}'])",
    "SELECT (SELECT file('{path}'))",
    "SELECT * FROM (SELECT upper(file('{path}')))",
    "SELECT * FROM view(SELECT file('{path}'))",
    "WITH x AS (SELECT file('{path}') AS y) SELECT y FROM x",
    "WITH file('{path}') AS x SELECT x",
    "WITH ((p) -> file(p)) AS f SELECT f('{path}')",
    "SELECT '{path}' AS p, file(p)",
    "SELECT 1 UNION ALL SELECT length(file('{path}'))",
    "SELECT 1 ORDER BY file('{path}')",
    "SELECT count() FROM numbers(1) GROUP BY file('{path}') WITH TOTALS",
    "SELECT number FROM numbers(1) LIMIT length(file('{path}'))",
    "SELECT file('{path}') FORMAT JSON",
    "EXPLAIN SELECT file('{path}')",
    "DESCRIBE (SELECT file('{path}'))",
    "SELECT '{path}'.file()",
    "SELECT * APPLY(file) FROM (SELECT '{path}' AS x)",
    "SELECT * APPLY file FROM (SELECT '{path}' AS x)",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '{path}' AS x)",
    "SELECT COLUMNS('x') APPLY(`fil\\x65`) FROM (SELECT '{path}' AS x)",
    "SELECT * REPLACE(file(x) AS x) FROM (SELECT '{path}' AS x)",
    "SELECT arrayMap(file, ['{path}'])",
    "SELECT arrayMap(`fil\\x65`, ['{path}'])",
    "SELECT arrayFold(file, ['{path}'], '')",
    "SELECT arrayMap('{path}' AS p, file AS f, [1])",
    "WITH file AS f SELECT arrayMap(f, ['{path}'])",
    "SHOW TABLES WHERE notEmpty(file('{path}'))",
    "SHOW COLUMNS FROM otel_logs WHERE file('{path}') != ''",
    "SHOW DATABASES WHERE arrayExists(file, ['{path}'])",
    "SELECT 1 AS x ORDER BY x WITH FILL FROM 0 TO length(file('{path}'))",
    "SELECT 1 AS x, 'a' AS y ORDER BY x WITH FILL TO 3 INTERPOLATE (y AS file('{path}'))",
    "SELECT sum(1) OVER (ORDER BY file('{path}'))",
    "SELECT count() FROM numbers(1) AS a JOIN numbers(1) AS b ON a.number = b.number AND notEmpty(file('{path}'))",
    "SELECT 1 LIMIT 1 BY file('{path}')",
    "SELECT 1 GROUP BY GROUPING SETS ((file('{path}')))",
    "SELECT 1 QUALIFY notEmpty(file('{path}'))",
    "SELECT 1 FROM numbers(1) ARRAY JOIN [file('{path}')] AS z",
    "SELECT * FROM file('{path}', 'CSV', 'a String')",
    "SELECT * FROM `FILE`('{path}', 'CSV', 'a String')",
    "DESCRIBE TABLE file('{path}')",
    "SELECT * FROM filesystem('{path}')",
    "SELECT * FROM `{path}`",
    "SELECT * FROM '{path}'",
    "SELECT * FROM default.`{path}`",
    "DESCRIBE TABLE `{path}`",
    "SELECT 'x' IN `{path}`",
    "SELECT * FROM cluster('default', file('{path}', 'CSV', 'a String'))",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('{path}')))",
    "SELECT * FROM eval('SELECT file(\\'{path}\\')')",
    "SELECT * FROM loop(file('{path}', 'CSV', 'a String')) LIMIT 1",
    "SELECT * FROM merge(file('{path}', 'CSV', 'a String'), 'x')",
    "SELECT * FROM sqlite('{path}', 't')",
    "SELECT * FROM executable('{path}', 'TSV', 'a String')",
    "SELECT * FROM python(secret)",
    "SELECT * FROM `Pyth\\x6fn`(secret)",
]


@pytest.mark.parametrize("sql", SPELLINGS)
def test_no_spelling_reads_a_file(store: ClickHouseStore, secret: Path, sql: str) -> None:
    """However the function is written, and wherever it is, the file is not read."""
    with pytest.raises(StoreError) as refused:
        store.query(sql.format(path=secret), "CSV")
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize("sql", SPELLINGS[:2])
def test_the_engine_would_read_it(store: ClickHouseStore, secret: Path, sql: str, request: pytest.FixtureRequest) -> None:
    """Readonly mode alone lets `file` through where the engine is embedded: what the test before holds, it holds by itself."""
    if request.node.callspec.params["store"] is not embedded:
        pytest.skip("a server reads files of its own directory only")
    assert b"swordfish" in store.read(sql.format(path=secret), "CSV")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM `ur\\x6c`('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM urlCluster('default', 'http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV', 'a String')",
        "SELECT * FROM gcs('http://127.0.0.1:1/b/k', 'CSV', 'a String')",
        "SELECT * FROM azureBlobStorage('c', 'b', 'k')",
        "SELECT * FROM hdfs('hdfs://127.0.0.1:1/k', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM remoteSecure('127.0.0.1:1', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "SELECT * FROM mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'a String')",
        "SELECT * FROM redis('127.0.0.1:1', 'a', 'a String')",
        "SELECT * FROM odbc('DSN=x', 't')",
        "SELECT * FROM jdbc('x', 't')",
        "SELECT * FROM deltaLake('http://127.0.0.1:1/b/k')",
        "SELECT * FROM iceberg('http://127.0.0.1:1/b/k')",
        "SELECT * FROM input('a String')",
        "SELECT reverseDNSQuery('127.0.0.1')",
        "SELECT catboostEvaluate('/m', 1)",
        "SELECT aiClassify('x', ['a'])",
    ],
)
def test_table_functions_that_reach_out_are_refused(store: ClickHouseStore, sql: str) -> None:
    """Before anything is connected to, and by their names, as ClickHouse's parser has them."""
    with pytest.raises(StoreError, match=r"\(\) is not allowed here: a query reads this store, no files, networks or programs"):
        store.query(sql, "CSV")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 INTO OUTFILE '{path}'",
        "SELECT 1 into/**/outfile '{path}' FORMAT CSV",
        "SELECT '' INTO OUTFILE '{path}' TRUNCATE",
        "SELECT '\\'' INTO OUTFILE '{path}'",
        "SELECT “'” INTO OUTFILE '{path}' -- ”",
        "SELECT $$'$$ INTO OUTFILE '{path}'",
        "SELECT 1 AS `\\`` INTO OUTFILE '{path}'",
        "SELECT 1 AS `''` INTO OUTFILE '{path}'",
        "SELECT 1 INTO OUTFILE '{path}' AND STDOUT",
        "EXPLAIN SELECT 1 INTO OUTFILE '{path}'",
        "EXPLAIN AST SELECT 1 INTO OUTFILE '{path}'",
        "SHOW TABLES INTO OUTFILE '{path}'",
        "DESCRIBE TABLE system.one INTO OUTFILE '{path}'",
    ],
)
def test_nothing_is_written(store: ClickHouseStore, tmp_path: Path, sql: str) -> None:
    """INTO OUTFILE is refused wherever it is, before any statement has it."""
    path = tmp_path / "out"
    with pytest.raises(StoreError):
        store.query(sql.format(path=path), "CSV")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing at all


@pytest.mark.parametrize("format_", ["", "CSV; DROP", "CSV SETTINGS", "1"])
def test_format(store: ClickHouseStore, format_: str) -> None:
    with pytest.raises(StoreError, match="format"):
        store.query("SELECT 1", format_)


def test_the_check_does_not_count_as_the_answer(tmp_path: Path) -> None:
    """Limits on the answer do not bound the syntax tree of a long statement that has a short one."""
    options = OPTIONS._replace(queries=QueryLimits(result_rows_max=1, result_bytes_max=100))
    with closing(ClickHouseStore.embedded(tmp_path / "store", options)) as store:
        assert store.query(f"SELECT greatest({', '.join(['1'] * 500)})", "CSV") == b"1\n"
