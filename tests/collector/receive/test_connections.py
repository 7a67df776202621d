"""What the connections of one server have in common."""

import structlog

from collector.metrics import Metrics
from collector.receive.servers.connections import Connections


class Watched:
    """A connection that remembers when it was looked at."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.looked_at: list[float] = []
        self.aborted = 0

    def close_if_late(self, now: float) -> None:
        self.looked_at.append(now)
        if self.is_broken:
            raise ZeroDivisionError("a defect")

    def shutdown(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1


def test_one_that_cannot_be_looked_at_is_closed_and_the_others_keep_their_deadlines() -> None:
    shared = Connections(Metrics(), connections_max=10, handshake_timeout_s=1)
    broken, others = Watched(is_broken=True), [Watched() for _ in range(5)]
    shared.open.update((broken, *others))
    with structlog.testing.capture_logs() as logs:
        for now in (1.0, 2.0):
            shared.tick(now)
    assert [[1.0, 2.0]] * 5 == [other.looked_at for other in others]
    assert ([1.0], 1, 0) == (broken.looked_at, broken.aborted, sum(other.aborted for other in others))
    assert set(others) == shared.open
    assert ["error"] == [entry["log_level"] for entry in logs]
