"""The requests through nginx and HAProxy, beside honest clients whose requests share their connections to the collector."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import httpx
import pytest
from hpack import Decoder, Encoder
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from support.fakes.receiving import http_receivers, otlp_logs, post
from support.http2 import frame
from support.processes.fronts import Front, Ports, haproxy, nginx
from support.smuggling import BODY, HTTP1, HTTP2, Case, Head, Heard

# A front may wait for more of a request that is not whole; its sender has no more. It stops waiting when honest clients, whose
# requests take the same way, have had so many rounds of answers meanwhile: on a busy machine a second is too short.
PATIENCE_S = 1.0
PATIENCE_ROUNDS = 5
AT_ONCE = 40
PROTOBUF = {"content-type": "application/x-protobuf"}
HEADERS, RST_STREAM, GOAWAY, END_STREAM = 1, 3, 7, 1


class Rounds:
    """How many rounds of answers honest clients have had."""

    def __init__(self) -> None:
        self.count = 0

    async def end(self, waiting: Awaitable[object]) -> None:
        """Wait for that, or until others have been answered for long enough."""
        task = asyncio.ensure_future(waiting)
        while True:
            before = self.count
            done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
            if done or self.count >= before + PATIENCE_ROUNDS:
                break
        task.cancel()
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            await task


async def answered(port: int, case: Case, rounds: Rounds) -> int:
    """How often a request of that sender's was accepted."""
    transport, heard = await asyncio.get_running_loop().create_connection(Heard, "127.0.0.1", port)
    transport.write(case.data + post("/v1/logs", PROTOBUF["content-type"], BODY, "Connection: close"))
    await rounds.end(heard.closed.wait())
    transport.abort()
    return heard.statuses().count(200)


async def answered_from_http_2(port: int, case: Head, rounds: Rounds) -> int:
    """The same of a request over HTTP/2."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head, last = Encoder().encode(case.fields, huffman=False), case.trailers is None
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4) + frame(1, head, stream_id=1, flags=4)
    data += frame(0, case.body, stream_id=1, flags=int(last))
    if case.trailers:
        data += frame(1, Encoder().encode(case.trailers, huffman=False), stream_id=1, flags=5)
    statuses: list[str] = []
    decoder = Decoder()

    async def read() -> None:
        while True:
            start = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(start[:3], "big"))
            if start[3] == HEADERS:
                statuses.extend(str(field[1]) for field in decoder.decode(payload) if str(field[0]) == ":status")
            if start[3] in (RST_STREAM, GOAWAY) or (start[3] in (0, HEADERS) and start[4] & END_STREAM):
                return

    with suppress(ConnectionError):
        writer.write(data)
        await rounds.end(read())
    writer.close()
    return statuses.count("200")


async def honest(port: int, stop: asyncio.Event, rounds: Rounds) -> int:
    """Ask until stopped, for answers that differ from request to request: each must be the one that was asked for."""
    number = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        while not stop.is_set():
            number += 1
            rejected = number % 50 + 1
            answer = await client.post("/v1/logs", content=otlp_logs(good=1, late=rejected), headers=PROTOBUF)
            assert answer.status_code == 200, answer.text
            assert ExportLogsServiceResponse.FromString(answer.content).partial_success.rejected_log_records == rejected
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/nowhere")).status_code == 404
            rounds.count += 1
    return number


@pytest.mark.parametrize("front", [nginx, haproxy])
async def test_nobody_is_answered_what_another_asked(
    front: Callable[..., AbstractContextManager[Front]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is stored without an acknowledgement to its sender, from HTTP/1.1, and from HTTP/2 made HTTP/1.1."""
    async with http_receivers(with_pages=True) as made:
        before = front(tmp_path / "front", Ports(made.port, made.port))
        ports = await asyncio.to_thread(before.__enter__)
        try:
            stop, room, rounds = asyncio.Event(), asyncio.Semaphore(AT_ONCE), Rounds()
            asking = [asyncio.create_task(honest(ports.http, stop, rounds)) for _ in range(3)]

            async def one(case: Case | Head) -> int:
                async with room:
                    if isinstance(case, Case):
                        return await answered(ports.http, case, rounds)
                    return await answered_from_http_2(ports.downgrade, case, rounds)

            http1 = [one(case) for cases in HTTP1.values() for case in cases]
            accepted = await asyncio.gather(*http1, *(one(head) for head in HTTP2))
            stop.set()
            asked = sum(await asyncio.gather(*asking))
        finally:
            await asyncio.to_thread(before.__exit__, None, None, None)
        assert asked > 10
        assert sum(accepted) > 50  # fronts pass on what is well-formed
        assert made.producer.appends <= asked + sum(accepted)
    assert not caplog.records
