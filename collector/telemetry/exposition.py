"""Write a snapshot of metrics as Prometheus text or OpenMetrics.

Invariants:
1. The text parses to the same families and samples as the Prometheus library's text, in the same order
   (test_it_says_what_the_library_says).

The library takes a third of a second for a hundred scrapes of the metrics of 50 tenants. Most of it is the escaping and sorting
of labels, which are the same each time. Here the part of a line before its value is kept from one scrape to the next.
"""

import re
from typing import Final

from prometheus_client import exposition
from prometheus_client.utils import floatToGoString

from collector.telemetry.aggregate import Family, Key, Snapshot

_OPENMETRICS: Final = "application/openmetrics-text"
_OPENMETRICS_VERSION: Final = "version=1.0.0"
_VERSION: Final = re.compile(r"version=[^;]*")
# The series of tenants and partitions come and go. This many lines of series that have gone are kept.
_SPARE_LINES: Final = 1000


def content_type_of(accept: str) -> str:
    """Return the Content-Type that answers an Accept header: OpenMetrics if the header wants that, else Prometheus text.

    There are few such types, whatever the header contains."""
    try:
        chosen = exposition.choose_encoder(accept)[1]
    except (TypeError, ValueError):  # an invalid version, which the library compares as if it were valid
        chosen = exposition.choose_encoder("")[1]
    # The library repeats a later version than the one that it writes.
    return _VERSION.sub(_OPENMETRICS_VERSION, chosen) if chosen.startswith(_OPENMETRICS) else chosen


class PageWriter:
    """Writes one page of metrics, and keeps the beginnings of its lines."""

    def __init__(self) -> None:
        self._begun: Final[dict[Key, str]] = {}

    def written(self, snapshot: Snapshot, content_type: str) -> bytes:
        """Return the snapshot's text, in the format that `content_type_of` has chosen."""
        is_openmetrics = content_type.startswith(_OPENMETRICS)
        begun = self._begun
        lines: list[str] = []
        for family in snapshot:
            lines += _heading(family, is_openmetrics=is_openmetrics)
            for key, value in family.samples.items():
                start = begun.get(key)
                if start is None:
                    start = begun[key] = _begin(key)
                lines.append(f"{start}{value!r}" if -1e6 < value < 1e6 else start + _number(value))
        if len(begun) > len(lines) + _SPARE_LINES:
            begun.clear()
        lines.append("# EOF\n" if is_openmetrics else "")
        return "\n".join(lines).encode()


def _heading(family: Family, *, is_openmetrics: bool) -> tuple[str, str]:
    name = family.name
    meaning = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    if is_openmetrics:
        meaning = meaning.replace('"', '\\"')
    elif family.type == "counter":
        name += "_total"
    return f"# HELP {name} {meaning}", f"# TYPE {name} {family.type}"


def _begin(key: Key) -> str:
    """Return the line up to its value."""
    name, labels = key
    if not labels:
        return f"{name} "
    written = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels))
    return f"{name}{{{written}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # the library has no types for it
    return text
