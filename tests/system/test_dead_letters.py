"""Dead letters as their users have them: rejected, counted, looked at, edited, sent again, and stored once."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import cramjam
import grpc
import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.processes.clickhouse_server import bridge
from support.processes.kafka import Kafka
from support.processes.program import Gateway, MakeProgram, Program, Receiver, WriterCommand, metric, run, started
from support.references.remote_write import write_request, write_request_v2
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

STATS: Final = "/api/v1/debug/dlq-stats"
JSON: Final = {"Content-Type": "application/json"}
PROTOBUF: Final = {"Content-Type": "application/x-protobuf"}
V2: Final = {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding": "snappy"}
NOW: Final = datetime.now(UTC)
LONG_AGO_NS: Final = time.time_ns() - 3 * 86_400 * 10**9
GOOD: Final = {"service_id": "mend", "metric_name": "m", "value": 1, "timestamp": NOW.isoformat()}

# What is wrong with a record of the native API, by reason; `None` takes a field away. GOOD is what fixes it.
NATIVE: Final[dict[str, dict[str, Any]]] = {
    "missing_service_id": {"service_id": None},
    "missing_metric_name": {"metric_name": None},
    "missing_value": {"value": None},
    "missing_body": {"type": "log"},
    "missing_timestamp": {"timestamp": None},
    "invalid_service_id": {"service_id": 7},
    "invalid_type": {"type": "wish"},
    "invalid_metric_name": {"metric_name": 7},
    "invalid_value": {"value": float("nan")},
    "invalid_body": {"type": "log", "body": 7},
    "invalid_timestamp": {"timestamp": "noon"},
    "invalid_attributes": {"attributes": []},
    "timestamp_too_old": {"timestamp": (NOW - timedelta(days=3)).isoformat()},
    "timestamp_in_future": {"timestamp": (NOW + timedelta(days=3)).isoformat()},
    "attribute_key_too_long": {"attributes": {"k" * 5000: 1}},
    "attribute_value_too_long": {"attributes": {"k": "v" * 300_000}},
    "name_too_long": {"metric_name": "m" * 5000},
}


class Served(Program):
    """`serve`, with keys."""

    def key(self, tenant: str, scope: Scope) -> str:
        made = keys.create(self.data_dir / keys.FILE_NAME, tenant=tenant, scope=scope, plan="Free", now=datetime.now(UTC))
        until(lambda: self.get(STATS, made.text).status_code != 401)
        return made.text

    def get(self, path: str, key: str | None = None, **parameters: object) -> httpx.Response:
        headers = {} if key is None else {"X-API-Key": key}
        return httpx.get(
            f"{self.http}{path}", headers=headers, params={name: str(v) for name, v in parameters.items()}, timeout=60
        )

    def dlq(self, *arguments: str | Path, status: int = 0) -> CompletedProcess[str]:
        done = run("dlq", *arguments, "--data-dir", self.data_dir, **self.settings)
        assert done.returncode == status, done.stderr + done.stdout + self.log()
        return done

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.dlq("list", "--json", "--limit", "500", *arguments).stdout)["entries"]
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = {"tenants__keys_reload_s": 0.1, "validation__attribute_value_too_long": "reject"}
    with started(Served(tmp_path_factory.mktemp("letters") / "data", **settings)) as running:
        yield running


def native(reason: str) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | NATIVE[reason]).items() if value is not None}


def post(served: Receiver, path: str, body: bytes, headers: dict[str, str], key: str | None = None) -> httpx.Response:
    return httpx.post(
        f"{served.http}{path}", content=body, headers=headers | ({} if key is None else {"X-API-Key": key}), timeout=30
    )


def send_natives(served: Program, records: list[dict[str, Any]], key: str | None = None) -> None:
    answer = post(served, "/api/v1/telemetry/batch", json.dumps(records).encode(), JSON, key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["failed"] == len(records)


def test_every_reason_from_rejection_to_row(served: Served, tmp_path: Path) -> None:
    """They are the reasons of the native API: each is counted right after the answer, listed, shown, edited, replayed, and
    stored once, though it is replayed twice."""
    key = served.key("native", Scope.WRITE)
    send_natives(served, [native(reason) for reason in NATIVE], key)
    stats = served.get(STATS, key).json()
    assert (stats["total_failed"], stats["by_reason"]) == (len(NATIVE), dict.fromkeys(sorted(NATIVE), 1))
    assert (stats["not_kept"], stats["open"]) == (0, len(NATIVE))
    assert NOW.isoformat() < stats["oldest_entry"] <= stats["newest_entry"]
    assert stats["newest_entry"].endswith("Z")
    entries = served.listed("--tenant", "native")
    assert Counter(entry["reason"] for entry in entries) == Counter(NATIVE.keys())
    short = next(entry for entry in entries if entry["payload"] is not None)  # a list leaves out long ones
    shown = json.loads(served.dlq("show", short["id"]).stdout)
    assert {name: shown[name] for name in ("id", "reason", "payload")} == {
        name: short[name] for name in ("id", "reason", "payload")
    }
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(GOOD))
    with ThreadPoolExecutor(2) as pool:  # two at once, of each two
        ids = [entry["id"] for entry in entries[:3]]
        for again in [pool.submit(served.dlq, "replay", id_, "--payload", mended) for id_ in [*ids, *ids]]:
            assert "1 of 1 replayed" in again.result().stderr or "it was replayed before" in again.result().stdout
    # What is not edited is rejected again, in the same words.
    done = served.dlq("replay", "--tenant", "native", status=1)
    assert done.stdout.count("rejected_again") == len(NATIVE) - len(ids)
    assert served.get(STATS, key).json()["open"] == len(NATIVE) - len(ids)
    assert served.value("SELECT count() FROM telemetry WHERE service_id = 'mend' AND tenant = 'native'") == len(ids)
    assert served.get(STATS, key).json()["total_failed"] == len(NATIVE), "what failed once has failed"
    done = served.dlq("discard", "--tenant", "native", "--note", "a test")
    assert done.stdout.count("discarded") == len(NATIVE) - len(ids)
    assert served.get(STATS, key).json()["open"] == 0
    states = Counter(entry["state"] for entry in served.listed("--tenant", "native"))
    assert states == {"replayed": len(ids), "discarded": len(NATIVE) - len(ids)}


def test_who_sees_what(served: Served) -> None:
    """Nobody without a key that reads; a tenant its own; an admin all, or whom it names. Pages follow one another."""
    reading, sending = served.key("seen", Scope.READONLY), served.key("seen", Scope.WRITE)
    admin = served.key("boss", Scope.ADMIN)
    send_natives(served, [native("missing_value")] * 5, sending)
    assert served.get(STATS).status_code == 401
    assert served.get(STATS, served.key("seen", Scope.INGEST)).status_code == 403
    assert served.get(STATS, reading, tenant="native").status_code == 403
    assert served.get(STATS, reading).json()["total_failed"] == 5
    assert served.get(STATS, admin, tenant="seen").json()["by_reason"] == {"missing_value": 5}
    assert served.get(STATS, admin).json()["total_failed"] >= 5
    found: list[str] = []
    parameters: dict[str, object] = {"limit": 2, "reason": "missing_value", "since": NOW.isoformat().replace("+00:00", "Z")}
    while True:
        page = served.get("/api/v1/debug/dlq", reading, **parameters).json()
        found += [entry["id"] for entry in page["entries"]]
        assert {entry["payload"]["service_id"] for entry in page["entries"]} == {"mend"}
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert len(found) == len(set(found)) == 5
    assert served.get("/api/v1/debug/dlq", reading, service_id="nobody' OR 1 --").json()["entries"] == []


def late(kind: Any) -> bytes:
    """One item that is too old, of the service `late`."""
    request = kind()
    field = request.DESCRIPTOR.fields[0].name
    resource = getattr(request, field).add()
    resource.resource.attributes.add(key="service.name").value.string_value = "late"
    scope = getattr(resource, field.replace("resource_", "scope_")).add()
    if "metrics" in field:
        scope.metrics.add(name="m").gauge.data_points.add(time_unix_nano=LONG_AGO_NS, as_double=1.5)
    elif "logs" in field:
        scope.log_records.add(time_unix_nano=LONG_AGO_NS).body.string_value = "x"
    else:
        scope.spans.add(
            trace_id=b"t" * 16, span_id=b"s" * 8, name="s", start_time_unix_nano=LONG_AGO_NS, end_time_unix_nano=LONG_AGO_NS
        )
    return bytes(request.SerializeToString())


def test_every_input_is_replayed_where_the_settings_are_wider(served: Served) -> None:
    """OTLP of each signal, over HTTP and gRPC, both versions of remote write and the native API: too old, kept, shown in JSON;
    stored once the collector runs with a wider window."""
    series = [({"__name__": "m", "job": "late"}, [(1.5, LONG_AGO_NS // 10**6)])]
    kinds = {"metrics": ExportMetricsServiceRequest, "logs": ExportLogsServiceRequest, "traces": ExportTraceServiceRequest}
    for signal, kind in kinds.items():
        assert post(served, f"/v1/{signal}", late(kind), PROTOBUF).status_code == 200
    with grpc.insecure_channel(served.grpc) as channel:
        export: Any = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        export(late(ExportLogsServiceRequest), timeout=20)
    write = "/api/v1/prometheus/write"
    snappy = {**PROTOBUF, "Content-Encoding": "snappy"}
    assert post(served, write, bytes(cramjam.snappy.compress_raw(write_request(series))), snappy).status_code == 400
    assert post(served, write, bytes(cramjam.snappy.compress_raw(write_request_v2(series))), V2).status_code == 400
    send_natives(served, [native("timestamp_too_old") | {"service_id": "late"}])
    entries = served.listed("--service", "late")
    assert Counter(entry["payload_form"] for entry in entries) == {
        "otlp_metrics": 1,
        "otlp_logs": 2,
        "otlp_traces": 1,
        "prometheus_write_v1": 1,
        "prometheus_write_v2": 1,
        "native_json": 1,
    }
    assert all(entry["decoded"] or entry["payload_form"] == "native_json" for entry in entries)
    assert {entry["reason"] for entry in entries} == {"timestamp_too_old"}
    assert served.dlq("replay", "--service", "late", "--as-of", "received", status=1).stdout.count("rejected_again") == 7
    assert served.stop() == 0
    served.settings["validation__past_max_s"] = 10 * 86_400
    served.start()
    assert served.dlq("replay", "--service", "late").stdout.count("replayed") == 7
    assert served.value("SELECT count() FROM telemetry WHERE service_id = 'late'") == 7
    # Where none runs, the data it left is asked.
    assert served.stop() == 0
    assert {entry["state"] for entry in served.listed("--service", "late")} == {"replayed"}
    served.start()


def test_the_cap_counts_what_is_not_kept(make_program: Any) -> None:
    """Past a whole minute's items are counted all the same."""
    made = make_program(dead_letters__items_per_minute_max=3, tenants__anonymous_tenant="flood")
    with started(made):
        began = time.time() // 60
        body = [native("missing_value")] * 20
        answer = httpx.post(f"{made.http}/api/v1/telemetry/batch", json=body, timeout=60)
        assert "17" == answer.headers["x-infrasage-rejected-not-kept"]
        if time.time() // 60 == began:
            refused = httpx.post(f"{made.http}/api/v1/telemetry/batch", json=body, timeout=60)
            assert (429, "dead_letters_full") == (refused.status_code, refused.json()["error"])
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        admin = next(word for word in made.printed.split() if word.startswith("isage_"))
        stats = httpx.get(f"{made.http}{STATS}", headers={"X-API-Key": admin}, params={"tenant": "flood"}, timeout=60).json()
        assert time.time() // 60 == began or stats["open"] <= 6
        assert (stats["total_failed"], stats["by_reason"]) == (20, {"missing_value": 20})
        assert (stats["not_kept"], stats["open"]) == (17, 3)


