"""Tenants as their users have them: keys made by the command, sent by real clients, and held to their plans by the gateway."""

import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import cramjam
import grpc
import httpx
import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from ruamel.yaml import YAML
from support.processes.kafka import shared_bootstrap
from support.processes.program import Gateway, Program, metric, require_peer, run, started
from support.processes.redis_server import RedisServer
from support.references.remote_write import write_request
from support.senders import Senders, otlp_logs
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "operate" / "tenants.md"
KEY: Final = re.compile(r"isage_[0-9A-Za-z]{57}")
EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF: Final = {"Content-Type": "application/x-protobuf"}


class Served(Program):
    """`serve`, with its file of keys."""

    @property
    def keys_file(self) -> Path:
        return self.data_dir / keys.FILE_NAME

    def key(self, tenant: str) -> str:
        """A new one that sends, in force."""
        created = keys.create(self.keys_file, tenant=tenant, scope=Scope.INGEST, plan="Unlimited", now=datetime.now(UTC))
        until(lambda: self.send(created.text, b"").status_code == 200)
        return created.text

    def send(self, key: str | None, body: bytes | None = None) -> httpx.Response:
        """One log record, or what `body` has."""
        headers = PROTOBUF if key is None else {**PROTOBUF, "X-API-Key": key}
        return httpx.post(f"{self.http}/v1/logs", content=otlp_logs(["x"]) if body is None else body, headers=headers)

    def usage(self, key: str, **parameters: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.http}/api/v1/usage", headers={"X-API-Key": key}, params=parameters)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def tenants(self, service: str) -> dict[str, int]:
        """The rows of a service, by whose they are."""
        rows = self.query(f"SELECT tenant, count() AS n FROM telemetry WHERE service_id = '{service}' GROUP BY tenant")
        return {row["tenant"]: int(row["n"]) for row in rows}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests here; started where there were no keys."""
    place = tmp_path_factory.mktemp("tenants") / "data"
    with started(Served(place, tenants__keys_reload_s=0.1)) as running:
        yield running


def test_the_first_start_shows_an_admin_key(served: Served) -> None:
    """It is shown once, with what a person needs, and reads every tenant's usage. Its file is for its owner."""
    (shown,) = KEY.findall(served.printed)
    assert served.printed.count("isage_") == 1
    assert "isage_" not in served.log()
    assert shown not in served.keys_file.read_text()
    assert served.keys_file.stat().st_mode & 0o777 == 0o600
    assert served.usage(shown)["tenant"] == "admin"
    assert served.send(None).status_code == 200
    assert served.usage(shown, tenant="anonymous")["items"]["accepted"] >= 1


def test_a_key_s_life_by_the_commands(served: Served) -> None:
    """Made beside the running collector it is on standard output alone, and works; revoked, it is refused. Nothing restarts."""
    where = ("--data-dir", served.data_dir)
    made = run("keys", "create", "--tenant", "life", "--scope", "write", "--plan", "Pro", "--note", "a test", *where)
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert KEY.fullmatch(key)
    assert key not in made.stderr
    until(lambda: served.send(key).status_code == 200)
    assert served.usage(key)["plan"]["name"] == "Pro"
    listed = run("keys", "list", "--json", *where)
    assert listed.returncode == 0, listed.stderr
    (entry,) = [entry for entry in json.loads(listed.stdout) if entry["tenant"] == "life"]
    assert (entry["scope"], entry["plan"], entry["state"], entry["note"]) == ("write", "Pro", "active", "a test")
    assert run("keys", "revoke", entry["id"], *where).returncode == 0
    until(lambda: served.send(key).status_code == 401)
    assert httpx.get(f"{served.http}/api/v1/usage", headers={"X-API-Key": key}).status_code == 401


def test_every_row_has_its_key_s_tenant(served: Served) -> None:
    """The tenant is right for the native API, remote write, OTLP over HTTP and gRPC. Without a key, it is anonymous."""
    tenants: dict[str, str | None] = {"rows-a": served.key("rows-a"), "rows-b": served.key("rows-b"), "anonymous": None}
    now_s = time.time()
    record = {
        "service_id": "numbered-otlp",  # as otlp_logs has it
        "metric_name": "m",
        "value": 1,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)),
        "attributes": {"tenant": "somebody-else", "tenant_id": "somebody-else"},
    }
    series = write_request([({"__name__": "m", "job": "numbered-otlp", "tenant": "somebody-else"}, [(1.5, int(now_s * 1000))])])
    remote_write = bytes(cramjam.snappy.compress_raw(series))
    before = served.tenants("numbered-otlp")
    with grpc.insecure_channel(served.grpc) as channel:
        export: Any = channel.unary_unary(EXPORT)
        for key in tenants.values():
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            assert httpx.post(f"{served.http}/api/v1/telemetry", json=record, headers=headers).status_code == 200
            snappy = {**PROTOBUF, "Content-Encoding": "snappy", **headers}
            url = f"{served.http}/api/v1/prometheus/write"
            assert httpx.post(url, content=remote_write, headers=snappy).status_code == 204
            assert served.send(key).status_code == 200
            export(otlp_logs(["x"]), metadata=tuple((name.lower(), value) for name, value in headers.items()))
    after = served.tenants("numbered-otlp")
    grown = {tenant: rows - before.get(tenant, 0) for tenant, rows in after.items() if rows != before.get(tenant)}
    assert grown == dict.fromkeys(tenants, 4)
    for key in tenants.values():
        if key is not None:
            headers = {"X-API-Key": key}
            assert httpx.get(f"{served.http}/api/v1/usage", headers=headers).status_code == 403, "ingest reads nothing"


