"""Show a TopView as text: blocks of lines, which fit 80 columns and 24 lines, and grow with the terminal.

Invariants:
1. The screen has as many lines as the terminal, and no line is wider (test_it_fits_every_terminal). Columns that do not fit are
   left out at the right, never the names at the left (test_a_narrow_terminal_keeps_the_names).
2. Without a terminal there are no escape sequences, and nothing is cut off (test_plain_text_has_everything).
3. Text from senders and from the answering server is shown without control characters (test_names_are_printed_safely).
"""

import io
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.screen import Screen
from rich.table import Table
from rich.text import Text

from collector.api.web.overview import BAD_SHARE, WARN_SHARE, Overview, Used
from collector.api.web.rendering import count, duration, rate, size
from collector.app.top import ReasonRates, SignalRates, TenantRates, TopView
from collector.cli.common import printable
from collector.telemetry.tenant_ranking import THE_REST

_GOOD: Final = "green"
_WARN: Final = "yellow"
_BAD: Final = "bold red"
_HEAD: Final = "bold"
_UNKNOWN: Final = "-"
_PLAIN_COLUMNS: Final = 1000
_BAR_CELLS_MAX: Final = 30
_NAME_CELLS_MIN: Final = 12
# Tables are no wider than this, unless their names need it: a figure far from its name is hard to read.
_TABLE_COLUMNS: Final = 100
# The least columns for the title with its whole time, and for two limits side by side.
_TITLE_COLUMNS: Final = 60
_TWO_LIMITS_COLUMNS: Final = 70
# Shorter names of limits, since two are shown side by side.
_SHORT: Final = {
    "requests in flight": "in flight",
    "HTTP connections": "HTTP conns",
    "gRPC connections": "gRPC conns",
    "file descriptors": "open files",
    "disk of the data directory": "disk",
}
# The least lines of a block that shrinks when there is little room: a heading and one row.
_BLOCK_LINES_MIN: Final = 2


class Problem(NamedTuple):
    """Why the collector can't be asked, and since when."""

    reason: str
    since_unix_s: float


class OnScreen(NamedTuple):
    """The contents of the screen. `endpoint` is the collector's address.

    `problem` is set while the collector can't be asked, `key_problem` while it refuses the key."""

    endpoint: str
    view: TopView
    problem: Problem | None = None
    key_problem: Problem | None = None


class _Bar:
    """A bar whose filled part is `share`, from 0 to 1."""

    def __init__(self, share: float, style: str) -> None:
        self._share: Final = share
        self._style: Final = style

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        cells = min(options.max_width, _BAR_CELLS_MAX)
        filled = round(self._share * cells)
        yield Text("#" * filled + "." * (cells - filled), self._style)

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, min(options.max_width, _BAR_CELLS_MAX))


class _Block(NamedTuple):
    """A heading and rows of cells. The first column has names, and takes the room that the others leave."""

    heading: Sequence[str]
    rows: Sequence[Sequence[Text]]
    widths: Sequence[int]
    """The widths of the columns after the first."""

    def table(self, rows_max: int, columns: int | None) -> Table:
        """Return a table of at most `rows_max` rows. It fills `columns`; None: it is as wide as its cells."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, width=columns, header_style=_HEAD)
        hidden = len(self.rows) - rows_max
        first = f"{self.heading[0]} ({rows_max} of {len(self.rows)})" if hidden > 0 else self.heading[0]
        fill = None if columns is None else 1
        table.add_column(Text(first), no_wrap=True, overflow="ellipsis", min_width=_NAME_CELLS_MIN, ratio=fill)
        figures = self._figures_within(columns)
        for heading, width in zip(self.heading[1 : 1 + figures], self.widths, strict=False):
            table.add_column(Text(heading), no_wrap=True, min_width=width, justify="right")
        for row in self.rows[:rows_max]:
            table.add_row(*row[: 1 + figures])
        return table

    def columns_needed(self) -> int:
        """Return how many columns of the terminal the block needs to show whole names."""
        names = max(row[0].cell_len for row in self.rows)
        return max(names, _NAME_CELLS_MIN) + sum(width + 1 for width in self.widths)

    def _figures_within(self, columns: int | None) -> int:
        """Return how many columns after the first fit beside a name of _NAME_CELLS_MIN cells."""
        if columns is None:
            return len(self.widths)
        taken = itertools.accumulate((width + 1 for width in self.widths), initial=_NAME_CELLS_MIN)
        return sum(cells <= columns for cells in taken) - 1 if columns >= _NAME_CELLS_MIN else 0


def full_screen(shown: OnScreen, columns: int, lines: int, *, has_colours: bool = True) -> str:
    """Return the text for a terminal of `columns` and `lines`, with the escape sequences for colours."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=columns,
        height=lines,
        force_terminal=True,
        color_system="standard" if has_colours else None,
        no_color=not has_colours,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    console.print(Screen(*_parts(shown, columns, lines)), end="")
    return out.getvalue()


