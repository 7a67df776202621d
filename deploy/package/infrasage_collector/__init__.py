"""The collector as it is installed: its packages `adapters` and `collector` are in this folder.

These names are too common for top-level modules of a distribution: another one's files would be overwritten, or found in their
place. So they can be imported only in a process that imports this package, as the command does: docs/adr/0036.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    """Run the command."""
    from collector.cli.entry import main as run  # noqa: PLC0415  # found by way of the line above

    run()
