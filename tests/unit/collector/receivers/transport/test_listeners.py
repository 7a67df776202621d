"""Sockets that servers listen on."""

import errno
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from collector.receivers.transport.listeners import UnixListener, bind_tcp, remove_stale

HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text() != ""


def bound(hosts: list[str]) -> list[tuple[str, int]]:
    sockets = bind_tcp(hosts, 0, reuse_port=False)
    try:
        return [(str(one.getsockname()[0]), int(one.getsockname()[1])) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def test_every_address_has_the_same_port() -> None:
    """A free one, if none is named; an address that comes twice is one."""
    found = bound(["127.0.0.1", "127.0.0.2", "127.0.0.1"])
    assert ["127.0.0.1", "127.0.0.2"] == [host for host, _ in found]
    assert 1 == len({port for _, port in found})


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6: nothing of :: can be tried")
def test_two_colons_are_ipv4_too() -> None:
    """Each family has its own socket, so that peers are shown as they are; beside 0.0.0.0 too."""
    for hosts in (["::"], ["::", "0.0.0.0"], ["0.0.0.0", "::"]):
        found = bound(hosts)
        assert {"::", "0.0.0.0"} == {host for host, _ in found}
        assert 2 == len(found)
        assert 1 == len({port for _, port in found})


def test_a_port_in_use_on_one_address_is_an_error() -> None:
    """Nothing stays bound."""
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            bind_tcp(["127.0.0.1", "127.0.0.2"], port, reuse_port=False)
        socket.create_server(("127.0.0.1", port)).close()


def test_a_socket_file_has_its_mode_and_is_removed(tmp_path: Path) -> None:
    """It has it before it listens, and is not removed if another has taken its place."""
    path = tmp_path / "a.sock"
    with closing(UnixListener(path, 0o620)) as made:
        assert 0o620 == stat.S_IMODE(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(path))
        assert made.socket.getsockname() == str(path)
    assert not path.exists()
    replaced = UnixListener(path, 0o600)
    path.unlink()
    other = UnixListener(path, 0o600)
    replaced.close()
    assert path.is_socket()
    other.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A process that was killed leaves one."""
    path = tmp_path / "a.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.listen()
    left.close()
    with closing(UnixListener(path, 0o600)) as made, socket.socket(socket.AF_UNIX) as client:
        made.socket.listen()
        client.connect(str(path))


def test_what_is_in_use_or_no_socket_is_left_alone(tmp_path: Path) -> None:
    """Each with its reason."""
    path, file = tmp_path / "a.sock", tmp_path / "file"
    file.write_text("mine")
    with closing(UnixListener(path, 0o600)) as made:
        made.socket.listen()
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            UnixListener(path, 0o600)
        with pytest.raises(FileExistsError, match="there is a file that is no socket"):
            UnixListener(file, 0o600)
        assert path.is_socket()
        assert "mine" == file.read_text()
    remove_stale(tmp_path / "none")
