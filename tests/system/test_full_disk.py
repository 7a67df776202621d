"""A disk that runs full: the log stops in time, so that all that was acknowledged is stored, and goes on when there is room."""

import base64
import os
import time
from pathlib import Path

import httpx
import pytest
from support.processes.program import MakeProgram, metric, started
from support.processes.small_disk import small_disk
from support.waiting import until

from collector.runtime.disk import measure

MIB = 1024 * 1024


def fill(file: Path, disk: Path, left: int) -> None:
    """Until so much is free. In steps: the engine takes and gives back room meanwhile."""
    with file.open("wb") as out:
        while (room := measure(disk).free - left) > 0:
            out.write(bytes(min(room, MIB)))
            out.flush()


def test_a_full_disk_is_no_trap(tmp_path: Path, make_program: MakeProgram) -> None:
    """48 MiB, with the default reserve of half of so small a disk: past it 503 with the reason, at every request and without
    flapping, while what was acknowledged drains into the store."""
    reserve = {"local_log__reserve_percent": 10, "local_log__reserve_bytes_min": "512 MiB"}
    # For an insert the engine wants twice its size free: on so small a disk an insert must be small too.
    writer = {"writer__linger_ms": 1000, "writer__bytes_max": "2 MiB"}
    with small_disk(tmp_path / "data", 48) as disk, started(make_program(**reserve, **writer)) as program:
        filler, second_filler = disk / "filler", disk / "filler-2"
        filler.write_bytes(bytes(14 * MIB))
        acknowledged = 0
        with httpx.Client(base_url=program.http, timeout=20) as client:

            def send() -> httpx.Response:
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                body = base64.b64encode(os.urandom(60_000)).decode()
                return client.post(
                    "/api/v1/telemetry", json={"service_id": "full", "type": "log", "body": body, "timestamp": now}
                )

            while (answer := send()).status_code == 200:
                acknowledged += 1
            assert (503, "storage_full") == (answer.status_code, answer.json()["error"]), acknowledged
            assert "are reserved for the store: free space, or lower local_log.reserve_percent" in answer.json()["message"]
            assert acknowledged > 10
            # Another program takes most of what is left: then the room that the log gives back is not enough to go on with.
            fill(second_filler, disk, 8 * MIB)
            # Not by infrasage_log_lag_messages: it is measured every few seconds, and may be from before the first request.
            program.wait_for("SELECT count() FROM otel_logs", acknowledged)
            for _ in range(10):
                health = client.get("/healthz")
                assert (503, "disk full", "ok") == (health.status_code, health.json()["kafka"], health.json()["clickhouse"])
                assert 503 == send().status_code
            reserved = metric(program.http, "infrasage_disk_reserve_bytes")
            assert 24 * MIB == reserved
            until(lambda: 0 < metric(program.http, "infrasage_disk_free_bytes") < reserved)
            assert acknowledged == int(program.value("SELECT count() FROM otel_logs"))

            filler.unlink()
            second_filler.unlink()
            until(lambda: client.get("/healthz").status_code == 200)
            assert 200 == send().status_code
            acknowledged += 1
        assert 0 == program.stop()
        assert acknowledged == int(program.value("SELECT count() FROM otel_logs"))
        assert 1 <= program.log().count("the disk is low") <= 3


@pytest.mark.parametrize("body_bytes", [60_000, 300_000])
def test_a_log_with_a_disk_of_its_own_is_no_trap(body_bytes: int, tmp_path: Path, make_program: MakeProgram) -> None:
    """24 MiB for the log alone, and a store that is away until it is full: past the reserve 503 with the reason. The next start
    stores all that was acknowledged: the log's own checkpoints leave room for it."""
    program = make_program(
        local_log__reserve_percent=10,
        local_log__reserve_bytes_min="512 MiB",
        writer__linger_ms=1000,
        clickhouse__url="http://127.0.0.1:9",
    )
    program.data_dir.mkdir(mode=0o700)
    acknowledged = 0

    def send(client: httpx.Client) -> httpx.Response:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = base64.b64encode(os.urandom(body_bytes)).decode()
        return client.post("/api/v1/telemetry", json={"service_id": "full", "type": "log", "body": body, "timestamp": now})

    with small_disk(program.data_dir / "log", 24) as disk:
        with started(program), httpx.Client(base_url=program.http, timeout=20) as client:
            while (answer := send(client)).status_code == 200:
                acknowledged += 1
            assert (503, "storage_full") == (answer.status_code, answer.json()["error"]), acknowledged
            assert f"the disk of {disk} has" in answer.json()["message"]
            assert 12 * MIB == metric(program.http, "infrasage_disk_reserve_bytes")
            assert 6 * MIB < measure(disk).free
            program.kill()
        assert acknowledged > 10
        del program.settings["clickhouse__url"]
        with started(program), httpx.Client(base_url=program.http, timeout=20) as client:
            program.wait_for("SELECT count() FROM otel_logs", acknowledged)
            until(lambda: send(client).status_code == 200)
            assert 0 == program.stop()
