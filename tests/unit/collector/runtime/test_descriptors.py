"""File descriptors: in processes of their own, since a limit holds for all of one."""

import json
import subprocess
import sys

from structlog.testing import capture_logs
from support.processes.program import environment

from collector.runtime.descriptors import Descriptors

PREPARE = """
import json, resource, sys
from structlog.testing import capture_logs
from collector.runtime.descriptors import prepare
soft, hard, connections, reserve = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with capture_logs() as logged:
    found = prepare(connections, reserve, lambda: None)
print(json.dumps([found.limit, found.reserve, resource.getrlimit(resource.RLIMIT_NOFILE), logged]))
"""


def prepared(soft: int, hard: int, connections: int, reserve: int) -> tuple[int, int, list[int], list[dict[str, object]]]:
    """The limit that is in force, the reserve, the process's limits, and what was logged."""
    arguments = map(str, (soft, hard, connections, reserve))
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, *arguments], env=environment(), capture_output=True, text=True, check=True
    )
    limit, kept, limits, logged = json.loads(done.stdout)
    return limit, kept, limits, logged


def test_the_limit_is_raised() -> None:
    """It is raised to what is needed, and no further, without a message."""
    assert (300, 100, [300, 400], []) == prepared(64, 400, 200, 100)


def test_a_limit_that_is_enough_is_left_alone() -> None:
    assert (400, 100, [400, 400], []) == prepared(400, 400, 200, 100)


def test_a_limit_that_is_too_low_is_a_warning() -> None:
    """It is raised as far as it can be; the numbers are said; and the reserve is half of it at most."""
    limit, reserve, limits, (warning,) = prepared(64, 150, 200, 100)
    assert (150, 75, [150, 150]) == (limit, reserve, limits)
    assert ("warning", 150, 300, 200, 100) == (
        warning["log_level"],
        warning["open_files_max"],
        warning["needed"],
        warning["connections_max"],
        warning["open_files_reserve"],
    )
    assert "ulimit -n" in str(warning["event"])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_connections_leave_the_reserve() -> None:
    """Those with the highest numbers have no room, also where a burst was accepted before the first of it was looked at."""
    found = Descriptors(100, 10, lambda: None)
    assert [True, True, False, False, True] == [found.has_room(descriptor) for descriptor in (3, 89, 90, 99, 89)]


def test_a_shortage_is_one_line_a_minute() -> None:
    """Each that is refused is counted."""
    clock = Clock()
    refused: list[None] = []
    found = Descriptors(100, 10, lambda: refused.append(None), clock)
    with capture_logs() as logged:
        for clock.now in (0.0, 1.0, 59.0, 60.0, 119.0, 121.0):
            found.ran_out()
    assert 6 == len(refused)
    assert 3 == len(logged)
    assert all("ulimit -n" in entry["event"] for entry in logged)
