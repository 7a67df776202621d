"""The commands as their users meet them: what they print, where, and with which exit status."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes.program import environment, heed_interrupts, run
from support.store_templates import copy_store
from typer.main import get_command
from typer.testing import CliRunner, Result

from collector.cli.main import app
from collector.config.settings import Settings
from collector.config.sources import load

HEAVY = [
    "collector.app",
    "collector.receivers",
    "collector.store.clickhouse",
    "chdb",
    "clickhouse_connect",
    "fastapi",
    "google.protobuf",
    "grpc",
    "hpack",
    "hypercorn",
    "structlog",
    "uvloop",
]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("INFRASAGE_")]:
        monkeypatch.delenv(variable)


def invoke(*arguments: str) -> Result:
    """A command that needs no process of its own."""
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "serve"),
        (["serve", "--help"], 0, "--otlp-http-port"),
        (["serve", "--help"], 0, "--clickhouse"),
        (["gateway", "--help"], 0, "--workers"),
        (["writer", "--help"], 0, "--kafka"),
        (["-h"], 0, "serve"),
        (["dlq", "list", "-h"], 0, "Usage:"),
        (["version"], 0, "infrasage-collector "),
        (["--version"], 0, "infrasage-collector "),
        (["--show-completion", "bash"], 0, "_INFRASAGE_COLLECTOR_COMPLETE"),
        (["config", "check"], 0, "ok: 0 settings are given, the others are at their defaults"),
        (["config", "show"], 0, "[http]\nport = 8080\n"),
        (["schema", "show"], 0, "CREATE TABLE"),
    ],
)
def test_what_was_asked_for_is_on_standard_output(
    arguments: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 0, the answer on standard output, nothing on standard error."""
    # Typer looks for the shell among the processes above this one, and there may be none.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    done = invoke(*arguments)
    assert (done.exit_code, done.stderr) == (status, "")
    assert said in done.stdout


def test_config_show_takes_the_data_directory(tmp_path: Path) -> None:
    done = invoke("config", "show", "--data-dir", str(tmp_path))
    assert f'data_dir = "{tmp_path}"  # --data-dir\n' in done.stdout


@pytest.mark.parametrize(("columns", "longest"), [("100", 100), ("150", 150), ("400", 160)])
def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, longest: int) -> None:
    """Up to a width that people read."""
    monkeypatch.setenv("COLUMNS", columns)
    group: Any = get_command(app)
    # Not by the runner, which has a width of its own.
    with group.make_context("infrasage-collector", ["version"], resilient_parsing=True) as context:
        for name in ("serve", "gateway"):
            command = group.get_command(context, name)
            help_ = command.get_help(command.context_class(command, info_name=name, parent=context))
            widths = [len(line) for line in help_.splitlines()]
            assert 80 < max(widths) <= longest


@pytest.mark.parametrize("group", [[], ["config"], ["dlq"], ["keys"], ["log"], ["schema"]])
def test_no_summary_is_cut(group: list[str]) -> None:
    """The list of commands is understood without `-h` of each one."""
    shown = invoke(*group, "-h").stdout.partition("Commands:\n")[2].splitlines()
    assert len(shown) > 1
    assert [] == [line for line in shown if not line.endswith(".") or line.endswith("...")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["serve", "--nonsense"], "--nonsense"),
        (["serve", "--http-port", "eighty"], "--http-port"),
        (
            ["serve", "--http-port", "70000"],
            "error: --http-port: http.port = 70000 is not allowed: must be a whole number from 0",
        ),
        (["serve", "--http-port", "4317"], "error: http.port and grpc.port are both 4317"),
        (
            ["serve", "--config", "nowhere.toml"],
            "error: cannot read the configuration file nowhere.toml: No such file or directory",
        ),
        (["config", "check", "--config", "nowhere.toml"], "error: cannot read the configuration file nowhere.toml"),
        (["query"], "SQL"),
        (
            ["gateway"],
            "error: gateway needs kafka.bootstrap: --kafka, INFRASAGE_KAFKA__BOOTSTRAP or a file with --config gives it",
        ),
        (["gateway", "--kafka", "k:1", "--workers", "0"], "error: --workers: gateway.workers = 0 is not allowed"),
        (
            ["writer", "--kafka", "k:1"],
            "error: writer needs clickhouse.url: --clickhouse, INFRASAGE_CLICKHOUSE__URL or",
        ),
        (["writer", "--clickhouse", "http://c"], "error: writer needs kafka.bootstrap"),
        (["serve", "--kafka", "localhost"], 'error: --kafka: kafka.bootstrap = "localhost" is not allowed: must be HOST:PORT'),
    ],
)
def test_what_was_asked_for_wrongly_is_status_2(arguments: list[str], said: str) -> None:
    """The mistake is named on standard error; no traceback, nothing on standard output."""
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_can_be_shown_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the cluster's name and replicated tables."""
    assert "Replicated" not in invoke("schema", "show").stdout
    monkeypatch.setenv("INFRASAGE_CLICKHOUSE__CLUSTER", "main")
    shown = invoke("schema", "show").stdout
    assert "ON CLUSTER 'main'" in shown
    assert "ENGINE = ReplicatedMergeTree" in shown


