"""The dlq commands, asked wrongly."""

import pytest
from typer.testing import CliRunner

from collector.cli.main import app


@pytest.mark.parametrize("command", ["list", "replay", "discard"])
@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_time_that_the_store_cannot_hold(command: str, option: str) -> None:
    """Exit status 2 before anything is opened, and which times there are."""
    done = CliRunner().invoke(app, ["dlq", command, option, "9999-12-31T23:59:59Z"])
    assert done.exit_code == 2
    assert f"{option[2:]} must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z" in done.stderr
