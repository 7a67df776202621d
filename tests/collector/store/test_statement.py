"""What may be asked of the query command, before the engine has a say."""

import pytest

from collector.store.contract import StoreError
from collector.store.statement import reading_statement


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT 1\nFORMAT CSV"),
        ("  select 1 ; ;\n", "select 1\nFORMAT CSV"),
        ("SELECT 1 -- the end", "SELECT 1\nFORMAT CSV"),
        ("/* first */ SELECT 1 # comment", "SELECT 1\nFORMAT CSV"),
        ("(SELECT 1) UNION ALL (SELECT 2)", "(SELECT 1) UNION ALL (SELECT 2)\nFORMAT CSV"),
        ("WITH 1 AS x SELECT x", "WITH 1 AS x SELECT x\nFORMAT CSV"),
        ("SHOW TABLES", "SHOW TABLES\nFORMAT CSV"),
        ("SELECT 1 FORMAT JSON", "SELECT 1 FORMAT JSON"),
        ("SELECT 1 format JSON;", "SELECT 1 format JSON"),
        ("SELECT ';', 'it''s', 'a\\'b' , $x$ ; $x$", "SELECT ';', 'it''s', 'a\\'b' , $x$ ; $x$\nFORMAT CSV"),
        ("SELECT 'INTO OUTFILE', 'file('", "SELECT 'INTO OUTFILE', 'file('\nFORMAT CSV"),
        ("SELECT file FROM t", "SELECT file FROM t\nFORMAT CSV"),
        ("SELECT profile(1)", "SELECT profile(1)\nFORMAT CSV"),
        ("SELECT `naïve ☃`", "SELECT `naïve ☃`\nFORMAT CSV"),
    ],
)
def test_reading(sql: str, expected: str) -> None:
    """Statements that read pass, with one FORMAT clause and no semicolon."""
    assert reading_statement(sql, "CSV") == expected


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "empty"),
        (" -- nothing\n;", "empty"),
        ("INSERT INTO t VALUES (1)", "not INSERT"),
        ("kill query where 1", "not KILL"),
        ("SYSTEM SHUTDOWN", "not SYSTEM"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1 INTO OUTFILE 'x'", "OUTFILE"),
        ("SELECT 1 into/**/outfile 'x'", "OUTFILE"),
        ("SELECT '' INTO OUTFILE 'x'", "OUTFILE"),
        ("SELECT file('x')", "file\\(\\)"),
        ("SELECT \"file\" ('x')", "not allowed"),
        ("SELECT * FROM python(x)", "not allowed"),
    ],
)
def test_refused(sql: str, message: str) -> None:
    """What only the process's engine would let through is refused, however it is written."""
    with pytest.raises(StoreError, match=message):
        reading_statement(sql, "CSV")


@pytest.mark.parametrize("format_", ["", "CSV; DROP", "CSV SETTINGS", "1"])
def test_format(format_: str) -> None:
    with pytest.raises(StoreError, match="format"):
        reading_statement("SELECT 1", format_)
