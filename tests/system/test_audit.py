"""The sum adds up whatever is killed; and whatever somebody takes away, or adds, is noticed and named."""

import json
import random
import time
from typing import Any

import grpc
import httpx
import pytest
from support.processes.by_hand import change
from support.processes.program import MakeProgram, Program, run
from support.senders import Senders, otlp_logs
from support.waiting import until

# Each takes something away, or adds it; what the audit then says of it.
TAMPERINGS: dict[str, tuple[str, str]] = {
    "a row removed": ("DELETE FROM otel_logs WHERE BatchId = '{batch}' AND Body = 'one'", "logs: accepted 3, stored 2"),
    "a row removed by a mutation": (
        "ALTER TABLE otel_logs DELETE WHERE BatchId = '{batch}' AND Body = 'one'",
        "logs: accepted 3, stored 2",
    ),
    "a row twice": (
        "INSERT INTO otel_logs SELECT * FROM otel_logs WHERE BatchId = '{batch}' AND Body = 'one'",
        "logs: accepted 3, stored 4",
    ),
    "a receipt removed": ("DELETE FROM telemetry_batches WHERE BatchId = '{batch}'", "no receipt"),
    "a receipt twice": (
        "INSERT INTO telemetry_batches SELECT * FROM telemetry_batches WHERE BatchId = '{batch}'",
        "2 receipts",
    ),
    "a dead letter removed": (
        "DELETE FROM telemetry_dead_letters WHERE BatchId = '{rejected}'",
        "dead letters: kept 1, there are 0",
    ),
}


def audit(program: Program, *more: str) -> tuple[int, dict[str, Any]]:
    """Its exit status, and what it says."""
    done = run("audit", "--json", "--data-dir", program.data_dir, *more, **program.settings)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def send(program: Program, *bodies: str) -> str:
    """The batch id."""
    headers = {"Content-Type": "application/x-protobuf"}
    answer = httpx.post(f"{program.http}/v1/logs", content=otlp_logs(list(bodies)), headers=headers)
    assert answer.status_code == 200
    return answer.headers["x-infrasage-batch-id"]


def send_rejected(program: Program) -> str:
    """One record that is rejected; the batch id."""
    answer = httpx.post(f"{program.http}/api/v1/telemetry", json={"service_id": "x", "type": "log"})
    assert answer.status_code == 400
    return answer.headers["x-infrasage-batch-id"]


