"""collector/receivers/decompress.py: what a body decompresses to is held as it comes, and the loop goes on."""

import asyncio
import gzip
import re
import sys
import time
import zlib
from collections.abc import Callable
from math import inf

import cramjam
import pytest
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.attacks import JSON, PROTOBUF, REMOTE_WRITE, WRITE_V2, json_logs
from support.fakes.receiving import Receivers, otlp_logs, receivers
from support.machine_speed import scaled
from support.references.remote_write import length_delimited
from support.tenants import on_plans
from zlib_ng import zlib_ng

from adapters.codec.json_parts import JsonPartsCount
from adapters.codec.pieces import PiecesCount
from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused
from adapters.price import ElementsCount, shape_of
from collector.ingest.large_bodies import DIRECT_BYTES_MAX, Decompressing
from collector.ingest.loop_turns import LoopTurns
from collector.ingest.produce import Overloaded
from collector.rate_limit.contract import Limited
from collector.rate_limit.local import LocalLimiter
from collector.receivers import decompress
from collector.receivers.http.telemetry_request import Head
from collector.receivers.responses import Answer
from collector.receivers.routes import GRPC_SERVICES
from collector.records.dead_letter import Caps
from collector.runtime.version import is_compiled
from collector.tenancy.plans import FREE, Plan, Rate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
# RFC 1951, 3.2.7: eight blocks of dynamic codes, each of which holds its tables and the end of the block, and no content.
EMPTY_BLOCKS = bytes.fromhex(
    "04c081000000000090ff6b100007020000000040feaf41001c0800000000"
    "00f9bf060170200000000000e4ff1a04c081000000000090ff6b10000702"
    "0000000040feaf41001c080000000000f9bf060170200000000000e4ff1a"
)
CONTENT = bytes(range(256)) * (5 * MIB // 256)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "snappy": lambda content: bytes(cramjam.snappy.compress_raw(content)),
    "snappy_of_any_format": lambda content: bytes(cramjam.snappy.compress(content)),
}
PACKED = {encoding: COMPRESS[encoding](CONTENT) for encoding in ("gzip", "zstd", "snappy")} | {"identity": CONTENT}
DENSE = {encoding: compress(b"," * (16 * MIB)) for encoding, compress in COMPRESS.items()}


async def decompressed(
    body: bytes,
    encoding: str,
    bytes_max: int,
    hold: Callable[[int], None],
    admit: Callable[[int], None] = lambda _: None,
    threads: Decompressing | None = None,
    turns: LoopTurns | None = None,
    count: PiecesCount | None = None,
) -> bytes:
    own = threads or Decompressing()
    try:
        return await decompress.decompressed(
            body,
            encoding,
            bytes_max,
            count or JsonPartsCount(bytes_max),
            hold=hold,
            admit=admit,
            tenant="acme",
            threads=own,
            turns=turns or LoopTurns(),
        )
    finally:
        if threads is None:
            own.close()


@pytest.mark.parametrize("encoding", PACKED)
async def test_what_is_decompressed_is_held_as_it_comes(encoding: str) -> None:
    """A megabyte at a time; snappy announces its size, and all of it is held before it is there."""
    held: list[int] = []
    assert CONTENT == await decompressed(PACKED[encoding], encoding, len(CONTENT), held.append)
    assert len(CONTENT) == sum(held)
    if encoding in ("gzip", "zstd"):
        assert max(held) <= MIB + 1


@pytest.mark.parametrize("encoding", DENSE)
async def test_a_body_is_left_where_it_holds_too_much(encoding: str) -> None:
    """Not all of its 16 MiB are made. Snappy makes its beginning first, and holds what it announces."""
    held: list[int] = []
    count = JsonPartsCount(2 * MIB)
    body = DENSE[encoding]
    with pytest.raises(RequestRefused) as caught:
        await decompressed(body, encoding, 16 * MIB, held.append, count=count)
    assert PAYLOAD_TOO_LARGE == caught.value.reason
    assert "the first 3145728 bytes of the JSON hold more than 2097152 elements" in caught.value.message
    assert b"," * MIB == count.beginning
    if encoding != "snappy":
        assert sum(held) <= 5 * MIB


