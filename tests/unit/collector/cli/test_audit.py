"""The audit command, asked wrongly; and what it prints."""

import pytest
from typer.testing import CliRunner

from collector.app.audit import judged_from
from collector.audit.report import Fault, Report, Window
from collector.cli.audit import document, shown
from collector.cli.main import app
from collector.config.settings import Settings
from collector.config.tenants import PlanLimits

WINDOW = Window(0, 3600 * 10**9)
NOW = 1_775_822_400_000_000_000
DAY_S = 86_400
HOUR_NS = 3600 * 10**9


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
    """Times that were not judged are in the answer."""
    assert "note: before x: not judged" in shown(Report(WINDOW, WINDOW, notes=["before x: not judged"]))


@pytest.mark.parametrize(
    ("waiting", "difference", "verdict"),
    [
        (0, 0, "everything adds up"),
        (1, 0, "everything adds up; 1 message waits to be stored: ask again later to judge it too"),
        (7000, 0, "everything adds up; 7,000 messages wait to be stored: ask again later to judge them too"),
        (1, 3, "NOT JUDGED: difference 3, but 1 message waits to be stored, which may be all of it: ask again later"),
        (7, 3, "NOT JUDGED: difference 3, but 7 messages wait to be stored, which may be all of it: ask again later"),
        (0, 3, "IT DOES NOT ADD UP: difference 3"),
    ],
)
def test_messages_that_only_wait_are_no_difference(
    waiting: int, difference: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict, the document and the exit status follow the difference alone; how many wait is always in the answer."""
    report = Report(WINDOW, WINDOW, messages_behind=waiting, receipts_at_fault=difference)
    assert verdict == shown(report).splitlines()[-1]
    told = document(report)
    assert (difference == 0, difference, waiting) == (told["adds_up"], told["difference"], told["messages_behind"])
    monkeypatch.setattr("collector.app.audit.audit", lambda *_: report)
    done = CliRunner().invoke(app, ["audit"])
    assert int(difference > 0) == done.exit_code
    assert verdict == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 30 - 14),
        ({"own_time_past_max_s": 0}, 30 - 7),
        ({"own_time_past_max_s": 0, "remote_write_past_max_s": 9 * DAY_S}, 30 - 9),
        ({"past_max_s": 20 * DAY_S}, 30 - 20),
    ],
)
def test_rows_that_a_retention_may_have_dropped_are_not_judged(changes: dict[str, int], days: int) -> None:
    """A row goes by its own time, which may be older than its arrival by the widest window. A day may have 23 hours."""
    settings = Settings.model_validate(
        {"store": {"retention_days": 30}, "dead_letters": {"retention_days": None}, "validation": changes}
    )
    assert NOW - days * DAY_S * 10**9 + HOUR_NS == judged_from(settings, NOW)
    plan = settings.model_copy(update={"plans": {"archive": PlanLimits(past_max_s=25 * DAY_S)}})
    assert NOW - 5 * DAY_S * 10**9 + HOUR_NS == judged_from(plan, NOW)


@pytest.mark.parametrize(
    ("store", "days"),
    [({"logs_retention_days": 20}, 20), ({"retention_days": 30, "tenant_retention_days": "acme=18,beta=90"}, 18)],
)
def test_the_shortest_retention_bounds_what_is_judged(store: dict[str, object], days: int) -> None:
    """Rows of one signal or tenant may be gone while the others are there."""
    settings = Settings.model_validate({"store": store, "dead_letters": {"retention_days": None}})
    assert NOW - (days - 14) * DAY_S * 10**9 + HOUR_NS == judged_from(settings, NOW)


@pytest.mark.parametrize("store", [{"retention_days": 1}, {"retention_days": 30, "tenant_retention_days": "acme=3"}])
def test_the_last_hours_are_judged_however_short_the_retention_is(store: dict[str, object]) -> None:
    """What is accepted is kept for three hours at least, or two on a day of 23 hours: so an audit of each hour judges it."""
    settings = Settings.model_validate({"store": store, "validation": {"past_max_s": 100 * DAY_S}})
    assert NOW - 2 * HOUR_NS == judged_from(settings, NOW)


def test_faults_are_named_and_counted() -> None:
    """As many are named as are asked for, with the number of the others."""
    report = Report(WINDOW, WINDOW, faults=[Fault("b", "acme", "t", "no receipt")], faults_total=3, receipts_at_fault=3)
    assert shown(report).splitlines()[-3:] == [
        "at fault, t: batch b of acme: no receipt",
        "and 2 more",
        "IT DOES NOT ADD UP: difference 3",
    ]
    assert document(report)["faults"] == [{"batch_id": "b", "tenant": "acme", "received_at": "t", "what": "no receipt"}]


def test_what_the_local_log_lost_does_not_add_up() -> None:
    """It does not until an operator has confirmed it."""
    report = Report(WINDOW, WINDOW, log_lost_messages=29)
    assert "acknowledged messages that the local log reports as lost: 29; `log show` lists them" in shown(report).splitlines()
    assert "IT DOES NOT ADD UP: difference 29" == shown(report).splitlines()[-1]
    assert (29, False) == (document(report)["log_lost_messages"], document(report)["adds_up"])