@pytest.mark.parametrize("command", ["apply", "plan"])
def test_the_cluster_of_shards_is_a_flag(command: str) -> None:
    """It is checked with the other settings, and a problem names the flag."""
    done = invoke("schema", command, "--cluster", "every")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: clickhouse.shards_cluster is every, which needs clickhouse.url")
    assert done.stderr.endswith("(clickhouse.shards_cluster: --cluster)\n")


def test_a_server_that_is_away_is_named() -> None:
    """Query and schema apply say where they asked, in one line; the password is not in it."""
    for arguments in (["query", "SELECT 1"], ["schema", "apply"]):
        done = run(*arguments, clickhouse__url="http://127.0.0.1:1", clickhouse__password="hunter2")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ClickHouse at http://127.0.0.1:1, user default, database default: ")
        assert "refused" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "hunter2" not in done.stderr


def test_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is wrong is named with the variable."""
    monkeypatch.setenv("INFRASAGE_HTTP__PORT", "x")
    done = invoke("config", "check")
    assert done.exit_code == 2
    assert done.stderr == (
        'error: environment variable INFRASAGE_HTTP__PORT: http.port = "x" is not allowed:'
        " must be a whole number from 0 to 65535 (default: 8080)\n"
    )


def test_a_shown_configuration_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` writes a file that `--config` reads, with the same outcome."""
    file = tmp_path / "collector.toml"
    monkeypatch.setenv("INFRASAGE_HTTP__PORT", "9000")
    file.write_text(invoke("config", "show").stdout)
    assert invoke("config", "check", "--config", str(file)).stdout.startswith("ok: ")
    loaded = load(file, environment={})
    assert loaded.settings == Settings.model_validate({"http": {"port": 9000}})


@pytest.mark.parametrize("existing", [False, True])
def test_a_query_where_nothing_is_makes_nothing(tmp_path: Path, existing: bool) -> None:
    """A data directory that does not exist, or holds no store, is an error that names it, and is left as it was."""
    data_dir = tmp_path / "data"
    if existing:
        data_dir.mkdir()
    done = run("query", "--data-dir", data_dir, "SELECT 1")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: there is no store in {data_dir}: no collector has ever run there; choose another directory with --data-dir\n"
    )
    assert done.stdout == ""
    assert list(tmp_path.rglob("*")) == ([data_dir] if existing else [])


def test_the_schema_is_applied_once(tmp_path: Path) -> None:
    """`schema apply` makes the tables and says which steps it took; again, there is nothing to do; then they can be asked."""
    first = run("schema", "apply", "--data-dir", tmp_path / "data")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("applied 0001_")
    assert run("schema", "apply", "--data-dir", tmp_path / "data").stdout == "the tables are up to date\n"
    assert run("schema", "plan", "--data-dir", tmp_path / "data").stdout == "the tables are up to date\n"
    done = run("query", "--data-dir", tmp_path / "data", "SELECT count() AS n FROM otel_logs")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"│\s+0\s+│", done.stdout)


def test_a_plan_of_the_schema_makes_nothing(tmp_path: Path) -> None:
    """If no collector has run, there is no data directory after it either."""
    done = run("schema", "plan", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("-- 0001_metrics.sql: a migration, which rewrites no rows; `schema show` prints it\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no.such.host.invalid", "error: cannot listen on no.such.host.invalid: "),
        ("192.0.2.1", "error: 192.0.2.1 is not an address of this machine; choose another with --host\n"),
    ],
)
def test_a_wrong_host_is_named(tmp_path: Path, host: str, said: str) -> None:
    """The error is one line, before anything is made."""
    done = run("serve", "--host", host, "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    """If a file is in the way, the message has the path."""
    (tmp_path / "file").write_text("")
    done = run(
        *("serve", "--data-dir", tmp_path / "file" / "data"),
        *("--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0"),
    )
    assert done.returncode == 1
    assert f"error: cannot make the data directory {tmp_path}/file/data: Not a directory" in done.stderr


def test_light_commands_load_nothing_heavy() -> None:
    """Asking a running collector, and checking a configuration, do not wait for the engine and the servers to load."""
    code = f"import sys, collector.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_terminal_that_is_not_utf_8_gets_every_text(encoding: str) -> None:
    """The help of `serve` has an ellipsis, which Latin-1 has not."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "serve", "--help"],
        env=environment() | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"HOST:PORT,{'…' if encoding == 'utf-8' else chr(92) + 'u2026'}" in done.stdout.decode(encoding)


def test_ctrl_c_while_the_commands_load_prints_nothing() -> None:
    """The process ends by the signal, so a shell reports 130 and ends its own loop; no traceback of imports is printed."""
    command = [sys.executable, "-X", "importtime", "-m", "collector", "version"]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509  # it only sets a signal's disposition
    )
    assert process.stderr is not None
    for line in iter(process.stderr.readline, ""):
        if "typer" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (-signal.SIGINT, "")
    assert all(line.startswith("import time:") for line in said.splitlines()), said


def test_a_pipe_that_closes_is_no_error(tmp_path: Path) -> None:
    """`query … | head` ends quietly."""
    (tmp_path / "data").mkdir(mode=0o700)
    copy_store(tmp_path / "data" / "store")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "collector", "query", "--data-dir", str(tmp_path / "data"), "--format", "CSV"),
            "SELECT number FROM numbers(100000)",
        ],
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
