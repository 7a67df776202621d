""".ci/checks/second_try.py, which decides which failed tests of CI run once more (ADR 45)."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / ".ci/checks/second_try.py"))
refusal = SCRIPT["refusal"]
SYSTEM = "tests/system/test_fronts.py::test_a_rolling_restart_fails_no_request"


def test_a_few_tests_of_processes_get_a_second_try() -> None:
    assert refusal(1, [SYSTEM, "tests/integration/kafka/test_cluster.py::test_a", "tests/system/test_a.py::test_b"]) == ""


def test_so_do_tests_of_cpu_seconds() -> None:
    """All of tests/unit that read the CPU's clock, and no others."""
    measuring = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests/unit").rglob("test_*.py")
        if re.search("(process|thread)_time|loop_cpu_s", path.read_text())
    }
    assert measuring == set(SCRIPT["MEASURING"])
    assert refusal(1, [f"{path}::test_a" for path in sorted(measuring)[:3]]) == ""


@pytest.mark.parametrize(
    ("exit_status", "failed", "reason"),
    [
        (1, [f"{SYSTEM}[{number}]" for number in range(4)], "4 tests failed"),
        (1, [SYSTEM, "tests/unit/adapters/test_native.py::test_a"], "tests/unit/adapters/test_native.py::test_a"),
        (1, [], "did not come to its end"),
        (3, [SYSTEM], "exit status is 3"),
        (None, [SYSTEM], "exit status is None"),
    ],
    ids=["many", "a unit test", "none", "an internal error", "no status"],
)
def test_everything_else_fails(exit_status: int | None, failed: list[str], reason: str) -> None:
    assert reason in refusal(exit_status, failed)
