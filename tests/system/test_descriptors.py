"""The real command where it may open few files: idle connections make room or new ones are refused, and what was accepted is
kept and stored."""

import contextlib
import http.client
import select
import socket
import time
from pathlib import Path

import httpx
from support.processes.program import MakeProgram, metric
from support.waiting import until

LIMIT = 300
EVICTED = "infrasage_connections_evicted_total"


def value_of(page: str, name: str) -> float:
    """What a page of metrics says."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_idle_connections_make_room(make_program: MakeProgram) -> None:
    """Where idle connections of all ports have every descriptor, new clients are answered, a connection with a request is
    kept, and the reserve stays whole: no descriptor number of it is taken."""
    program = make_program(http__body_timeout_s=600)
    program.command = ["bash", "-c", f'ulimit -n {LIMIT}; exec "$0" "$@"', *program.command]
    program.start()
    with contextlib.ExitStack() as stack:
        begun = stack.enter_context(socket.create_connection(("127.0.0.1", program.http_port), 20))
        begun.sendall(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1\r\n\r\n")
        for number in range(LIMIT):
            port = (program.http_port, program.otlp_http_port, program.grpc_port)[number % 3]
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))

        def status() -> int:
            client = http.client.HTTPConnection("127.0.0.1", program.http_port, timeout=20)
            stack.callback(client.close)
            try:
                client.request("GET", "/healthz")
                answer = client.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return 503  # refused while it was still sending
            return answer.status

        # Once they are idle for a second.
        until(lambda: status() == 200)
        assert {200} == {status() for _ in range(30)}
        begun.sendall(b"\xff")
        assert begun.recv(100).startswith(b"HTTP/1.1 400 ")
        # It is refused until a connection has been idle for a second.
        page = until(lambda: httpx.get(f"http://127.0.0.1:{program.http_port}/metrics").raise_for_status().text)
        assert value_of(page, EVICTED) >= 30
        reserve = value_of(page, "infrasage_descriptors_reserve")
        numbers = {
            int(path.name)
            for path in Path(f"/proc/{program.pid()}/fd").iterdir()
            if path.is_symlink() and str(path.readlink()).startswith("socket:")
        }
        assert max(numbers) < LIMIT - reserve
        said = program.log()
        assert 1 <= said.count("idle connections are closed to make room") <= 2  # of each server one
        assert "Traceback" not in said
    assert 0 == program.stop()


def test_connections_beyond_the_limit_are_refused_and_nothing_else_fails(make_program: MakeProgram) -> None:
    """This holds on every port. Log and store open what they need, queries are answered, and one line says why."""
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
            # Where connecting took longer than a second, the first of them were evicted.
            assert not answer or answer.startswith(b"HTTP/1.1 503 ")
            assert not answer or b"retry-after: 1" in answer
        for name in ("one", "two", "three"):
            assert 200 == send(name)
        program.wait_for("SELECT count() FROM otel_logs", 4)
        kept.request("GET", "/healthz")
        assert b'"status":"ok"' in kept.getresponse().read()
        kept.request("GET", "/metrics")
        text = kept.getresponse().read().decode()
        assert value_of(text, "infrasage_descriptors_refused_total") + value_of(text, EVICTED) >= LIMIT / 2
        said = program.log()
        assert said.count("connections are refused: the file descriptors") <= 1
        assert 1 == said.count("this process may open fewer files than its settings may need")
        assert "Traceback" not in said
    # They are gone, so there is room.
    until(lambda: metric(program.http, "infrasage_http_connections") < 10)
    assert 0 == program.stop()
