"""How a view is drawn: in every size of a terminal, as plain text, and with hostile names."""

import re

import pytest
from rich.cells import cell_len
from support.top import GATEWAY, WRITER, Collector

from collector.app.top import TopView, view_of
from collector.cli.top_screen import OnScreen, Problem, full_screen, plain_text
from collector.telemetry.scrape import read_text

ENDPOINT = "http://127.0.0.1:8080"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def view(tenants: int = 1, name: str = "tenant-{}") -> TopView:
    """Of a busy collector."""
    collector = Collector()
    first = collector.answer(10)
    for index in range(tenants):
        collector.take(name.format(index), accepted=1000 * (tenants - index), rejected=1, repaired=1, size_bytes=50_000)
    collector.store(8, lag=3, waited_s=1.5)
    collector.metrics.watch_in_flight(lambda: 900, 1000)
    collector.metrics.log_bytes(96, 100)
    collector.metrics.audit_found(0, 0)
    collector.metrics.audit_judged(1_800_000_000 - 60)
    return view_of(first, collector.answer(12))


def lines_of(text: str) -> list[str]:
    return COLOUR.sub("", text).split("\n")


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 10), (20, 5), (80, 1), (1, 1)])
@pytest.mark.parametrize("problem", [None, Problem("Connection refused", 1.0)])
def test_it_fits_every_terminal(size: tuple[int, int], problem: Problem | None) -> None:
    """It has as many lines as the terminal, each as wide."""
    columns, lines = size
    drawn = lines_of(full_screen(OnScreen(ENDPOINT, view(30), problem, problem), columns, lines))
    assert len(drawn) == lines
    assert {cell_len(line) for line in drawn} == {columns}


@pytest.mark.parametrize("columns", [32, 40, 60, 79])
def test_a_narrow_terminal_keeps_the_names(columns: int) -> None:
    """Without its name a figure means nothing. Columns that do not fit are left out as a whole."""
    text = "\n".join(lines_of(full_screen(OnScreen(ENDPOINT, view()), columns, 60)))
    assert text.startswith("ok  serve ")
    for name in ("RECEIVED", "metrics", "dead_letters", "TENANT", "tenant-0", "REASON", "open files"):
        assert re.search(rf"^{name} ", text, re.MULTILINE), text
    headings = next(line for line in text.split("\n") if line.startswith("RECEIVED")).split()
    assert headings[1:] == ["req/s", "bytes/s", "accepted/s", "rejected/s", "limited/s", "failed/s"][: len(headings) - 1]
    assert ("failed/s" in headings, "bytes/s" in headings) == (columns >= 79, True)


def test_a_wide_terminal_keeps_figures_beside_their_names() -> None:
    """There is room for a long name, too."""
    wide = lines_of(full_screen(OnScreen(ENDPOINT, view()), 200, 50))
    tables = [len(line.rstrip()) for line in wide if line.startswith(("RECEIVED", "logs ", "TENANT", "REASON"))]
    assert [100, 100, 100, 100, 100] == tables
    assert "x" * 120 in "\n".join(lines_of(full_screen(OnScreen(ENDPOINT, view(1, "x" * 120 + "{}")), 200, 50)))


def test_a_low_terminal_has_what_is_wrong_first() -> None:
    text = "\n".join(lines_of(full_screen(OnScreen(ENDPOINT, view(30), Problem("Connection refused", 1.0)), 80, 5)))
    for part in ("embedded log ok", "Connection refused", "dead letters", "everything adds up"):
        assert part in text


def test_80_by_24_has_every_part() -> None:
    """Nothing that is asked for at night is below the edge; the busiest tenants and reasons have what is left."""
    drawn = lines_of(full_screen(OnScreen(ENDPOINT, view(30)), 80, 24))
    text = "\n".join(drawn)
    for part in (
        "rates over 2 s",
        "embedded log ok",
        "RECEIVED",
        "MESSAGES",
        "dead letters",
        "everything adds up",
        "open files",
    ):
        assert part in text
    assert re.search(r"TENANT \(\d of 30\) ", text)
    assert re.search(r"tenant-0 +0\.5 +24\.4 KiB +15,000 ", text)
    assert "rejected items: timestamp_too_old" in text


def test_a_larger_terminal_shows_more() -> None:
    text = full_screen(OnScreen(ENDPOINT, view(30)), 80, 60)
    assert "tenant-29" in text
    assert "TENANT  " in COLOUR.sub("", text)