def plain_text(shown: OnScreen) -> str:
    """Return all contents as lines of plain text."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=_PLAIN_COLUMNS,
        force_terminal=False,
        color_system=None,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    for part in _parts(shown, None, None):
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _parts(shown: OnScreen, columns: int | None, lines: int | None) -> list[RenderableType]:
    """Return the blocks from top to bottom. `columns` and `lines` are the terminal's; None: everything is shown."""
    view = shown.view
    parts: list[RenderableType] = [_title(shown, columns), _health(view)]
    parts += [
        _problem(text, problem)
        for text, problem in (("unreachable", shown.problem), ("the key is refused", shown.key_problem))
        if problem
    ]
    parts.append(_delivery(view))
    fixed = [block for block in (_signals(view.signals), _topics(view)) if block.rows]
    growing = [block for block in (_tenants(view), _reasons(view.reasons)) if block.rows]
    needed = max((block.columns_needed() for block in (*fixed, *growing)), default=0)
    width = None if columns is None else min(columns, max(needed, _TABLE_COLUMNS))
    used = _limits(view.overview.used, width)
    taken = len(parts) + sum(len(block.rows) + 1 for block in fixed) + used.row_count
    parts += [block.table(len(block.rows), width) for block in fixed]
    parts.append(used)
    for block, rows in zip(
        growing, _shares([len(block.rows) for block in growing], None if lines is None else lines - taken), strict=True
    ):
        if rows:
            parts.append(block.table(rows, width))
    return parts


