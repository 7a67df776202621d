"""What a client of the public pages makes of whatever answers, and of what does not."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.top import Collector

from collector.app import page_fetcher
from collector.app.page_client import PageClient
from collector.app.page_fetcher import KeyRefused, PageUnavailable
from collector.app.top import DeadLetterStats

HEALTH = {
    "status": "ok",
    "version": "1.2.3",
    "uptime_seconds": 60,
    "clickhouse": "ok",
    "kafka": "ok",
    "log": "ok",
    "broker": "embedded log",
    "store": "embedded engine",
}
STATS = "/api/v1/debug/dlq-stats"


def answer(body: bytes | str, status: int = 200, headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else body.encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


def pages(**changed: bytes) -> dict[str, bytes]:
    """Of a collector that is well, but for some: healthz=b"HTTP/1.1 …"."""
    well = {"/healthz": answer(json.dumps(HEALTH)), "/metrics": answer(Collector().page())}
    return well | {f"/{name}" if name != "stats" else STATS: data for name, data in changed.items()}


class Peer:
    """Answers each connection with what it has for the path, byte for byte. With `drip_s` more follow, for ever."""

    def __init__(self, by_path: dict[str, bytes], drip_s: float = 0.0) -> None:
        self._by_path = by_path
        self._drip_s = drip_s
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (data := connection.recv(4096)):
                    request += data
                self.requests.append(request.decode())
                data = self._by_path.get(request.decode().split(" ")[1], answer("", 404))
                try:
                    connection.sendall(data)
                    while self._drip_s:
                        connection.sendall(b"x")
                        time.sleep(self._drip_s)
                except OSError:
                    pass

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def peer(by_path: dict[str, bytes], drip_s: float = 0.0) -> Iterator[Peer]:
    made = Peer(by_path, drip_s)
    try:
        yield made
    finally:
        made.close()


def test_a_collector_is_read() -> None:
    """503 is an answer too; the key goes with every request."""
    stopping = answer(json.dumps(HEALTH | {"status": "stopping"}), 503)
    with peer(pages(healthz=stopping)) as made:
        found = PageClient(made.endpoint, "isage_x").poll()
        assert (found.status, found.version, found.uptime_s, found.health.is_stopping) == ("stopping", "1.2.3", 60.0, True)
        assert [request.split(" ")[1] for request in made.requests] == ["/healthz", "/metrics"]
        assert all("x-api-key: isage_x\r\n" in request for request in made.requests)


def test_a_path_prefix_is_kept() -> None:
    """A proxy may have one."""
    with peer({f"/collector{path}": page for path, page in pages().items()}) as made:
        assert PageClient(f"{made.endpoint}/collector", None).poll().status == "ok"


def test_without_a_key_none_is_sent() -> None:
    with peer(pages()) as made:
        PageClient(made.endpoint, None).poll()
        assert not any("x-api-key" in request for request in made.requests)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"healthz": answer("<html>", 200)}, "/healthz answers 200 without JSON"),
        ({"healthz": answer("[" * 100_000)}, "/healthz answers 200 without JSON"),
        ({"healthz": answer("[]")}, "/healthz answers 200 without JSON"),
        ({"healthz": answer("{}")}, "'status' is missing"),
        ({"healthz": answer(json.dumps(HEALTH | {"kafka": 7}))}, "kafka is not a text"),
        ({"healthz": answer(json.dumps(HEALTH | {"uptime_seconds": []}))}, "float()"),
        ({"healthz": answer("gone", 404)}, "/healthz answers 404"),
        ({"healthz": answer("", 302, "Location: /login\r\n")}, "/healthz answers 302"),
        ({"metrics": answer("<html>")}, "not Prometheus text"),
        ({"metrics": answer("")}, "it has no infrasage_in_flight_bytes"),
        ({"metrics": answer("up 1\n")}, "it has no infrasage_in_flight_bytes"),
        ({"metrics": answer(b"\xff\xfe")}, "can't decode"),
        ({"metrics": answer("# TYPE infrasage_up gauge\ninfrasage_up 1\ninfrasage_in_flight_bytes 1\n")}, "'part' is missing"),
        ({"metrics": answer("overloaded", 503)}, "/metrics answers 503"),
        ({"metrics": answer("infrasage_in_flight_bytes 1\n")[:-5]}, "IncompleteRead"),
        ({"metrics": b"SSH-2.0-OpenSSH\r\n"}, "SSH-2.0-OpenSSH"),
        ({"metrics": b""}, "Remote end closed connection"),
    ],
)  # fmt: skip
def test_what_is_no_collector_is_named(changed: dict[str, bytes], said: str) -> None:
    """The error is one line, which says where and why."""
    with peer(pages(**changed)) as made, pytest.raises(PageUnavailable) as caught:
        PageClient(made.endpoint, None).poll()
    assert said in caught.value.reason
    assert made.endpoint in str(caught.value)
    assert len(str(caught.value)) < 500


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(
        PageUnavailable, match=f"cannot read {endpoint}/healthz: Connection refused; choose another address with"
    ):
        PageClient(endpoint, None).poll()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "xn--" + "é" * 3])
def test_a_name_that_is_none_is_named(host: str) -> None:
    with pytest.raises(PageUnavailable, match="cannot read http://"):
        PageClient(f"http://{host}:1", None).poll()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_an_answer_that_never_ends_is_bounded(monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """Each byte is in time; the whole is not."""
    monkeypatch.setattr(page_fetcher, "TIMEOUT_S", 0.3)
    with peer({"/healthz": first}, drip_s=0.01) as made, pytest.raises(PageUnavailable, match=r"no whole answer within 0\.3 s"):
        PageClient(made.endpoint, None).poll()


def test_a_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_fetcher, "PAGE_BYTES_MAX", 1000)
    with peer(pages(healthz=answer("x" * 1001))) as made, pytest.raises(PageUnavailable, match="more than 1000 bytes"):
        PageClient(made.endpoint, None).poll()


def test_dead_letter_stats_are_read() -> None:
    body = json.dumps({"total_failed": 9, "open": 4})
    with peer(pages(stats=answer(body, headers="X-InfraSage-Messages-Behind: 12\r\n"))) as made:
        assert PageClient(made.endpoint, "k").dead_letter_stats() == DeadLetterStats(4, 12)


@pytest.mark.parametrize("status", [404, 503])
def test_no_store_is_no_error(status: int) -> None:
    """A writer has no such page, and a gateway may know no store."""
    with peer(pages(stats=answer("{}", status))) as made:
        assert PageClient(made.endpoint, "k").dead_letter_stats() is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_named(status: int) -> None:
    """The error has the collector's text."""
    refusal = answer(json.dumps({"status": "error", "error": "x", "message": "the key is revoked"}), status)
    with peer(pages(stats=refusal)) as made, pytest.raises(KeyRefused, match=f"{status}: the key is revoked .*--key-file"):
        PageClient(made.endpoint, "k").dead_letter_stats()


def test_stats_that_are_none_are_named() -> None:
    with peer(pages(stats=answer('{"open": "many"}'))) as made, pytest.raises(PageUnavailable, match="no InfraSage collector"):
        PageClient(made.endpoint, "k").dead_letter_stats()
