"""Whether the paths of files that are open still lead to them.

A file that is removed or renamed stays usable through its descriptor, so nothing fails; but what is written to it is gone
with the process.

Invariants:
1. What is removed, renamed or replaced is noticed, and also that it is back (test_a_log_that_is_removed_takes_nothing,
   test_a_log_that_is_put_back_goes_on).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_WHAT_TO_DO: Final = "put it back, or restart the collector; what it holds is stored meanwhile, and nothing new is taken"


class OpenPaths:
    """Paths, and the files that they led to."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises OSError."""
        self._files: Final = [(str(file), file.stat()) for file in files]

    def gone(self) -> str | None:
        """Return which of them leads elsewhere, or nowhere; None: none does. Costs a microsecond for each."""
        for path, opened in self._files:
            try:
                found = os.stat(path)  # noqa: PTH116  # a Path takes three times as long
            except OSError as error:
                what = "was removed" if isinstance(error, FileNotFoundError) else f"can't be looked at ({error.strerror})"
                return f"{path} {what} while it was in use: {_WHAT_TO_DO}"
            if found.st_ino != opened.st_ino or found.st_dev != opened.st_dev:
                return f"{path} was replaced while it was in use: {_WHAT_TO_DO}"
        return None
