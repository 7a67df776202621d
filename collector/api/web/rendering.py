"""The templates and static files of the web pages. They are read from the package once, and stay in memory.

Invariants:
1. Text from senders and users is escaped wherever it is shown (test_text_from_senders_is_escaped).
2. No page loads anything from another site, and no page contains a script or style, as the Content-Security-Policy demands
   (test_a_page_loads_nothing_from_elsewhere).
"""

import functools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from collector.api.documents import FileDocuments
from collector.api.web.overview import BAD_SHARE, WARN_SHARE

if TYPE_CHECKING:
    # Imported at its first use, since it takes 3 MB, and most gateways show no page.
    from jinja2 import Environment

_HERE: Final = Path(__file__).parent

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)


def static_files() -> FileDocuments:
    """Return the scripts and styles, by name."""
    return FileDocuments(_HERE / "static")


def render(template: str, context: dict[str, Any]) -> bytes:
    """Return a page in UTF-8. The first call reads all templates."""
    text = _environment().get_template(template).render(context)
    # Text from senders may have halves of surrogates, which UTF-8 can't express.
    return text.encode(errors="replace")


@functools.cache
def _environment() -> "Environment":
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415  # takes 3 MB

    sources = {path.name: path.read_text() for path in sorted((_HERE / "templates").glob("*.html"))}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=count,
        size=size,
        duration=duration,
        moment=moment,
        moment_ns=moment_ns,
        as_json=as_json,
        rate=rate,
        in_link=in_link,
    )
    environment.globals.update(WARN_SHARE=WARN_SHARE, BAD_SHARE=BAD_SHARE)
    return environment


def count(number: float) -> str:
    """Return a number such as 1,234,567."""
    return f"{number:,.0f}"


def rate(per_s: float) -> str:
    """Return a rate per second: in whole numbers, or with two significant digits if it is less than 10."""
    return f"{per_s:,.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.2g}"


def size(size_bytes: float) -> str:
    """Return a size such as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """Return a duration such as 1.5 ms, 3 min or 2 d."""
    if not seconds:
        return "0 s"
    for most, unit, in_s in (
        (1e-6, "ns", 1e-9),
        (1e-3, "µs", 1e-6),
        (1, "ms", 1e-3),
        (120, "s", 1),
        (7200, "min", 60),
        (172_800, "h", 3600),
    ):
        if abs(seconds) < most:
            return f"{seconds / in_s:.3g} {unit}"
    return f"{seconds / 86_400:.3g} d"


def moment(unix_s: float) -> str:
    """Return a time in UTC, such as 2026-04-10 12:00:00."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S}"


def moment_ns(unix_nano: float | str) -> str:
    """Return a time that is given in nanoseconds, with milliseconds, such as 2026-04-10 12:00:00.123."""
    seconds, nanos = divmod(int(unix_nano), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanos // 10**6:03}"


def in_link(text: str) -> str:
    """Return text quoted as a value in the query of a link."""
    return quote(text, safe="", errors="replace")


def as_json(value: Any) -> str:
    """Return JSON for people to read and edit. It is ASCII if a text has halves of surrogates."""
    return json.dumps(value, indent=2, ensure_ascii=_has_surrogates(value))


def _has_surrogates(value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return any("\ud800" <= character <= "\udfff" for character in text)
