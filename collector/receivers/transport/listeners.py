"""Sockets that servers listen on: addresses of TCP, and files.

Invariants:
1. `::` is every address of the machine, including IPv4's. Several addresses have the same port, also if any free port is wanted
   (test_every_address_has_the_same_port, test_two_colons_are_ipv4_too).
2. A socket file is replaced if no process listens on it. A socket file in use and any other kind of file are not replaced
   (test_a_stale_socket_is_replaced, test_what_is_in_use_or_no_socket_is_left_alone).
3. A socket file has its mode before a client can connect. The process that made it removes it, and only if it is still its own
   (test_a_socket_file_has_its_mode_and_is_removed).
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_EVERY_IPV6: Final = "::"
_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104  # the user asked for all addresses
# A free port of the first address may be in use on the next one.
_FREE_PORT_TRIES: Final = 8
_PROBE_S: Final = 1.0


def bind_tcp(hosts: Sequence[str], port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Return a socket, bound and not listening, for each address. Port 0 is a free port, the same for all. Raises OSError, and
    socket.gaierror for an unknown name."""
    for tries_left in reversed(range(_FREE_PORT_TRIES)):
        try:
            return _bind_all(hosts, port, reuse_port=reuse_port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError("unreachable")


def _bind_all(hosts: Sequence[str], port: int, *, reuse_port: bool) -> list[socket.socket]:
    bound: dict[tuple[int, str], socket.socket] = {}
    with contextlib.ExitStack() as stack:
        for host in (*hosts, *([_EVERY_IPV4] if _EVERY_IPV6 in hosts else [])):
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
                where = (int(family), str(address[0]))
                if where in bound:
                    continue
                try:
                    one = stack.enter_context(_bound(family, (address[0], port, *address[2:]), reuse_port=reuse_port))
                except OSError as error:
                    if host == _EVERY_IPV4 and host not in hosts and error.errno == errno.EAFNOSUPPORT:
                        continue  # a machine without IPv4
                    raise
                bound[where] = one
                port = one.getsockname()[1]
        stack.pop_all()
    return list(bound.values())


def _bound(family: int, address: tuple[object, ...], *, reuse_port: bool) -> socket.socket:
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.setblocking(False)
        stack.pop_all()
    return one


class UnixListener:
    """A socket file that exists from construction until `close`. Raises OSError."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path: Final = path
        remove_stale(path)
        self.socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(str(path))
            path.chmod(mode)  # no client can have connected before: the socket does not listen yet
            self._made: Final = _identity(path)
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def close(self) -> None:
        """Remove the file, unless another process has replaced it."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()
        self.socket.close()


def remove_stale(path: Path) -> None:
    """Remove a socket file that no process listens on. Raises OSError: EADDRINUSE if one does, EEXIST if it is another kind of
    file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass  # its backlog is full, or it belongs to another user: it is in use
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
