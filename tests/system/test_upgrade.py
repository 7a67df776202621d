"""Data of an earlier version, opened by this one.

`data/446d845.tar.xz` is a data directory that `serve` of commit 446d845 left when it was killed: 30 log records, spans and
native metrics each that it had stored, then 30 log records of which it had stored 10. Its log has version 1, without
checksums and without a witness. It is a file, since a test cannot count on the history being there.
"""

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from support.processes.program import Program, run
from support.senders import Senders
from support.waiting import until

FIXTURE = Path(__file__).parent / "data" / "446d845.tar.xz"
LOGS = "SELECT toUInt32(Body) AS number, count() AS times FROM otel_logs WHERE ServiceName = 'old-logs' GROUP BY number"
SPANS = (
    "SELECT toUInt32(SpanName) AS number, count() AS times FROM otel_traces WHERE ServiceName = 'old-traces' GROUP BY number"
)
VALUES = "SELECT toUInt32(value) AS number, count() AS times FROM telemetry WHERE service_id = 'old-metrics' GROUP BY number"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(place, filter="data")
    return place


def log_version(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "log" / "messages.sqlite")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def stored(program: Program, sql: str) -> dict[int, int]:
    return {int(row["number"]): int(row["times"]) for row in program.query(sql)}


def check(program: Program) -> None:
    assert dict.fromkeys(range(60), 1) == stored(program, LOGS)
    assert dict.fromkeys(range(30), 1) == stored(program, SPANS)
    assert dict.fromkeys(range(30), 1) == stored(program, VALUES)
    done = run("audit", "--from", "2026-11-29T00:00:00Z", "--to", "2026-11-29T00:25:00Z", "--data-dir", program.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_an_earlier_version_left_is_stored_once(data_dir: Path, tmp_path: Path) -> None:
    """Stored or still in its log, each record is there once; the audit is zero; its key stays, and telemetry goes on."""
    assert log_version(data_dir) == 1
    program = Program(data_dir)
    try:
        program.start()
        check(program)
        assert "lost" not in program.log()
        listed = run("keys", "list", "--data-dir", data_dir)
        assert len(listed.stdout.splitlines()) == 2
        with Senders(program.http_port, threads=2) as senders:
            until(lambda: len(senders.acknowledged) > 20)
        assert program.stop() == 0
        assert log_version(data_dir) == 2
        program.start()  # its own, from now on
        check(program)
    finally:
        program.close()
    done = run("backup", tmp_path / "backup", "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert run("restore", tmp_path / "backup", "--data-dir", tmp_path / "restored").returncode == 0
    check(Program(tmp_path / "restored"))


def test_a_log_of_a_newer_version_is_refused_and_left_as_it_is(data_dir: Path) -> None:
    """As a downgrade meets it: one line that says which version it is. (tests/unit/collector/store has the same for tables.)"""
    assert Program(data_dir).value("SELECT count() FROM otel_logs WHERE ServiceName = 'old-logs'") == 60
    log = data_dir / "log" / "messages.sqlite"
    with closing(sqlite3.connect(log)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = log.read_bytes()
    done = run("serve", "--data-dir", data_dir, "--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0")
    assert done.returncode == 1
    assert "its version is 3, and this program reads 2" in done.stderr
    assert before == log.read_bytes()
