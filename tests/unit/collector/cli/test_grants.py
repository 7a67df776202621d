"""What `schema grants` refuses, and that it prints what can be run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from collector.cli.main import app


def invoke(*arguments: str, data_dir: Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["schema", "grants", *arguments, "--data-dir", str(data_dir)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tenant", ""), '--tenant: ""'),
        (("--tenant", "a\nb"), '--tenant: "a\\nb"'),
        (("--remove", "x" * 129), "--remove: "),
        (("--tenant", "a", "--remove", "a"), '--remove: "a" is named by --tenant too'),
        (("--tenant", "a", "--user-prefix", ""), '--user-prefix: "" must be 1 to 64 letters'),
        (("--tenant", "a", "--user-prefix", "a`"), '--user-prefix: "a`" must be 1 to 64 letters'),
    ],
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """The error has the option, before a server is asked."""
    status, printed, error = invoke(*arguments, "--apply", "--clickhouse", "http://127.0.0.1:1", data_dir=tmp_path)
    assert (2, "") == (status, printed)
    assert said in error


def test_statements_are_printed(tmp_path: Path) -> None:
    """They are printed without a server. Each line is a comment, or one statement."""
    status, printed, error = invoke("--tenant", "it's", "--remove", "old", "--with-dead-letters", data_dir=tmp_path)
    assert (0, "") == (status, error)
    assert [] == [line for line in printed.splitlines() if not line.startswith("-- ") and not line.endswith(";")]
    assert "USING TenantId = 'it\\'s' TO `tenant_it's`;" in printed
    assert "REVOKE" not in printed
    assert "DROP USER IF EXISTS `tenant_old`;" in printed


def test_apply_names_the_server_that_is_away(tmp_path: Path) -> None:
    status, printed, error = invoke("--tenant", "a", "--apply", "--clickhouse", "http://127.0.0.1:1", data_dir=tmp_path)
    assert (1, "") == (status, printed)
    assert error.startswith("error: ClickHouse at http://127.0.0.1:1, user default, database default: ")
