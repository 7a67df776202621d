"""A log that is full: senders are asked to wait, nothing is dropped, and its space comes back."""

import time

import httpx
from google.rpc.status_pb2 import Status
from support.processes.program import MakeProgram
from support.senders import otlp_logs


def test_a_full_log_refuses_and_recovers(make_program: MakeProgram) -> None:
    """Past local_log.bytes_max the answer is 503 with Retry-After, for every protocol; once stored, there is room again."""
    # What comes after the first record waits so long for more that the log fills up.
    program = make_program(local_log__bytes_max="128 KiB", writer__linger_ms=2000, broker__retry_after_s=2)
    program.start()
    acknowledged = 0
    with httpx.Client(base_url=program.http, timeout=20) as client:

        def send() -> httpx.Response:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            return client.post(
                "/api/v1/telemetry", json={"service_id": "full", "type": "log", "body": "x" * 9000, "timestamp": now}
            )

        assert send().status_code == 200
        assert program.value("SELECT count() FROM otel_logs") == 1
        acknowledged += 1
        for _ in range(100):
            answer = send()
            if answer.status_code != 200:
                break
            acknowledged += 1
        assert answer.status_code == 503, f"{acknowledged} records of 9 KB fitted into 128 KiB"
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["error"] == "storage_full"
        assert 2 <= acknowledged <= 14
        health = client.get("/healthz")
        assert (health.status_code, health.json()["status"], health.json()["kafka"]) == (503, "unavailable", "full")

        # A log record without attributes, as large: OTLP says it its own way.
        otlp = client.post(
            "/v1/logs", content=otlp_logs(["y" * 60_000, "y" * 60_000]), headers={"Content-Type": "application/x-protobuf"}
        )
        assert (otlp.status_code, otlp.headers["retry-after"]) == (503, "2")
        assert Status.FromString(otlp.content).message

        until = time.monotonic() + 15
        while (answer := send()).status_code == 503:
            assert time.monotonic() < until, "the log's space does not come back"
            time.sleep(0.2)
        acknowledged += 1
        assert answer.status_code == 200
    assert program.stop() == 0
    (row,) = program.query(
        "SELECT countIf(service_id = 'full') AS kept, countIf(startsWith(body, 'y')) AS refused FROM telemetry"
    )
    assert (int(row["kept"]), int(row["refused"])) == (acknowledged, 0)