def test_a_broken_keys_file_refuses_nobody(served: Served) -> None:
    """Under load: the keys that were read last stay in force, /metrics and the log say so; once it is repaired all is well."""
    key = served.key("steady")
    good = served.keys_file.read_bytes()
    with Senders(served.http_port, threads=4, key=key) as senders:
        served.keys_file.write_bytes(good[: len(good) // 2])
        until(lambda: metric(served.http, "infrasage_up", 'part="keys"') == 0)
        assert served.send(key).status_code == 200
        assert served.send("wrong").status_code == 401
        assert httpx.get(f"{served.http}/healthz").status_code == 200
        served.keys_file.write_bytes(good)
        until(lambda: metric(served.http, "infrasage_up", 'part="keys"') == 1)
    assert (senders.refused, senders.in_doubt) == ({}, set())
    assert len(senders.acknowledged) > 100
    assert "the keys file can't be used; the keys that were read last stay in force" in served.log()
    assert "the keys file can be used again" in served.log()
    assert "isage_" not in served.log()


def test_keys_reloaded_under_load(served: Served) -> None:
    """While keys come and go, and each change is read, a key that stays is never refused."""
    key = served.key("steady")
    reads = served.log().count("the keys file was read")
    with Senders(served.http_port, threads=4, key=key) as senders:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            now = datetime.now(UTC)
            created = keys.create(served.keys_file, tenant="passing", scope=Scope.INGEST, plan="Free", now=now)
            keys.end(served.keys_file, created.key.id, at=now, now=now)
            time.sleep(0.02)
        last = served.key("last")
    assert (senders.refused, senders.in_doubt) == ({}, set())
    assert len(senders.acknowledged) > 100
    assert served.log().count("the keys file was read") >= reads + 5
    assert served.send(last).status_code == 200
    assert served.send(created.text).status_code == 401


@pytest.mark.parametrize("transport", ["grpc", "http/protobuf"])
def test_sdks_are_configured_as_documented(served: Served, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need the environment only."""
    text = DOCUMENT.read_text()
    assert 'export OTEL_EXPORTER_OTLP_HEADERS="x-api-key=$KEY"' in text
    tenant = f"sdk-{transport[:4]}"
    endpoint = f"http://{served.grpc}" if transport == "grpc" else served.otlp_http
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-api-key={served.key(tenant)}")
    exporter: Any = GrpcLogExporter() if transport == "grpc" else HttpLogExporter()
    provider = LoggerProvider(resource=Resource.create({"service.name": tenant}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("scope").emit(LogRecord(timestamp=time.time_ns(), body="x"))
    provider.shutdown()
    assert served.tenants(tenant) == {tenant: 1}


def test_prometheus_is_configured_as_documented(served: Served, tmp_path: Path) -> None:
    """The key is in a file. The block is that of the document, except its address and how long it waits."""
    prometheus = require_peer("prometheus")
    (tmp_path / "infrasage.key").write_text(served.key("prometheus"))
    block = re.search(r"```yaml\n(remote_write:.*?authorization:.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    (write,) = YAML(typ="safe", pure=True).load(block[1])["remote_write"]
    assert write["url"] == "http://localhost:8080/api/v1/prometheus/write"
    write["url"] = f"{served.http}/api/v1/prometheus/write"
    assert write["authorization"].keys() == {"credentials_file"}
    write["authorization"]["credentials_file"] = str(tmp_path / "infrasage.key")
    write["queue_config"]["batch_send_deadline"] = "200ms"
    configuration = {
        "global": {"scrape_interval": "300ms"},
        "scrape_configs": [{"job_name": "keyed", "static_configs": [{"targets": [f"127.0.0.1:{served.http_port}"]}]}],
        "remote_write": [write],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))  # which is YAML, too
    with (tmp_path / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"),
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: served.tenants("keyed"))
    finally:
        process.terminate()
        process.wait(20)
    assert served.tenants("keyed").keys() == {"prometheus"}
    assert "isage_" not in (tmp_path / "prometheus.log").read_text()


def test_the_next_start_shows_no_key(served: Served) -> None:
    """What there is stays in force. Where `tenants.anonymous` says no, nobody sends without a key, by no protocol."""
    (shown,) = KEY.findall(served.printed)
    key = served.key("stays")
    assert served.stop() == 0, served.log()
    served.settings["tenants__anonymous"] = "no"
    served.start()
    assert "isage_" not in served.printed + served.log()
    assert served.usage(shown)["tenant"] == "admin"
    assert served.send(key).status_code == 200
    refused = served.send(None)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="infrasage"')
    with grpc.insecure_channel(served.grpc) as channel:
        export: Any = channel.unary_unary(EXPORT)
        with pytest.raises(grpc.RpcError) as error:
            export(otlp_logs(["x"]))
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        export(otlp_logs(["x"]), metadata=(("x-api-key", key),))
    assert httpx.get(f"{served.http}/healthz").status_code == 200


# The gateway as several processes.

BURST: Final = 60
REQUESTS: Final = 300
CONNECTIONS: Final = 24
LIMITS: Final = {
    "gateway__workers": 2,
    "plans": json.dumps({"Small": {"requests_per_s": 1, "requests_burst": BURST}}),
}


class Hammered:
    """What came of REQUESTS over CONNECTIONS, so that every worker gets some."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        began = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for done in [pool.submit(self._send) for _ in range(CONNECTIONS)]:
                done.result()
        self.took_s = time.monotonic() - began

    def _send(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        for _ in range(REQUESTS // CONNECTIONS):
            connection.request("POST", "/v1/logs", otlp_logs(["x"]), {**PROTOBUF, "X-API-Key": self._key})
            answer = connection.getresponse()
            answer.read()
            with self._lock:
                self.statuses[answer.status] += 1
        connection.close()

    @property
    def sent(self) -> int:
        return self.statuses.total()


def gateway(tmp_path: Path, *tenants: str, **settings: object) -> tuple[Gateway, dict[str, str]]:
    """One with a key for each tenant, all on the same plan."""
    keys_file = tmp_path / "shared" / "keys.json"
    made = {
        tenant: keys.create(keys_file, tenant=tenant, scope=Scope.WRITE, plan="Small", now=datetime.now(UTC)).text
        for tenant in tenants
    }
    place = tmp_path / "gateway"
    return Gateway(place, kafka__bootstrap=shared_bootstrap(), tenants__keys_file=keys_file, **LIMITS, **settings), made


def test_workers_count_together_in_redis(tmp_path: Path) -> None:
    """Two processes and one plan: just what it allows passes, however the connections are spread. What was used and what was
    limited is answered as one, by each of them. Without Redis each goes on with its share, and they say so."""
    with RedisServer() as redis:
        front, made = gateway(tmp_path, "acme", "later", limits__redis_url=redis.url)
        with started(front):
            assert httpx.post(f"{front.http}/v1/logs", content=b"", headers=PROTOBUF).status_code == 401
            hammered = Hammered(front.http_port, made["acme"])
            accepted = hammered.statuses[200]
            assert BURST <= accepted <= BURST + hammered.took_s
            assert hammered.statuses == {200: accepted, 429: hammered.sent - accepted}
            for _ in range(6):  # each by a connection of its own, so by one worker or the other
                answer = httpx.get(f"{front.http}/api/v1/usage", headers={"X-API-Key": made["acme"]}).json()
                assert (answer["requests"]["accepted"], answer["items"]["accepted"]) == (accepted, accepted)
                assert answer["limited"] == {"requests": hammered.sent - accepted, "items": 0, "bytes": 0}
                labels = ("infrasage_tenant_requests_total", 'tenant="acme"')
                assert metric(front.http, *labels) == hammered.sent
                assert metric(front.http, *labels, 'status="accepted"') == accepted
            assert metric(front.http, "infrasage_up", 'part="redis"') == 1
            redis.kill()
            hammered = Hammered(front.http_port, made["later"])
            assert BURST <= hammered.statuses[200] <= BURST + hammered.took_s
            assert hammered.statuses.keys() == {200, 429}
            until(lambda: metric(front.http, "infrasage_up", 'part="redis"') == 0)
            assert "Redis is away, so this process goes on alone with its share of tenants' plans" in front.log()


def test_workers_without_redis_have_their_shares(tmp_path: Path) -> None:
    """Each admits its part of the plan, and says so when it starts: together they never admit more than the plan."""
    front, made = gateway(tmp_path, "acme")
    with started(front):
        shares = [line for line in front.log().splitlines() if "without limits.redis_url" in line]
        assert len(shares) == 2, "one of each process"
        assert all("1/2" in line for line in shares)
        hammered = Hammered(front.http_port, made["acme"])
        assert BURST <= hammered.statuses[200] <= BURST + hammered.took_s
        assert hammered.statuses.keys() == {200, 429}
        usage = httpx.get(f"{front.http}/api/v1/usage", headers={"X-API-Key": made["acme"]}).json()
        assert usage["requests"]["accepted"] == hammered.statuses[200]
        assert usage["limited"]["requests"] == hammered.statuses[429]