def test_gateways_tell_of_all(tmp_path: Path) -> None:
    """Two on one Kafka: each says, right after the answer, what both rejected; the commands go to the servers themselves."""
    kafka = Kafka(tmp_path / "kafka")
    keys_file = tmp_path / "keys.json"
    key = keys.create(keys_file, tenant="acme", scope=Scope.WRITE, plan="Free", now=datetime.now(UTC)).text
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(GOOD))
    try:
        kafka.start()
        with bridge(tmp_path / "clickhouse") as clickhouse:
            servers: dict[str, object] = {
                "kafka__bootstrap": kafka.bootstrap,
                "clickhouse__url": clickhouse.url,
                "clickhouse__user": clickhouse.user,
                "clickhouse__password": clickhouse.password,
                "clickhouse__database": clickhouse.database,
                "store__fsync": "false",
                "query__page_wait_s": 30,
            }
            first, second = (Gateway(tmp_path / name, tenants__keys_file=keys_file, **servers) for name in ("a", "b"))
            with started(WriterCommand(tmp_path / "writer", **servers)), started(first), started(second):
                for number in (1, 2):
                    for each in (first, second):
                        answer = post(each, "/api/v1/telemetry", json.dumps(native("missing_value")).encode(), JSON, key)
                        assert answer.status_code == 400
                    for each in (first, second):
                        told = httpx.get(f"{each.http}{STATS}", headers={"X-API-Key": key}, timeout=60)
                        assert told.headers["x-infrasage-messages-behind"] == "0"
                        assert told.json()["by_reason"] == {"missing_value": 2 * number}
                page = httpx.get(f"{first.http}/api/v1/debug/dlq", headers={"X-API-Key": key}, timeout=60)
                ids = [entry["id"] for entry in page.json()["entries"]]
                assert len(ids) == 4
                with ThreadPoolExecutor(2) as pool:
                    again = [pool.submit(run, "dlq", "replay", ids[0], "--payload", mended, **servers) for _ in range(2)]
                    assert [done.result().returncode for done in again] == [0, 0], again[0].result().stderr
                counted = run("query", "--format", "TSV", "SELECT count() FROM telemetry WHERE service_id = 'mend'", **servers)
                assert counted.stdout == "1\n"
    finally:
        kafka.close()


def test_the_next_scrape_has_what_an_answer_reported(make_program: MakeProgram) -> None:
    """Not seconds later: the depth is right in the first scrape after each answer that rejects an item."""
    program = make_program(http__metrics_interval_s=0)
    program.start()
    for number in (1, 2, 3):
        answer = httpx.post(f"{program.http}/api/v1/telemetry", json={"service_id": "x", "type": "log"})
        assert 400 == answer.status_code
        assert number == metric(program.http, "infrasage_dlq_depth")


def test_the_next_scrape_has_them(make_program: Any) -> None:
    """Right after the answer that reports a failed item, although the page was rendered just before and is kept a minute."""
    with started(make_program(http__metrics_interval_s=60)) as made:
        for number in range(1, 6):
            assert number - 1 == metric(made.http, "infrasage_dlq_depth")
            answer = httpx.post(f"{made.http}/api/v1/telemetry/batch", json=[native("missing_value")], timeout=60)
            assert 1 == answer.json()["failed"]
            assert number == metric(made.http, "infrasage_dlq_depth")
