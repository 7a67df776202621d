"""Read the places to listen on from settings: addresses, and `HOST:PORT` or `unix:/PATH`."""

import re
from pathlib import Path
from typing import Final, NamedTuple

UNIX: Final = "unix:"
# Linux takes a path of at most 107 bytes, and a zero byte.
PATH_BYTES_MAX: Final = 107
_PLACES_MAX: Final = 16
_PLACE: Final = re.compile(r"([\w.%-]+|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]):([0-9]{1,5})", re.ASCII)
_HOST: Final = re.compile(r"[\w.:%-]+", re.ASCII)


class TcpPlace(NamedTuple):
    """An address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixPlace(NamedTuple):
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


Place = TcpPlace | UnixPlace


def read_hosts(text: str) -> tuple[str, ...]:
    """Return the addresses in a setting: at most _PLACES_MAX, each once. Raises ValueError."""
    hosts = tuple(entry.strip() for entry in text.split(","))
    if len(hosts) > _PLACES_MAX or not all(_HOST.fullmatch(host) for host in hosts) or len(set(hosts)) < len(hosts):
        raise ValueError("not addresses")
    return hosts


def read_places(text: str) -> tuple[Place, ...]:
    """Return the places in a setting: at most _PLACES_MAX, each once; none if `text` is empty. Raises ValueError."""
    places = tuple(_place(entry.strip()) for entry in text.split(",")) if text else ()
    if len(places) > _PLACES_MAX or len(set(places)) < len(places):
        raise ValueError("not places")
    return places


def _place(text: str) -> Place:
    """Return the place that is written `HOST:PORT` or `unix:/PATH`. Raises ValueError."""
    if text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX)).expanduser()
        if not path.is_absolute() or len(str(path).encode()) > PATH_BYTES_MAX or "\0" in text:
            raise ValueError("not the path of a socket")
        return UnixPlace(path)
    match = _PLACE.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise ValueError("not HOST:PORT")
    return TcpPlace(match[1].strip("[]"), int(match[2]))
