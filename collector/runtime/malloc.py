"""Keep memory that was used in the process, up to a bound, since requests and inserts need such buffers again and again.

glibc would give each large buffer back to the kernel, and take it again page by page: a third of the cost of a 160 KB request.
The process keeps at most the memory that was in use at once, and at the end of the heap no more free memory than the bound.
"""

import ctypes
import os
from typing import Final

# mallopt(3): the size from which a buffer is given back at once (glibc allows at most 32 MiB), and how much may stay free.
_MMAP_THRESHOLD: Final = (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 1024 * 1024)
_TRIM_THRESHOLD: Final = (-1, "MALLOC_TRIM_THRESHOLD_", 128 * 1024 * 1024)


def keep_memory() -> bool:
    """Set the bounds, unless the environment does. Return whether this is a glibc that has done so. Call it early."""
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
