"""What the connections of one server have in common."""

from unittest.mock import Mock

import structlog

from collector.metrics import Metrics
from collector.receive.servers.connections import Connections


def test_one_that_cannot_be_looked_at_is_closed_and_the_others_keep_their_deadlines() -> None:
    shared = Connections(Metrics(), connections_max=10, handshake_timeout_s=1)
    broken, others = Mock(), [Mock() for _ in range(5)]
    broken.close_if_late.side_effect = ZeroDivisionError("a defect")
    shared.open.update((broken, *others))
    with structlog.testing.capture_logs() as logs:
        for now in (1.0, 2.0):
            shared.tick(now)
    assert [[1.0], [2.0]] == [list(call.args) for call in others[0].close_if_late.call_args_list]
    assert {2} == {other.close_if_late.call_count for other in others}
    assert set(others) == shared.open
    broken.abort.assert_called_once_with()
    assert ["error"] == [entry["log_level"] for entry in logs]
