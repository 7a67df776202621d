"""Places to listen, as settings write them."""

from pathlib import Path

import pytest

from collector.config.places import TcpPlace, UnixPlace, read_hosts, read_places


def test_places_are_read() -> None:
    """Addresses of both families, names, and paths; and they are written as they can be read again."""
    text = "127.0.0.1:4318, [::1]:4318,localhost:80,[fe80::1%eth0]:1,unix:/run/infrasage.sock"
    places = read_places(text)
    assert places == (
        TcpPlace("127.0.0.1", 4318),
        TcpPlace("::1", 4318),
        TcpPlace("localhost", 80),
        TcpPlace("fe80::1%eth0", 1),
        UnixPlace(Path("/run/infrasage.sock")),
    )
    assert places == read_places(",".join(map(str, places)))
    assert () == read_places("")


@pytest.mark.parametrize(
    "text",
    [
        *("4318", ":4318", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:4318", "a b:1", "http://a:1", "a:1,", "a:1,a:1"),
        *("unix:", "unix:run.sock", "unix:./run.sock", "unix:/" + "a" * 107, "unix:/a\0b"),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """Relative paths too: a service has no directory that its user knows."""
    with pytest.raises(ValueError, match="not"):
        read_places(text)


def test_hosts_are_read() -> None:
    """They are read without ports."""
    assert ("127.0.0.1", "::1", "fe80::1%lo") == read_hosts("127.0.0.1, ::1,fe80::1%lo")
    for text in ("", "a,", "a,a", "a b", "[::1]", "a/b"):
        with pytest.raises(ValueError, match="not addresses"):
            read_hosts(text)
