"""A local log that lost messages, as an operator sees it."""

import json
import shutil
import time

import httpx
from support.processes.program import MakeProgram, metric, run
from support.waiting import until


def test_a_loss_is_shown_until_it_is_confirmed(make_program: MakeProgram) -> None:
    """A write-ahead log that is removed: the start says what is lost, /healthz, metrics and the audit show it, and after
    `log confirm`, while the collector runs, they do no more. What came before and after is stored."""
    program = make_program(clickhouse__url="http://127.0.0.1:9")  # nothing is stored yet
    program.start()

    def send(body: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"service_id": "damage", "type": "log", "body": body, "timestamp": now}
        assert 200 == httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code

    for _ in range(3):
        send("lost")
    program.kill()
    shutil.move(program.data_dir / "log" / "messages.sqlite-wal", program.data_dir.parent / "removed")

    del program.settings["clickhouse__url"]
    program.start()
    send("after")
    assert "acknowledged messages of the local log are lost or damaged" in program.log()

    def health() -> tuple[int, str, str]:
        answer = httpx.get(f"{program.http}/healthz")
        return answer.status_code, answer.json()["status"], answer.json()["log"]

    until(lambda: health() == (200, "degraded", "damaged"))
    until(lambda: metric(program.http, "infrasage_log_lost_messages") == 3)
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (1, 3) == (audited.returncode, json.loads(audited.stdout)["log_lost_messages"])

    confirmed = run("log", "confirm", "--data-dir", program.data_dir)
    assert (0, True) == (confirmed.returncode, "3 messages lost" in confirmed.stdout)
    until(lambda: health() == (200, "ok", "ok"))
    until(lambda: metric(program.http, "infrasage_log_lost_messages") == 0)
    program.wait_for("SELECT groupArray(Body) FROM otel_logs", ["after"])
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (0, True) == (audited.returncode, json.loads(audited.stdout)["adds_up"])
