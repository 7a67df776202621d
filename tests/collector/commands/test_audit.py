"""The audit command, asked wrongly; and what it prints."""

import pytest
from typer.testing import CliRunner

from collector.cli import app
from collector.commands.audit import document, shown
from collector.reports.audit import Fault, Report, Window

WINDOW = Window(0, 3600 * 10**9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "--from must be RFC 3339, as 2026-04-10T12:00:00Z, not 'yesterday'"),
        (["--to", "2026-04-10T12:00:00"], "--to must be RFC 3339, as 2026-04-10T12:00:00Z, not '2026-04-10T12:00:00'"),
        (["--from", "2026-13-10T12:00:00Z"], "--from must be RFC 3339"),
        (["--to", "9999-12-31T23:59:59Z"], "--to must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z"),
        (["--from", "0001-01-01T00:00:00Z"], "--from must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z"),
        (["--from", "2026-04-10T12:00:00Z", "--to", "2026-04-10T12:00:00Z"], "must be before --to"),
    ],
)
def test_asked_wrongly(arguments: list[str], said: str) -> None:
    """Exit status 2, and what is wrong."""
    done = CliRunner().invoke(app, ["audit", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


def test_what_is_not_known_is_said() -> None:
    """Messages that are not stored, and times that were not judged; then it does not pass as adding up."""
    report = Report(WINDOW, WINDOW, messages_behind=7, notes=["before x: not judged"])
    assert "7 messages are not stored yet" in shown(report)
    assert "note: before x: not judged" in shown(report)
    assert (report.adds_up, document(report)["adds_up"]) == (False, False)


def test_faults_are_named_and_counted() -> None:
    """As many as are asked for, and how many more there are."""
    report = Report(WINDOW, WINDOW, faults=[Fault("b", "acme", "t", "no receipt")], faults_total=3, receipts_at_fault=3)
    assert shown(report).splitlines()[-3:] == [
        "at fault, t: batch b of acme: no receipt",
        "and 2 more",
        "IT DOES NOT ADD UP: difference 3",
    ]
    assert document(report)["faults"] == [{"batch_id": "b", "tenant": "acme", "received_at": "t", "what": "no receipt"}]
