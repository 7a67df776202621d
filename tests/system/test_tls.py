"""The running program over TLS: real clients on all three ports, certificates that change, strangers, and how it ends."""

import json
import signal
import socket
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import grpc
import httpx
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from support.certificates import Files, authority, client_context
from support.processes.program import MakeProgram, run
from support.senders import COUNTS_SQL, Senders


def test_all_three_ports_speak_tls_and_new_certificates_need_no_restart(make_program: MakeProgram, tmp_path: Path) -> None:
    files = Files(tmp_path)
    program = make_program(tls__cert_file=files.certificate, tls__key_file=files.key, tls__reload_interval_s=0.1)
    program.start()
    assert f"https://127.0.0.1:{program.http_port}" in program.printed
    assert "http://" not in program.printed
    record = {
        "service_id": "tls",
        "metric_name": "m",
        "value": 1,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for url in (program.http, program.otlp_http):
        for http2 in (False, True):
            with httpx.Client(http1=not http2, http2=http2, verify=client_context()) as client:
                answer = client.post(f"{url}/api/v1/telemetry", json=record)
                assert (answer.http_version, answer.status_code) == ("HTTP/2" if http2 else "HTTP/1.1", 200)
    credentials = grpc.ssl_channel_credentials(authority("first").cert_pem.bytes())
    provider = LoggerProvider(Resource.create({"service.name": "tls"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=program.grpc, credentials=credentials)))
    provider.get_logger("test").emit(body="over gRPC", timestamp=time.time_ns())
    provider.shutdown()
    program.wait_for("SELECT count() FROM telemetry WHERE service_id = 'tls'", 5)

    # Strangers leave no line.
    for port in (program.http_port, program.otlp_http_port, program.grpc_port):
        with socket.create_connection(("127.0.0.1", port)) as stranger, suppress(OSError):
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            stranger.recv(100)

    files.write(of="second")
    until = time.monotonic() + 10
    while "new certificates are in use" not in program.log():
        assert time.monotonic() < until, program.log()
        time.sleep(0.05)
    for port in (program.http_port, program.grpc_port):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            context = client_context("second", alpn=("h2",))
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                assert secured.selected_alpn_protocol() == "h2"
    assert program.stop() == 0
    lines = [json.loads(line) for line in program.log().splitlines()]
    assert {line["level"] for line in lines} <= {"info", "warning"}, program.log()


def test_a_signal_under_load_over_tls_loses_nothing(make_program: MakeProgram, tmp_path: Path) -> None:
    """As without: it exits with 0 and in time, and every acknowledged record is stored once."""
    files = Files(tmp_path)
    program = make_program(shutdown__timeout_s=10, tls__cert_file=files.certificate, tls__key_file=files.key)
    program.start()
    context = client_context()
    with Senders(program.http_port, tls=context) as senders:
        time.sleep(1)
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.log()
        assert time.monotonic() - began < 10
    assert len(senders.acknowledged) > 100
    with closing(sqlite3.connect(program.data_dir / "log" / "messages.sqlite")) as log:
        assert log.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    senders.check({int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)})


def test_certificates_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    """The error is a sentence, before anything is made."""
    done = run("serve", "--data-dir", tmp_path / "data", tls__cert_file=tmp_path / "none.pem")
    assert done.returncode == 1
    assert f"cannot read tls.cert_file {tmp_path / 'none.pem'}: No such file or directory" in done.stderr
    assert not (tmp_path / "data").exists()
