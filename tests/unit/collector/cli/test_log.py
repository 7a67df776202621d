"""`log show` and `log confirm`."""

import json
from pathlib import Path

from support.processes.program import run

from collector.broker.local_log.incidents import Damage, Incidents


def damaged(data_dir: Path) -> None:
    incidents = Incidents(data_dir, now=lambda: 1_700_000_000)
    incidents.report(
        [
            Damage(topic="infrasage.logs", start=3, end=32, reason="checksum", requests=[{"where": "before", "sequence": 7}]),
            Damage(topic="infrasage.metrics", start=0, end=1, reason="missing"),
        ]
    )
    Incidents(data_dir, now=lambda: 1_700_000_000).keep("messages.sqlite", b"x")


def test_what_was_damaged_is_shown_and_confirmed(tmp_path: Path) -> None:
    """It is shown also after that; a second confirmation has nothing to do."""
    damaged(tmp_path)
    shown = run("log", "show", "--data-dir", tmp_path).stdout.splitlines()
    folder = "damaged-20231114T221320Z"
    assert [
        ["FOLDER", "CONFIRMED", "TOPIC", "OFFSETS", "MESSAGES", "REASON"],
        [folder, "no", "infrasage.logs", "3", "to", "31", "29", "checksum"],
        [folder, "no", "infrasage.metrics", "0", "to", "0", "1", "missing"],
        [f"{folder}-2", "no", "-", "-", "0", *["files", "were", "damaged,", "all", "messages", "were", "recovered"]],
    ] == [line.split() for line in shown]
    confirmed = run("log", "confirm", "--data-dir", tmp_path)
    assert (0, 2) == (confirmed.returncode, confirmed.stdout.count("confirmed "))
    assert f"{folder}: 30 messages lost" in confirmed.stdout
    assert "nothing to confirm\n" == run("log", "confirm", "--data-dir", tmp_path).stdout
    first, second = json.loads(run("log", "show", "--json", "--data-dir", tmp_path).stdout)
    assert (True, 30, True, 0) == (first["confirmed"], first["messages"], second["confirmed"], second["messages"])
    assert {"where": "before", "sequence": 7} == first["damages"][0]["requests"][0]


def test_where_nothing_was_damaged(tmp_path: Path) -> None:
    assert "nothing was damaged\n" == run("log", "show", "--data-dir", tmp_path).stdout
    missing = run("log", "show", "--data-dir", tmp_path / "none")
    assert (1, True) == (missing.returncode, "there is no data directory" in missing.stderr)
