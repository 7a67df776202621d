"""Runs the few tests that failed in a run of all tests once more, without other tests, if the machine may be the cause (ADR
45).

Exit status 0: each of them passed. The status is 1 if more than `FAILED_MAX` tests failed, or if one of them neither drives
another process nor measures. It is not 0 either if the run did not finish, or if a test fails again. The run must have begun
without `.pytest_cache`.
"""

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

FAILED_MAX = 3
# Tests that wait for brokers, engines, browsers and sockets, which a busy machine may hold up.
FOLDERS = ("tests/system/", "tests/integration/")
# Tests that limit CPU seconds, which other processes on the same cores increase. No other tests get a second try.
MEASURING = (
    "tests/unit/adapters/codec/test_decompress.py",
    "tests/unit/adapters/native/test_request.py",
    "tests/unit/adapters/prometheus/test_write_v1.py",
    "tests/unit/adapters/test_price.py",
    "tests/unit/collector/api/test_metrics_page.py",
    "tests/unit/collector/http2/test_engine.py",
    "tests/unit/collector/ingest/test_large_bodies.py",
    "tests/unit/collector/ingest/test_pipeline.py",
    "tests/unit/collector/receivers/test_decompress.py",
)
_CACHE = Path(".pytest_cache/v")
_TESTS_FAILED = 1  # pytest's exit status if the run finished and tests failed


def refusal(exit_status: int | None, failed: Collection[str]) -> str:
    """Return why these tests get no second try; "" if they get one. `exit_status` is that of pytest, or None if it wrote
    none."""
    if exit_status != _TESTS_FAILED or not failed:
        return f"the run did not come to its end with failed tests: pytest's exit status is {exit_status}"
    if len(failed) > FAILED_MAX:
        return f"{len(failed)} tests failed, and at most {FAILED_MAX} get a second try"
    others = [test for test in failed if not test.startswith((*FOLDERS, *MEASURING))]
    if others:
        return f"these drive no other process and measure nothing, so the machine is no excuse: {', '.join(others)}"
    return ""


def _read(name: str) -> object:
    try:
        return json.loads((_CACHE / name).read_text())
    except FileNotFoundError:
        return None


def main() -> int:
    """Run the failed tests again if they get a second try. Return the exit status."""
    exit_status, failed = _read("infrasage/exit_status"), _read("cache/lastfailed")
    tests = sorted(failed) if isinstance(failed, dict) else []
    reason = refusal(exit_status if isinstance(exit_status, int) else None, tests)
    if reason:
        print(f"No second try: {reason}.", file=sys.stderr)
        return 1
    print(f"{len(tests)} tests failed beside others. Each gets a second try, alone.", flush=True)
    command = [sys.executable, "-P", "-m", "pytest", "-n", "0", *tests]
    code = subprocess.run(command, check=False).returncode  # noqa: S603  # names of our own tests
    if code == 0:
        print("UNSTABLE: failed beside others, passed alone. Find out why:\n  " + "\n  ".join(tests))
    return code


if __name__ == "__main__":
    sys.exit(main())
