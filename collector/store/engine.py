"""The embedded engine's library, loaded so that its pools of threads are bounded.

The engine keeps three files of /proc open for each of its threads, for as long as the thread lives. By default it keeps 1,000
idle threads and removes parts with 128 at once: hundreds of file descriptors after some minutes. It sizes its pools once in a
process, when it is first opened, and its Python package opens it while it is imported. So the package is imported here, and its
first connection has the sizes from here. The sizes of a later connection have no effect.

Invariants:
1. After a burst of work idle threads end, and their descriptors are closed. test_idle_threads_of_the_engine_end
"""

import contextlib
import ctypes
import importlib.util
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

_PACKAGE: Final = "chdb"
_LIBRARY: Final = f"{_PACKAGE}._chdb"
# The library prefers its own symbols to those of libraries that were loaded earlier. Its package loads it in this mode too.
_RTLD_DEEPBIND: Final = 0x00008

# The engine's server settings. The first limits idle threads, the others the threads that one job uses at once.
_POOLS: Final = (
    "max_thread_pool_free_size",
    "max_parts_cleaning_thread_pool_size",
    "max_active_parts_loading_thread_pool_size",
    "max_outdated_parts_loading_thread_pool_size",
    "max_unexpected_parts_loading_thread_pool_size",
    "max_io_thread_pool_size",
    "max_prefixes_deserialization_thread_pool_size",
    "threadpool_local_fs_reader_pool_size",
    "threadpool_writer_pool_size",
    "prefetch_threadpool_pool_size",
    "load_marks_threadpool_pool_size",
)


def load_engine(threads_max: int) -> None:
    """Load the engine's library, with at most `threads_max` threads in each pool, unless this process has loaded it already."""
    if _LIBRARY in sys.modules:
        return
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return  # the client reports that the package is missing
    file = Path(package.origin).with_name("_chdb.abi3.so")
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(file), mode=sys.getdlopenflags() | (_RTLD_DEEPBIND if sys.platform == "linux" else 0))
    spec = importlib.util.spec_from_file_location(_LIBRARY, file)
    assert spec is not None
    assert spec.loader is not None
    library: Any = importlib.util.module_from_spec(spec)
    working_dir = Path.cwd()
    os.chdir(file.parent)  # the library looks for its other parts in the working directory
    try:
        spec.loader.exec_module(library)
    finally:
        os.chdir(working_dir)
    sys.modules[_LIBRARY] = library
    connect = library.connect
    library.connect = partial(connect, f":memory:?{urlencode(dict.fromkeys(_POOLS, threads_max))}")
    try:
        importlib.import_module(_PACKAGE)
    finally:
        library.connect = connect
