"""The embedded store's directory taken away while the collector runs: what is acknowledged waits in the log, and is stored."""

import json
import time

import httpx
from support.processes.program import MakeProgram, run
from support.senders import COUNTS_SQL, Senders
from support.waiting import until


def test_a_store_that_is_moved_away_loses_nothing(make_program: MakeProgram) -> None:
    """The engine makes the directories again, and inserts succeed in them: none of these counts. Put back, and after a restart,
    everything is stored once."""
    program = make_program(writer__linger_ms=5, writer__bytes_max=20_000, query__wait_s=30)
    program.start()
    store, away = program.data_dir / "store", program.data_dir.parent / "away"

    def health() -> tuple[int, str]:
        answer = httpx.get(f"{program.http}/healthz", timeout=20)
        return answer.status_code, answer.json()["clickhouse"]

    with Senders(program.http_port, threads=4) as senders:
        until(lambda: len(senders.acknowledged) > 100)
        store.rename(away)
        until(lambda: health() == (200, "degraded"))
        before = len(senders.acknowledged)
        until(lambda: len(senders.acknowledged) > before + 100)
        if store.exists():
            store.rename(away.with_name("made again"))
        away.rename(store)
        time.sleep(1)
        assert (200, "degraded") == health()
    assert 0 == program.stop()
    assert "the store can't be used" in program.log()
    program.start()
    counts = {int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)}
    senders.check(counts)
    assert not senders.refused
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (0, 0) == (audited.returncode, json.loads(audited.stdout)["difference"])
