"""Several addresses and Unix sockets, as senders reach them: of `serve`, and of the processes of a gateway."""

import contextlib
import os
import re
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from support.certificates import Files
from support.processes.program import Gateway, Program, run, started
from support.senders import otlp_logs
from support.waiting import until

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}
HAS_IPV6 = Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text() != ""


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for sockets, whose paths may not be long."""
    made = tmp_path_factory.mktemp("s")
    assert len(str(made)) < 90
    return made


def send_http(base: str, path: Path | None = None) -> int:
    with httpx.Client(transport=None if path is None else httpx.HTTPTransport(uds=str(path)), timeout=20) as http:
        return http.post(f"{base}/v1/logs", content=otlp_logs(["x"]), headers=PROTOBUF).status_code


def send_grpc(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(EXPORT)
        call(otlp_logs(["x"]), timeout=20)


def sockets(short: Path) -> dict[str, object]:
    return {
        "http__listen": f"unix:{short}/api.sock",
        "http__otlp_listen": f"unix:{short}/otlp.sock",
        "grpc__listen": f"unix:{short}/grpc.sock",
        "unix_socket_mode": "0600",
    }


def test_serve_answers_on_every_address_and_socket(tmp_path: Path, short: Path) -> None:
    """On three ports of two addresses, and on three sockets. A file that was left is replaced, and none is left at the end."""
    hosts = ["127.0.0.1", "127.0.0.2"]
    program = Program(tmp_path / "data", host=",".join(hosts), **sockets(short))
    with started(program):
        for name in ("api", "otlp", "grpc"):
            assert 0o600 == stat.S_IMODE((short / f"{name}.sock").stat().st_mode)
            assert f"unix:{short}/{name}.sock" in program.printed
        for host in hosts:
            for port in (program.http_port, program.otlp_http_port):
                assert 200 == send_http(f"http://{host}:{port}")
            send_grpc(f"{host}:{program.grpc_port}")
        for name in ("api", "otlp"):
            assert 200 == send_http("http://collector", short / f"{name}.sock")
        send_grpc(f"unix:{short}/grpc.sock")
        assert 9 == len(program.query("SELECT Body FROM otel_logs"))
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{short}/api.sock")) as http:
            assert "ok" == http.get("http://collector/healthz").json()["status"]
        others = ("--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0")
        refused = run("serve", "--data-dir", tmp_path / "other", *others, **sockets(short))
        assert 1 == refused.returncode
        assert refused.stderr.endswith(
            f"error: unix:{short}/api.sock is in use by another program; choose another with http.listen\n"
        )
        program.kill()
        assert (short / "api.sock").is_socket()
        program.start()
        assert 200 == send_http("http://collector", short / "api.sock")
        assert 0 == program.stop()
        assert [] == sorted(short.iterdir())


def test_who_mistakes_the_port_hears_which_are_in_use(tmp_path: Path) -> None:
    """HTTP on gRPC's port, and gRPC on both of HTTP's: whatever ports they are, and not the defaults."""
    program = Program(tmp_path / "data")
    with started(program):
        answer = httpx.post(f"http://127.0.0.1:{program.grpc_port}/v1/logs", timeout=60)
        assert 505 == answer.status_code
        assert answer.text.endswith(f"taken on port {program.otlp_http_port} or {program.http_port}.\n")
        for port in (program.http_port, program.otlp_http_port):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/logs", headers={"content-type": "application/grpc"}, timeout=60)
            assert f"taken on port {program.grpc_port}:" in answer.headers["grpc-message"]


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6: nothing of :: can be tried")
@pytest.mark.parametrize("with_tls", [False, True])
def test_two_colons_are_every_address(tmp_path: Path, with_tls: bool) -> None:
    """IPv4's too, on all three ports, with TLS and without."""
    tls: dict[str, object] = {}
    if with_tls:
        files = Files(tmp_path)
        tls = {"tls__cert_file": files.certificate, "tls__key_file": files.key}
    program = Program(tmp_path / "data", host="::", **tls)
    program.take_addresses = lambda: None  # type: ignore[method-assign]  # it prints no 127.0.0.1
    with started(program):
        ports = [int(port) for port in re.findall(r"\[::\]:(\d+)$", program.printed, re.MULTILINE)]
        assert 3 == len(ports)
        for port in ports:
            for host in ("127.0.0.1", "::1"):
                socket.create_connection((host, port), timeout=20).close()
        assert 0 == program.stop()


def test_the_processes_of_a_gateway_share_the_sockets(tmp_path: Path, short: Path) -> None:
    """Both take connections. One that dies does not take the files away, and its replacement takes part."""
    gateway = Gateway(
        tmp_path / "gateway", kafka__bootstrap="127.0.0.1:1", gateway__workers=2, tenants__anonymous="yes", **sockets(short)
    )
    with started(gateway):

        def answers(name: str) -> int:
            """503: Kafka is away, but there is an answer."""
            return send_http("http://collector", short / f"{name}.sock")

        assert 503 == answers("api") == answers("otlp")
        first, second = gateway.children()
        os.kill(first, signal.SIGKILL)
        assert 503 == answers("api")  # by the second: the first one's successor takes a second to start
        until(lambda: gateway.log().count("a worker ended by itself") == 1 and len(gateway.children()) == 2)
        (successor,) = set(gateway.children()) - {second}
        until(lambda: is_listening(successor, short / "api.sock"))
        os.kill(second, signal.SIGKILL)
        assert 503 == answers("api") == answers("otlp")
        until(lambda: gateway.log().count("a worker ended by itself") == 2 and len(gateway.children()) == 2)
        until(lambda: all(is_listening(each, short / "api.sock") for each in gateway.children()))
        assert 0 == gateway.stop()
        assert [] == sorted(short.iterdir())


def is_listening(process: int, path: Path) -> bool:
    """Whether that process watches the socket of this path: it has it, and has it in its event loop."""
    with contextlib.suppress(OSError):  # descriptors come and go
        inode = next(
            (line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f" {path}")), ""
        )
        numbers = [each.name for each in Path(f"/proc/{process}/fd").iterdir() if str(each.readlink()) == f"socket:[{inode}]"]
        watched = [
            line.split()[1]
            for each in Path(f"/proc/{process}/fdinfo").iterdir()
            for line in each.read_text().splitlines()
            if line.startswith("tfd:")
        ]
        return bool(set(numbers) & set(watched))
    return False