def test_it_adds_up_whatever_is_killed(make_program: MakeProgram) -> None:
    """kill -9 at random, twice, under load: every difference is zero, running and not; and no request is lost."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    program = make_program(writer__linger_ms=5, query__wait_s=30)
    program.start()
    with Senders(program.http_port, threads=4) as senders:
        for _ in range(2):
            time.sleep(chance.uniform(0.1, 0.8))
            send_rejected(program)
            program.kill()
            program.start()
        time.sleep(0.3)
        # In the midst of it, too.
        status, said = audit(program)
        assert (status, said["difference"]) == (0, 0), said
    assert len(senders.acknowledged) > 100, "too few to show anything"
    status, said = audit(program)
    assert (status, said["difference"], said["lost_requests"], said["faults"]) == (0, 0, 0, []), said
    topics = said["topics"]
    accepted = sum(topic["accepted"] for topic in topics.values())
    assert accepted == sum(topic["stored"] for topic in topics.values()) >= len(senders.acknowledged)
    assert said["rejected"] == {"told": 2, "kept": 2, "not_kept": 0, "dead_letters": 2, "difference": 0}
    program.kill()
    assert audit(program)[1]["topics"] == topics


def test_whatever_was_done_by_hand_is_noticed(make_program: MakeProgram) -> None:
    """Rows, receipts and dead letters, taken away or doubled, and a whole batch; each is named, and the exit status is 1."""
    program = make_program()
    program.start()
    batches = [(send(program, "one", "two", "two"), send_rejected(program)) for _ in TAMPERINGS]
    whole = send(program, "lost", "altogether")
    send(program, "last")
    assert program.stop() == 0, program.log()
    assert audit(program)[0] == 0
    statements = [
        statement.format(batch=batch, rejected=rejected)
        for (batch, rejected), (statement, _) in zip(batches, TAMPERINGS.values(), strict=True)
    ]
    statements += [f"DELETE FROM {table} WHERE BatchId = '{whole}'" for table in ("otel_logs", "telemetry_batches")]
    change(program.data_dir, *statements)
    status, said = audit(program)
    assert (status, said["adds_up"]) == (1, False)
    named = {fault["batch_id"]: fault["what"] for fault in said["faults"]}
    for (batch, rejected), (what, (_, expected)) in zip(batches, TAMPERINGS.items(), strict=True):
        found = named.pop(rejected if "dead letter" in what else batch)
        assert expected in found, what
    assert [fault for fault in named if fault] == []
    lost = [fault["what"] for fault in said["faults"] if not fault["batch_id"]]
    # The batch of which nothing is left, and the one whose receipt was removed.
    assert said["lost_requests"] == len(lost) == 2
    assert all(what.startswith("1 acknowledged request has no receipt: number ") for what in lost)
    assert said["topics"]["infrasage.logs"]["difference"] == 1 + 1 + 1 + 3
    done = run("audit", "--data-dir", program.data_dir, "--faults", "1")
    assert done.returncode == 1
    assert "IT DOES NOT ADD UP" in done.stdout
    assert f"and {said['faults_total'] - 1} more" in done.stdout
    # The one that runs by itself finds the same.
    program.settings["audit__delay_s"] = 1
    program.start()
    assert said["difference"] == until(lambda: gauge(program, "infrasage_audit_difference"))
    assert "the audit found that something does not add up" in program.log()
    assert program.stop() == 0, program.log()


def test_the_first_audit_judges_the_time_before_a_stop(make_program: MakeProgram) -> None:
    """It was longer than audit.interval_s: what disappeared of the last requests before it is found by itself. It stays
    visible, in the next process too, until somebody confirms it."""
    program = make_program(audit__delay_s=1)
    program.start()
    batch = send(program, "one", "two")
    assert program.stop() == 0, program.log()
    stopped = time.time()
    change(program.data_dir, f"DELETE FROM otel_logs WHERE BatchId = '{batch}' AND Body = 'one'")
    program.settings["audit__interval_s"] = 0.5
    until(lambda: time.time() > stopped + 2)
    program.start()
    until(lambda: "the audit found that something does not add up" in program.log())
    # The next ones judge what came later.
    until(lambda: (gauge(program, 'infrasage_audits_total{result="adds_up"}') or 0) > 2)
    assert gauge(program, "infrasage_audit_difference") == 1
    assert program.log().count("the audit found that something does not add up") == 1
    assert program.stop() == 0, program.log()
    found = json.loads(run("audit", "--found", "--json", "--data-dir", program.data_dir).stdout)
    assert [(finding["difference"], finding["state"], finding["by"]) for finding in found] == [(1, "open", None)]

    program.settings["audit__interval_s"] = 3600
    program.start()
    until(lambda: gauge(program, "infrasage_audit_difference") == 1)
    assert gauge(program, "infrasage_audit_timestamp_seconds") is None, "no audit of this process has judged"
    assert "difference: 1<" in httpx.get(program.http).text
    assert "audit: difference 1" in run("top", "--endpoint", program.http, "--once").stdout
    confirmed = run("audit", "--confirm", "--data-dir", program.data_dir).stdout
    assert confirmed.endswith(": difference 1\n")
    until(lambda: not gauge(program, "infrasage_audit_difference"))
    assert program.stop() == 0, program.log()
    assert run("audit", "--confirm", "--data-dir", program.data_dir).stdout == "nothing to confirm\n"
    assert "confirmed" in run("audit", "--found", "--data-dir", program.data_dir).stdout
    # The first audit of the next process judges that time again.
    assert program.stop() == 0, program.log()
    program.settings["audit__delay_s"] = 1
    program.start()
    until(lambda: gauge(program, "infrasage_audit_timestamp_seconds"))
    assert gauge(program, "infrasage_audit_difference") == 0
    found = json.loads(run("audit", "--found", "--json", "--data-dir", program.data_dir).stdout)
    assert [(finding["difference"], finding["state"]) for finding in found] == [(1, "confirmed")]


def test_nothing_is_accepted_that_the_store_deletes_at_once(make_program: MakeProgram) -> None:
    """With a day of retention and a window of ten: 20 hours old is stored, 22 rejected, and all adds up."""
    program = make_program(store__retention_days=1, validation__past_max_s=10 * 86_400)
    program.start()
    for hours in (0, 20, 22, 30, 200):
        moment = time.time() - hours * 3600
        answer = httpx.post(f"{program.http}/v1/logs", json=logs_at(moment)).json()
        point = {"timeUnixNano": str(int(moment * 1e9)), "asDouble": 1.5}
        metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}]}
        assert (hours > 20) == ("partialSuccess" in answer)
        assert (hours > 20) == ("partialSuccess" in httpx.post(f"{program.http}/v1/metrics", json=metrics).json())
    assert 2 == program.value("SELECT count() FROM otel_logs")
    assert 2 == program.value("SELECT count() FROM otel_metrics_gauge")
    status, said = audit(program)
    assert (status, said["difference"], said["topics"]["infrasage.logs"]["accepted"]) == (0, 0, 2), said
    assert (6, 6) == (said["rejected"]["told"], said["rejected"]["dead_letters"])


def logs_at(moment: float) -> dict[str, Any]:
    """A request of one log record of that time, in seconds since 1970."""
    record = {"timeUnixNano": str(int(moment * 1e9)), "body": {"stringValue": "b"}}
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}


def test_the_scheduled_audit_and_the_age_of_what_is_stored_are_shown(make_program: MakeProgram) -> None:
    """Where everything adds up the difference is 0, and it says up to when; each signal that has items has an age."""
    program = make_program(audit__delay_s=1)
    program.start()
    began = time.time()
    send(program, "one")
    time_judged = until(lambda: gauge(program, "infrasage_audit_timestamp_seconds"))
    assert began - 1 <= time_judged <= time.time() - 1
    assert 0 == gauge(program, "infrasage_audit_difference")
    age = until(lambda: gauge(program, 'infrasage_store_newest_item_age_seconds{signal="logs"}'))
    assert 0 <= age <= time.time() - began + 1
    assert gauge(program, 'infrasage_store_newest_item_age_seconds{signal="traces"}') is None
    assert program.stop() == 0, program.log()


def gauge(program: Program, series: str) -> float | None:
    """Its value at the moment; None: it is not there."""
    for line in httpx.get(f"{program.http}/metrics").text.splitlines():
        if line.startswith(f"{series} "):
            return float(line.rpartition(" ")[2])
    return None


def test_a_batch_is_found_right_after_its_answer(program: Program) -> None:
    """It is found over HTTP and over gRPC, by a key that reads its tenant, with what became of its items."""
    key = run("keys", "create", "--tenant", "anonymous", "--scope", "readonly", "--plan", "Pro", "--data-dir", program.data_dir)
    other = run("keys", "create", "--tenant", "other", "--scope", "readonly", "--plan", "Pro", "--data-dir", program.data_dir)
    headers = {"X-API-Key": key.stdout.strip()}

    def batch(batch_id: str, headers: dict[str, str] = headers) -> httpx.Response:
        return httpx.get(f"{program.http}/api/v1/batches/{batch_id}", headers=headers, timeout=20)

    deadline = time.monotonic() + 10
    while batch("x").status_code == 401 and time.monotonic() < deadline:  # until the keys are reloaded
        time.sleep(0.1)
    http = batch(send(program, "a", "b")).json()
    assert (http["state"], http["stored"], http["received"], http["accepted"]) == ("stored", {"otel_logs": 2}, 2, 2)
    rejected = batch(send_rejected(program)).json()
    assert rejected["rejected"] == {"missing_body": 1} or rejected["rejected"] == {"missing_timestamp": 1}
    assert rejected["dead_letters"] == {"kept": 1, "not_kept": 0, "open": 1, "replayed": 0, "discarded": 0}
    with grpc.insecure_channel(program.grpc) as channel:
        export: Any = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        answer, call = export.with_call(otlp_logs(["c"]), timeout=10)
        ((name, batch_id),) = call.trailing_metadata()
        assert (answer, name) == (b"", "x-infrasage-batch-id")
        found = batch(batch_id).json()
        assert found["route"] == "opentelemetry.proto.collector.logs.v1.LogsService/Export"
        with pytest.raises(grpc.RpcError) as refused:
            export(b"\xff", timeout=10)
        assert all(metadatum.key != "x-infrasage-batch-id" for metadatum in refused.value.trailing_metadata())
    assert batch("nonsense").json()["error"] == "invalid_parameter"
    assert batch("nonsense").status_code == 400
    assert batch("01900000-0000-7000-8000-000000000000").status_code == 404
    deadline = time.monotonic() + 10
    while (theirs := batch(batch_id, {"X-API-Key": other.stdout.strip()})).status_code == 401 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (theirs.status_code, theirs.json()["error"]) == (404, "not_found")
    assert batch(batch_id, {}).status_code == 401
