"""Memory that was used is kept: in processes of their own, since what is set holds for all of one."""

import subprocess
import sys

import pytest

# Page faults of so many large buffers, each freed before the next.
COUNT = """
import resource
from collector.runtime.malloc import keep_memory
assert {asked} == keep_memory() if {asked} else True
for _ in range(10):
    bytearray(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, asked: bool, **environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", COUNT.format(asked=asked)], env=environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is counted is glibc's doing")
def test_a_large_buffer_is_not_taken_anew_each_time() -> None:
    """8 MiB are 2048 pages: without it each buffer costs a fault for every one, with it next to none."""
    assert faults(asked=True) < 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is counted is glibc's doing")
def test_the_environment_goes_first() -> None:
    assert faults(asked=True, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536") > 10_000
