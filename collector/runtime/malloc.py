"""Memory that was used stays with the process, up to a bound: buffers of requests and inserts come again and again.

glibc would give each large one back to the kernel, and take it again page by page: a third of what a request of 160 KB cost.
What is kept is at most what was in use at once, and no more than the bound of what is free at the end of the heap.
"""

import ctypes
import os
from typing import Final

# mallopt(3): what is allocated by itself and given back at once (32 MiB is the most that glibc takes), and what may stay free.
_MMAP_THRESHOLD: Final = (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 1024 * 1024)
_TRIM_THRESHOLD: Final = (-1, "MALLOC_TRIM_THRESHOLD_", 128 * 1024 * 1024)


def keep_memory() -> bool:
    """To be called before much is allocated. Whether there is a glibc that does so; what the environment says goes first."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # another C library
    done = [
        mallopt(option, size) == 1
        for option, variable, size in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
        if variable not in os.environ
    ]
    return all(done)