def test_plain_text_has_everything() -> None:
    """No escape sequence, no cut names, every tenant."""
    long = "long-name-" * 12
    text = plain_text(OnScreen(ENDPOINT, view(60, long + "{}")))
    assert text.isascii()
    assert "\x1b" not in text
    assert [f"{long}{index}" for index in range(49)] == re.findall(rf"{long}\d+", text)[:49]
    assert all(line == line.rstrip() for line in text.splitlines())


def test_names_are_printed_safely() -> None:
    """What would move the cursor, set colours or turn the text around is replaced, wherever it comes from."""
    hostile = "\x1b[2Jred\r\x07\u202e\x9b31m[bold]\ud800{}"
    collector = Collector()
    first = collector.answer(10)
    shown_name = hostile.encode(errors="replace").decode()
    collector.take(shown_name, accepted=1)
    page = (
        collector.page()
        .replace('reason="invalid_value"', 'reason="\x1b]0;x\x07"')
        .replace('_failures_total{reason="\x1b]0;x\x07"} 0.0', '_failures_total{reason="\x1b]0;x\x07"} 9.0')
    )
    answer = collector.answer(12, kafka=hostile)._replace(snapshot=read_text(page), version=hostile, status=hostile)
    problem = Problem(hostile, 1.0)
    shown = OnScreen("http://" + hostile, view_of(first, answer), problem, problem)
    for text in (plain_text(shown), COLOUR.sub("", full_screen(shown, 100, 50))):
        assert {character for character in text if not character.isprintable()} == {"\n"}
        assert "red\N{REPLACEMENT CHARACTER}" in text
        assert "[bold]" in text, "it is no markup"


def test_wide_names_keep_the_columns() -> None:
    """A character may take two cells."""
    drawn = lines_of(full_screen(OnScreen(ENDPOINT, view(3, "株式会社" * 10 + "{}")), 80, 24))
    assert {cell_len(line) for line in drawn} == {80}


def test_colours_are_only_where_they_are_wanted() -> None:
    assert "\x1b" in full_screen(OnScreen(ENDPOINT, view()), 80, 24)
    assert "\x1b" not in full_screen(OnScreen(ENDPOINT, view()), 80, 24, has_colours=False)


def test_it_says_since_when_nothing_answers() -> None:
    """The last figures are below."""
    shown = OnScreen(ENDPOINT, view(), Problem("Connection refused", 1_800_000_000), Problem("401", 1_800_000_060))
    text = plain_text(shown)
    assert "unreachable since 08:00:00 UTC: Connection refused\n" in text
    assert "the key is refused since 08:01:00 UTC: 401\n" in text
    assert "tenant-0" in text


@pytest.mark.parametrize(
    ("difference", "failed", "said"),
    [
        (None, 0, "audit: none has judged yet"),
        (0, 0, "audit: everything adds up, 60 s ago"),
        (7, 0, "audit: difference 7, 60 s ago"),
        (0, 2, "audit: everything adds up, 60 s ago, 2 could not judge"),
    ],
)
def test_the_audits_result_is_one_line(difference: int | None, failed: int, said: str) -> None:
    collector = Collector()
    if difference is not None:
        collector.metrics.audit_found(difference, 0)
        collector.metrics.audit_judged(1_800_000_000 - 50)
    for _ in range(failed):
        collector.metrics.audited("not_judged", 1.0)
    assert f"dead letters: 0 open  {said}\n" in plain_text(OnScreen(ENDPOINT, view_of(None, collector.answer(10))))


def test_a_gateway_and_a_writer_show_what_they_do() -> None:
    """A gateway has no columns of the store, a writer nothing that is received."""
    front = plain_text(OnScreen(ENDPOINT, view_of(None, Collector(GATEWAY).answer(10))))
    back = plain_text(OnScreen(ENDPOINT, view_of(None, Collector(WRITER, receives=False).answer(10))))
    assert ("RECEIVED" in front, "to Kafka/s" in front, "stored/s" in front) == (True, True, False)
    assert ("RECEIVED" in back, "to Kafka/s" in back, "stored/s" in back) == (False, False, True)
    assert "dead letters: not known here  audit: the writers audit\n" in front


def test_a_figure_that_is_none_is_no_defect() -> None:
    """It is drawn, whatever a page says."""
    page = Collector().page().replace("infrasage_in_flight_limit_bytes 0.0", "infrasage_in_flight_limit_bytes NaN")
    answer = Collector().answer(10)._replace(snapshot=read_text(page.replace(" 0.0\n", " NaN\n")))
    assert "in flight" in plain_text(OnScreen(ENDPOINT, view_of(answer, answer._replace(at_s=12.0))))
