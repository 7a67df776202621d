"""Replace small files as a whole: after a crash there is the old file or the new one."""

import os
from pathlib import Path


def replace_text(file: Path, text: str) -> None:
    """Replace the contents of a file, or make the file. Raises OSError."""
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w", encoding="utf-8") as writing:
        writing.write(text)
        writing.flush()
        os.fsync(writing.fileno())
    partial.replace(file)
