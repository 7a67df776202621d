"""Prometheus as a child process, on a configuration of the test's."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# What it keeps, and so sends, only if configured: exemplars; types and units, as labels too; start timestamps. 3.13 has all
# (and metadata-wal-records, which would have it send help texts, but does not heed it).
FEATURES: Final = ("exemplar-storage", "type-and-unit-labels", "st-storage", "xor2-encoding")


@contextmanager
def prometheus(command: Path, place: Path, config: str, *arguments: str) -> Iterator[None]:
    """Prometheus, while the context lasts: afterwards it has said that all it sent was taken."""
    (place / "prometheus.yml").write_text(config, encoding="utf-8")
    log_path = place / "prometheus.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [
                *(command, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb"),
                *("--web.listen-address=127.0.0.1:0", "--scrape.discovery-reload-interval=100ms", *arguments),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
    said = log_path.read_text()
    assert "non-recoverable" not in said
    assert "some data was not written" not in said
