"""Every decoder under Atheris, a fuzzer that is guided by coverage. `make fuzz` runs this.

    make fuzz                                            each target for a minute
    make fuzz ARGS="--target otlp_traces --seconds 3600"

What is found at all is kept in $FUZZ_DIR (by default ~/.cache/infrasage-fuzz), and gone on from the next time. A failing input
is written there as crash-… (timeout-…, oom-…), and the line that repeats it is printed. With --merge, what is new there and
small enough goes into tests/fuzz/corpus, of which every `make test` runs each file.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
# Of what is committed: so much of a file, and so many files of a target.
FILE_BYTES_MAX = 1024
FILES_MAX = 40
# An input that takes longer hangs; one that takes more memory would hurt others. Uncompiled and instrumented, all is slow.
INPUT_SECONDS_MAX = 10
MEMORY_MB_MAX = 2048


def child(target: str, arguments: list[str]) -> None:
    """In a process of its own, under the fuzzer, until it ends the process."""
    import atheris  # type: ignore[import-untyped]  # only `make fuzz` installs it; it has no types

    with atheris.instrument_imports(include=["adapters", "collector"]):
        from support.strategies.fuzzing import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def fuzz(target: str, seconds: int, found: Path, *more: str) -> int:
    seeds = CORPUS / target
    limits = [f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MB_MAX}", "-max_len=4096", f"-artifact_prefix={found}/"]
    # One run is over in seconds; without a limit it would go on for ever.
    command = [
        sys.executable,
        __file__,
        "--child",
        target,
        *limits,
        f"-max_total_time={seconds}",
        *more,
        str(found),
        str(seeds),
    ]
    print(f"{target}: {' '.join(command[1:])}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        print(f"{target} FAILED. To repeat it: {sys.executable} {__file__} --child {target} FILE, of {found}", flush=True)
    return status


def merge(target: str, found: Path) -> None:
    """What adds coverage to the corpus, the smallest first."""
    into = CORPUS / target
    room = FILES_MAX - len(list(into.iterdir()))
    small = sorted(
        (path for path in found.iterdir() if path.stat().st_size <= FILE_BYTES_MAX), key=lambda path: path.stat().st_size
    )
    chosen = found.with_name(f"{target}.chosen")
    chosen.mkdir(exist_ok=True)
    for path in small:
        (chosen / path.name).write_bytes(path.read_bytes())
    merged = found.with_name(f"{target}.merged")
    merged.mkdir(exist_ok=True)
    subprocess.run([sys.executable, __file__, "--child", target, "-merge=1", str(merged), str(into), str(chosen)], check=True)
    for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:room]:
        (into / path.name[:16]).write_bytes(path.read_bytes())


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return 0
    targets = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=targets, action="append", help="one of them; may be said several times")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--merge", action="store_true", help="what is new goes into the corpus")
    options = parser.parse_args()
    directory = Path(os.environ.get("FUZZ_DIR") or Path.home() / ".cache/infrasage-fuzz")
    failed = []
    for target in options.target or targets:
        found = directory / target
        found.mkdir(parents=True, exist_ok=True)
        if fuzz(target, options.seconds, found):
            failed.append(target)
        elif options.merge:
            merge(target, found)
    print(f"failed: {', '.join(failed)}" if failed else "nothing was found that should not be", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
