"""A machine whose clock is set while programs run: a library that programs load before others (LD_PRELOAD, so Linux only).

Only the clock that tells the date is changed; the monotonic one goes on, as on a real machine.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long offset(void) {
    char text[32] = {0};
    int file = open(getenv("MACHINE_CLOCK"), O_RDONLY);
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    return size > 0 ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class MachineClock:
    """The clock of the programs that have `environment`."""

    def __init__(self, place: Path) -> None:
        """Compiles the library. Where there is no compiler the test is skipped, or, in CI, fails."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            why = "NOT TESTED: a clock that jumps; there is no C compiler"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        source, self._library = place / "clock.c", place / "clock.so"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self._library, source, "-ldl"], check=True)
        self._file: Final = place / "offset"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "MACHINE_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        """To so many seconds after the real time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._file)
        self.offset_s = offset_s

    def set_to(self, unix_s: int) -> None:
        self.set(unix_s - int(time.time()))

    def now(self) -> float:
        """What the machine's programs take for the time, in seconds since 1970."""
        return time.time() + self.offset_s
