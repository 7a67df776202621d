"""Runs all suites, one after the other, and writes the report: `make bench`.

    python bench/run.py [gateway shapes remote_write latency writer embedded growth hostile] [--quick]

It has no suite for the engine's whole life of a row, since ten million rows take hours: run bench/store.py by itself.

Without names it runs all of them, for about 40 minutes. --quick takes a few minutes, and only shows whether they work; its
numbers mean little. Each suite writes its results into bench/results, in the place of earlier results of the same row. Then
bench/report.py writes docs/internals/performance.md and its chart from all results.

Each suite can be run by itself, with more options: its --help lists them and what it needs. If a suite fails, the others still
run, and the exit status is 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import measuring

HERE: Final = Path(__file__).resolve().parent
QUICK: Final = {
    "gateway": ["--rounds", "2", "--seconds", "0.5"],
    "shapes": ["--rounds", "2", "--seconds", "0.5"],
    "remote_write": ["--rounds", "2", "--seconds", "0.5"],
    "latency": ["--rounds", "2", "--seconds", "2"],
    "writer": ["--rounds", "2", "--rows", "200000"],
    "embedded": ["--rounds", "2", "--rows", "200000"],
    "growth": ["--rounds", "2", "--seconds", "0.5"],
    "hostile": ["--seconds", "0.5"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(QUICK)}; none: all")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(QUICK):
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    failed = []
    for suite in options.suites or [suite for suite in QUICK if (HERE / f"{suite}.py").exists()]:
        print(f"\n{suite}", flush=True)
        command = [sys.executable, str(HERE / f"{suite}.py"), "--keep", *(QUICK[suite] if options.quick else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(suite)
        else:
            measuring.note(suite)
    subprocess.run([sys.executable, str(HERE / "report.py")], check=True)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