def _shares(rows_needed: Sequence[int], lines: int | None) -> list[int]:
    """Return how many rows of those in `rows_needed` each block gets if `lines` are left for all; with 0 it is left out."""
    if lines is None:
        return list(rows_needed)
    given = []
    for index, rows in enumerate(rows_needed):
        later = rows_needed[index + 1 :]
        # An equal share of the lines, or all that the later blocks do not need.
        needed = sum(rows + 1 for rows in later)
        room = max(lines - needed, lines // (1 + len(later)))
        got = min(rows, room - 1) if room >= _BLOCK_LINES_MIN else 0
        given.append(got)
        lines -= got + 1 if got else 0
    return given


def _title(shown: OnScreen, columns: int | None) -> RenderableType:
    view = shown.view
    found = view.overview
    state = Text(printable(found.status), _GOOD if found.status == "ok" else _BAD)
    what = Text(f"{view.role} {printable(view.version)} at {printable(shown.endpoint)}", _HEAD)
    is_narrow = columns is not None and columns < _TITLE_COLUMNS
    over = "" if view.rates_over_s is None or is_narrow else f", rates over {view.rates_over_s:.0f} s"
    when = Text(f"{_time(found.now_unix_s)} UTC{over}")
    if columns is None:
        return _line(state, what, when)
    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(_line(state, what), when)
    return grid


def _time(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%H:%M:%S}"


def _line(*pieces: Text) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for index, piece in enumerate(pieces):
        line.append("  " if index else "")
        line.append_text(piece)
    return line


def _health(view: TopView) -> Text:
    pieces = []
    for part in sorted(view.overview.parts, key=lambda part: part.is_ok):
        name = part.detail if part.name in ("broker", "store") else part.name
        pieces.append(Text(f"{printable(name)} ") + Text(printable(part.state), _GOOD if part.is_ok else _BAD))
    pieces.append(Text(f"up {duration(view.overview.uptime_s)}"))
    if view.processes > 1:
        pieces.append(Text(f"{count(view.processes)} processes"))
    if view.restarts:
        pieces.append(Text(f"replaced processes: {count(view.restarts)}", _WARN))
    return _line(*pieces)


def _problem(what: str, problem: Problem) -> Text:
    return _line(Text(f"{what} since {_time(problem.since_unix_s)} UTC: {printable(problem.reason)}", _BAD))


def _per_s(value: float | None, style: str = "") -> Text:
    """Return a rate, in `style` if it is not 0."""
    return Text(_UNKNOWN) if value is None else Text(rate(value), style if value else "")


def _bytes_per_s(value: float | None) -> Text:
    return Text(_UNKNOWN if value is None else size(value))


def _signals(rows: Sequence[SignalRates]) -> _Block:
    return _Block(
        ("RECEIVED", "req/s", "bytes/s", "accepted/s", "rejected/s", "limited/s", "failed/s"),
        [
            (
                Text(printable(row.name)),
                _per_s(row.requests),
                _bytes_per_s(row.size_bytes),
                _per_s(row.items["accepted"]),
                _per_s(row.items["rejected"], _WARN),
                _per_s(row.items["rate_limited"], _WARN),
                _per_s(row.items["failed"], _BAD),
            )
            for row in rows
        ],
        (7, 10, 10, 10, 9, 9),
    )


def _topics(view: TopView) -> _Block:
    produced = _Block(("", "to Kafka/s"), [(_per_s(row.produced),) for row in view.topics], (10,))
    stored = _Block(
        ("", "stored/s", "bytes/s", "behind", "oldest waits", "newest item"),
        [
            (
                _per_s(row.stored),
                _bytes_per_s(row.stored_bytes),
                Text(_UNKNOWN if row.lag is None else count(row.lag.messages)),
                Text(_UNKNOWN if row.lag is None else duration(row.lag.seconds)),
                Text(_UNKNOWN if row.newest_age_s is None else f"{duration(row.newest_age_s)} old"),
            )
            for row in view.topics
        ],
        (10, 10, 8, 12, 12),
    )
    shown = [produced] * view.produces + [stored] * view.writes
    return _Block(
        ("MESSAGES", *(heading for block in shown for heading in block.heading[1:])),
        [
            (Text(printable(row.name)), *(cell for block in shown for cell in block.rows[index]))
            for index, row in enumerate(view.topics)
        ],
        [width for block in shown for width in block.widths],
    )


def _tenants(view: TopView) -> _Block:
    others = "(all others)" if view.has_names else "(all; an admin's key shows names)"
    return _Block(
        ("TENANT", "req/s", "bytes/s", "accepted/s", "rejected/s", "refused/s", "limited/s by"),
        [_tenant(row, others) for row in view.tenants],
        (7, 10, 10, 10, 9, 12),
    )


def _tenant(row: TenantRates, others: str) -> tuple[Text, ...]:
    return (
        Text(others if row.name == THE_REST else printable(row.name)),
        _per_s(row.requests),
        _bytes_per_s(row.size_bytes),
        _per_s(row.accepted),
        _per_s(row.rejected, _WARN),
        _per_s(row.refused, _WARN),
        _per_s(row.limited, _WARN) + Text(f" {printable(row.limited_by)}" if row.limited_by else ""),
    )


def _reasons(rows: Sequence[ReasonRates]) -> _Block:
    return _Block(
        ("REASON", "per second", "since start"),
        [
            (
                Text(f"{row.kind}: {printable(row.reason)}" if row.reason else row.kind),
                _per_s(row.per_s, _WARN),
                Text(count(row.total)),
            )
            for row in rows
        ],
        (10, 12),
    )


def _delivery(view: TopView) -> Text:
    """Return the line about open dead letters, messages of all gateways that are not stored yet, and the audit."""
    if view.dead_letters is None:
        letters = Text("dead letters: not known here")
    else:
        letters = Text(f"dead letters: {count(view.dead_letters)} open", _WARN if view.dead_letters else "")
    behind = (
        []
        if view.messages_behind is None
        else [Text(f"not stored yet: {count(view.messages_behind)} messages of all gateways")]
    )
    return _line(letters, *behind, _audit(view.overview))


def _audit(found: Overview) -> Text:
    if found.audited is None:
        text = Text("audit: the writers audit" if found.lags is None else "audit: none has judged yet")
    else:
        until_s = found.audited.until_unix_s
        age = "" if until_s is None else f", {duration(found.now_unix_s - until_s)} ago"
        if found.audited.difference == 0:
            text = Text("audit: ") + Text("everything adds up", _GOOD) + Text(age)
        else:
            text = Text("audit: ") + Text(f"difference {count(found.audited.difference)}", _BAD) + Text(age)
    if found.audits_failed:
        text += Text(f", {count(found.audits_failed)} could not judge", _WARN)
    return text


def _limits(used: Sequence[Used], columns: int | None) -> Table:
    """Return the limits: two in a row of a terminal, or one if it is narrow, and in plain text."""
    beside = 2 if columns is not None and columns >= _TWO_LIMITS_COLUMNS else 1
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.width = columns
    for index in range(beside):
        grid.add_column(no_wrap=True, min_width=10)
        grid.add_column(no_wrap=True, ratio=None if columns is None else 1)
        grid.add_column(no_wrap=True, justify="right", min_width=4)
        grid.add_column(no_wrap=True, min_width=19 if index < beside - 1 else None)
    cells = [_used(limit) for limit in used]
    for at in range(0, len(cells), beside):
        grid.add_row(*(cell for limit in cells[at : at + beside] for cell in limit))
    return grid


def _used(limit: Used) -> tuple[RenderableType, ...]:
    share = limit.share if 0 <= limit.share <= 1 else 0.0  # the share is not a number
    style = _BAD if share >= BAD_SHARE else _WARN if share >= WARN_SHARE else ""
    written = size if limit.unit == "bytes" else count
    return (
        Text(_SHORT.get(limit.name, limit.name)),
        _Bar(share, style),
        Text(f"{share:.0%}", style),
        Text(f"{written(limit.used)}/{written(limit.limit)}"),
    )
