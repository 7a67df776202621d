"""The real command where it may open few files: connections are refused, and what was accepted is kept and stored."""

import contextlib
import http.client
import select
import socket
import time

from support.processes.program import MakeProgram, metric
from support.waiting import until

LIMIT = 300


def test_connections_beyond_the_limit_are_refused_and_nothing_else_fails(make_program: MakeProgram) -> None:
    """On every port; the log and the store open what they need, queries are answered, and one line says why."""
    program = make_program()
    program.command = ["bash", "-c", f'ulimit -n {LIMIT}; exec "$0" "$@"', *program.command]
    program.start()
    with contextlib.ExitStack() as stack:
        kept = http.client.HTTPConnection("127.0.0.1", program.http_port, timeout=20)
        stack.callback(kept.close)

        def send(name: str) -> int:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            body = f'{{"service_id": "s", "type": "log", "body": "{name}", "timestamp": "{now}"}}'
            kept.request("POST", "/api/v1/telemetry", body, {"content-type": "application/json"})
            answer = kept.getresponse()
            answer.read()
            return answer.status

        assert 200 == send("before")
        connections = []
        for number in range(LIMIT):
            port = (program.http_port, program.otlp_http_port, program.grpc_port)[number % 3]
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)))
        # Who is taken hears nothing: nothing was asked yet.
        of_http = connections[::3]
        until(lambda: len(select.select(of_http, [], [], 0)[0]) >= LIMIT / 6)
        for connection in select.select(of_http, [], [], 0)[0]:
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in answer
        for name in ("one", "two", "three"):
            assert 200 == send(name)
        program.wait_for("SELECT count() FROM otel_logs", 4)
        kept.request("GET", "/healthz")
        assert b'"status":"ok"' in kept.getresponse().read()
        kept.request("GET", "/metrics")
        text = kept.getresponse().read().decode()
        (line,) = [line for line in text.splitlines() if line.startswith("infrasage_descriptors_refused_total ")]
        assert float(line.split()[1]) >= LIMIT / 2
        said = program.log()
        assert 1 == said.count("connections are refused: the file descriptors")
        assert 1 == said.count("this process may open fewer files than its settings may need")
        assert "Traceback" not in said
    # They are gone, so there is room.
    until(lambda: metric(program.http, "infrasage_http_connections") < 10)
    assert 0 == program.stop()