@pytest.mark.parametrize("content", [b"{},", b"0,"])
async def test_a_snappy_body_of_small_parts_is_left(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning tells, though not each of its bytes counts: all of it is not made."""
    body = COMPRESS["snappy"](content * (16 * MIB // len(content)))
    monkeypatch.setattr(cramjam.snappy, "decompress_raw_into", lambda *_: pytest.fail("all of it was made"))
    with pytest.raises(RequestRefused) as caught:
        await decompressed(body, "snappy", 16 * MIB, lambda _: None, count=JsonPartsCount(2 * MIB))
    assert "elements" in caught.value.message


@pytest.mark.parametrize("encoding", DENSE)
async def test_a_body_that_holds_as_much_as_it_may_is_whole(encoding: str) -> None:
    """Its beginning is not, where it was looked at."""
    assert b"," * (16 * MIB) == await decompressed(DENSE[encoding], encoding, 16 * MIB, lambda _: None)
    late = JsonPartsCount(2 * MIB)
    content = b" " * (8 * MIB) + b"," * (2 * MIB)
    packed = COMPRESS[encoding](content)
    assert content == await decompressed(packed, encoding, 16 * MIB, lambda _: None, count=late)
    assert len(content) == late.size_bytes
    assert late.is_sure


@pytest.mark.parametrize("encoding", PACKED)
async def test_no_more_is_decompressed_than_can_be_held(encoding: str) -> None:
    """The first step that is too much is the last."""
    held: list[int] = []

    def hold(size_bytes: int) -> None:
        held.append(size_bytes)
        if sum(held) > 2 * MIB:
            raise Overloaded("full")

    with pytest.raises(Overloaded):
        await decompressed(PACKED[encoding], encoding, len(CONTENT), hold)
    assert sum(held) <= (3 * MIB + 2 if encoding in ("gzip", "zstd") else len(CONTENT))


async def test_the_loop_goes_on_while_a_body_is_decompressed() -> None:
    """It turns at least once for each megabyte."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await decompressed(PACKED["gzip"], "gzip", len(CONTENT), lambda _: None)
    turning.cancel()
    assert turns >= 4


async def test_a_body_that_becomes_nothing_does_not_stop_the_loop() -> None:
    """Blocks of gzip with tables of codes and no content: its thread works, and the loop's does not."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\3"
    body = head + EMPTY_BLOCKS * (2 * MIB // len(EMPTY_BLOCKS)) + b"\3\0" + bytes(8)
    began, began_loop = time.process_time(), time.thread_time()
    assert b"" == await decompressed(body, "gzip", MIB, lambda _: None)
    used_s, loop_s = time.process_time() - began, time.thread_time() - began_loop
    assert loop_s < used_s / 2


async def test_many_small_bodies_do_not_stop_the_loop() -> None:
    """The clock that counts their time decides: after a body of 6 ms one other begins before the loop has its turn."""
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += 0.006
        return seconds

    turns = LoopTurns(clock)
    done = most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            before = done
            await asyncio.sleep(0)
            most = max(most, done - before)

    async def work() -> None:
        nonlocal done
        assert b"content" == await decompressed(gzip.compress(b"content"), "gzip", 100, lambda _: None, turns=turns)
        done += 1

    watching = asyncio.create_task(watch())
    await asyncio.gather(*[work() for _ in range(40)])
    watching.cancel()
    assert 1 <= most <= 2


async def test_a_body_is_admitted_at_its_turn() -> None:
    """If many wait for the threads, those that the plan has no room for any more are not decompressed."""
    threads = Decompressing()
    made: list[bytes] = []
    held: list[int] = []

    def admit(_: int) -> None:
        if len(made) == 2:
            raise Limited(FREE, "requests", 1)

    async def work() -> None:
        made.append(await decompressed(PACKED["gzip"], "gzip", len(CONTENT), held.append, admit, threads))

    outcomes = await asyncio.gather(*[work() for _ in range(10)], return_exceptions=True)
    assert [CONTENT] * 2 == made
    assert 8 == sum(isinstance(outcome, Limited) for outcome in outcomes)
    # Small bodies have their first megabyte on the loop, before they wait.
    assert sum(held) <= 2 * len(CONTENT) + 8 * (MIB + 1)
    threads.close()


async def test_a_body_is_left_where_its_plan_has_no_room_for_more() -> None:
    """It is left at the first step that is too much, and not once it is whole."""
    held: list[int] = []

    def admit(size_bytes: int) -> None:
        if size_bytes > 2 * MIB:
            raise Limited(FREE, "bytes", 1)

    with pytest.raises(Limited):
        await decompressed(PACKED["gzip"], "gzip", len(CONTENT), held.append, admit)
    assert sum(held) <= 3 * MIB + 2


async def answer(made: Receivers, body: bytes, caller: str) -> int:
    """The status with which a gzip body of logs is answered."""
    headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip", "x-api-key": caller}
    return (await answered(made, "/v1/logs", headers, body)).status


async def answered(made: Receivers, path: str, headers: dict[str, str], body: bytes) -> Answer:
    head = Head("POST")
    for name, value in headers.items():
        head.add(name.encode(), value.encode())
    head.add(b"content-length", str(len(body)).encode())
    request = made.app.receiver.new_request(path, head)
    if request.admit() and request.feed(body):
        await request.finish()
    assert request.answer is not None
    return request.answer


# What two bytes of each are an element of.
DENSE_ROUTES = {
    "/v1/logs": [(PROTOBUF, b"\x0a\0"), (JSON, b"{,")],
    "/v1/metrics": [(PROTOBUF, b"\x0a\0"), (JSON, b"{,")],
    "/v1/traces": [(PROTOBUF, b"\x0a\0"), (JSON, b"{,")],
    "/api/v1/telemetry": [(JSON, b"{,")],
    "/api/v1/telemetry/batch": [(JSON, b"{,")],
    REMOTE_WRITE: [(PROTOBUF, b"\x0a\0"), (WRITE_V2, b"\x22\0")],
}


@pytest.mark.parametrize(
    ("path", "headers", "element"),
    [(path, headers, element) for path, formats in DENSE_ROUTES.items() for headers, element in formats],
)
async def test_each_route_counts_what_is_decompressed(path: str, headers: dict[str, str], element: bytes) -> None:
    """Each counts what its body is. The dead letter has the beginning of the content, not of what was sent."""
    made = receivers(caps=Caps(10, 10 * MIB), validation={"request_elements_max": 300_000})
    encoding = "snappy" if path == REMOTE_WRITE else "zstd"
    content = element * (8 * MIB)
    refused = await answered(made, path, headers | {"content-encoding": encoding}, COMPRESS[encoding](content))
    assert 413 == refused.status
    assert b"hold more than 300000 elements" in refused.body
    read = re.search(rb"the first (\d+) bytes of the ", refused.body)
    assert read is not None
    assert int(read[1]) <= 2 * MIB
    assert 0 == made.in_flight.bytes_held
    (record,) = DeadLetterBatch.FromString(made.producer.messages[0].payload).records
    assert 0 < len(record.letter.payload) < MIB
    assert content.startswith(record.letter.payload)


async def test_a_call_counts_what_is_decompressed() -> None:
    """Each service of gRPC has an input of its own."""
    for service in GRPC_SERVICES:
        count = service.input.count_pieces(300_000)
        with pytest.raises(RequestRefused):
            count.take(b"\x0a\0" * MIB)


async def test_a_body_that_becomes_nothing_costs_what_was_sent() -> None:
    """A plan of a megabyte lets three such bodies of 300 KB pass."""
    plan = Plan("Small", None, None, Rate(1, MIB))
    made = receivers(find=on_plans({"acme": plan}), limiter=LocalLimiter(lambda: 0))
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\3"
    body = head + EMPTY_BLOCKS * (300_000 // len(EMPTY_BLOCKS)) + b"\3\0" + bytes(8)
    assert [200, 200, 200, 429, 429] == [await answer(made, body, "acme") for _ in range(5)]


async def test_what_was_decompressed_counts_where_the_plan_has_no_room() -> None:
    """However often it is sent, no more is decompressed in vain than the plan has bytes."""
    plan = Plan("Small", None, None, Rate(1, 8 * MIB))
    made = receivers(find=on_plans({"acme": plan}), limiter=LocalLimiter(lambda: 0))
    body = gzip.compress(b"\xff" * (5 * MIB))
    # 5 MiB are taken. Each of the others is left behind 3 MiB, and at most 8 MiB are made so.
    made_bytes = 0
    decompressobj = zlib_ng.decompressobj

    class Counted:
        """What decompresses, which a library has: a compiled object's methods can't be replaced."""

        def __init__(self, window_bits: int) -> None:
            self._work = decompressobj(window_bits)

        def decompress(self, data: bytes, bytes_max: int) -> bytes:
            nonlocal made_bytes
            content = self._work.decompress(data, bytes_max)
            made_bytes += len(content)
            return content

        def __getattr__(self, name: str) -> object:
            return getattr(self._work, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zlib_ng, "decompressobj", Counted)
        assert [413, *[429] * 19] == [await answer(made, body, "acme") for _ in range(20)]
    assert 5 * MIB <= made_bytes <= 5 * MIB + 8 * MIB + 5 * MIB + 20 * len(body)


async def test_too_large_a_body_is_refused() -> None:
    """It is refused as soon as it is too large."""
    with pytest.raises(RequestRefused) as caught:
        await decompressed(PACKED["gzip"], "gzip", 3 * MIB, lambda _: None)
    assert PAYLOAD_TOO_LARGE == caught.value.reason


async def test_a_large_body_holds_its_budget_while_it_is_read_and_no_longer() -> None:
    """A stop may cancel it: its sender hears that it may send again, and nothing of it is kept."""
    made = receivers()
    body = otlp_logs(good=20, padding=20_000)
    assert len(body) > DIRECT_BYTES_MAX
    for is_cancelled, status in ((True, 503), (False, 200)):
        head = Head("POST")
        head.add(b"content-type", b"application/x-protobuf")
        head.add(b"content-length", str(len(body)).encode())
        request = made.app.receiver.new_request("/v1/logs", head)
        request.admit()
        assert request.feed(body)
        finishing = asyncio.create_task(request.finish())
        await asyncio.sleep(0)
        assert len(body) == made.in_flight.bytes_held
        if is_cancelled:
            finishing.cancel()
        await finishing
        assert request.answer is not None
        assert status == request.answer.status
        assert 0 == made.in_flight.bytes_held
    assert 20 == made.producer.item_count()


TEXT_BYTES = 50_000_000


def in_scope(records: bytes) -> bytes:
    return length_delimited(1, length_delimited(2, records))


def log_of(text: bytes) -> bytes:
    return length_delimited(2, length_delimited(5, length_delimited(1, text)))


# A text of 50 MB, and what is too much behind it: how to make it, and what counts it.
BEHIND_TEXT: dict[str, tuple[Callable[[], bytes], Callable[[], PiecesCount]]] = {
    "protobuf": (
        lambda: in_scope(log_of(b"x" * TEXT_BYTES) + b"\x12\0" * 6_000_000),
        lambda: ElementsCount(shape_of(ExportLogsServiceRequest), 5_000_000),
    ),
    "JSON": (
        lambda: json_logs(b'{"body":{"stringValue":"' + b"x" * TEXT_BYTES + b'"}}' + b",{}" * 4_000_000),
        lambda: JsonPartsCount(5_000_000),
    ),
    "JSON without texts": (lambda: b"[" + b"1234567," * 8_000_000, lambda: JsonPartsCount(5_000_000)),
    "native JSON": (lambda: b'{"attributes":{' + b'"":0,' * 10_000_000, lambda: JsonPartsCount(5_000_000)),
}
# Of a byte that is repeated, snappy's library makes 1.3 GB/s, for 20 times the bytes that were sent.
_TRIES = 12
REFUSAL_S_MAX = {"gzip": 0.05, "deflate": 0.05, "zstd": 0.05, "snappy": 0.075, "snappy_of_any_format": 0.075}


@pytest.mark.skipif(not is_compiled(), reason="the numbers are the compiled build's")
@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("kind", BEHIND_TEXT)
async def test_a_refusal_costs_little_however_late_it_is_known(kind: str, encoding: str) -> None:
    """Though all of a text is decompressed before what is too much: at most so much CPU (`scaled`), of all threads."""
    make, count = BEHIND_TEXT[kind]
    body = COMPRESS[encoding](make())
    cost_s, cost_s_max = inf, 0.0
    for _ in range(_TRIES):  # beside other processes some of them take longer
        began = time.process_time()
        with pytest.raises(RequestRefused) as caught:
            await decompressed(body, encoding, 64 * MIB, lambda _: None, count=count())
        cost_s = min(cost_s, time.process_time() - began)
        assert "more than 5000000 elements" in caught.value.message
        cost_s_max = scaled(REFUSAL_S_MAX[encoding], cost_s)
        if cost_s <= cost_s_max:
            break
    assert cost_s_max >= cost_s, f"{cost_s * 1000:.0f} ms, where {cost_s_max * 1000:.0f} ms are allowed"
