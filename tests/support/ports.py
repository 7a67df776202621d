"""Free ports for processes that a test starts, and starts again.

A port that is bound as 0 and then closed comes from the range that outgoing connections take theirs from (on Linux from 32768):
on a busy machine one of them takes it before the process listens. These come from below that range.
"""

import random
import socket
from typing import Final

_PORTS: Final = range(10_240, 32_000)
_ATTEMPTS_MAX: Final = 100
_random: Final = random.SystemRandom()  # the processes of one run seed the usual one alike


def free_ports(count: int) -> list[int]:
    """Return so many different ports on which nothing listens on loopback just now."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(_ATTEMPTS_MAX * count):
            one = socket.socket()
            sockets.append(one)
            try:
                one.bind(("127.0.0.1", _random.choice(_PORTS)))
            except OSError:
                sockets.pop().close()
            if len(sockets) == count:
                return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
    raise OSError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def free_port() -> int:
    """Return a port on which nothing listens on loopback just now."""
    return free_ports(1)[0]
