"""What somebody does to the tables by hand while no collector runs: statements that are no business of ours.

`python by_hand.py STORE STATEMENT…`: in a process of its own, since the engine opens one directory in its life.
"""

import subprocess
import sys
from pathlib import Path

import clickhouse_connect


def change(data_dir: Path, *statements: str) -> None:
    """On the embedded engine's directory."""
    command = [sys.executable, __file__, str(data_dir / "store"), *statements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
    for statement in sys.argv[2:]:
        client.command(statement, settings={"mutations_sync": 2})
    client.close()
