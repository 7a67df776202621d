"""Measures what it costs to recognize repeated requests: CPU of the gateway and of the writer, with and without.

    python bench/repetitions.py [--part gateway,writer,messages] [--signal metrics,logs,traces] [--items 1,100,1000]
                                [--rounds 5] [--seconds 2] [--rows 300000]

Needs Kafka's jars in $PEERS, except for the part `messages`. One gateway (or writer) has the default settings of [repetitions],
the other `window_s = 0`. Both are measured in turn, so that other work of the machine affects both alike. Each request is sent
once: an unknown field at the end of its body has its number. Decoders skip that field.

Each writer has its own database. Both are stopped (SIGSTOP) while the topic is filled. Then each in turn continues until it has
stored everything. The CPU times of the writers' processes are compared. A writer looks up fingerprints in the store only in its
first window after a start. These writers have just started, so their look-ups are part of the result.

`messages` is the time that the writer's own code takes for each message to decide whether it is a repetition, without a broker
or a store. It is the minimum of the rounds, since other work of the machine can only increase it. No message is a repetition.
"""

import argparse
import asyncio
import itertools
import os
import signal as signals
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import bodies, measuring
from bench.measuring import Senders, closed_loop, closed_loop_of, cpu_seconds, grpc_senders, http_message, http_senders
from bench.writer import CONNECTIONS, TABLES, ask, wait

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_LOGS, PAYLOAD_FORM_OTLP_METRICS, PAYLOAD_FORM_OTLP_TRACES
from support.fakes.receiving import ANONYMOUS, receivers
from support.processes.clickhouse_server import Bridge, bridge
from support.processes.program import WriterCommand, started

import adapters.otlp.logs
import adapters.otlp.metrics
import adapters.otlp.traces
from adapters.codec.json_parts import JsonPartsCount
from adapters.record import SOURCE_OTLP
from collector.broker.contract import Message, Partition, Range
from collector.ingest.reading import Input
from collector.ingest.request_fingerprints import HASHED, RequestFingerprints
from collector.writer.repetitions import Repetitions

DEFAULTS: Final = ""
OFF: Final = "repetitions.window_s = 0\n"
ITEMS_OF_THE_WRITER: Final = 1000
WARM_S: Final = 0.3
_INPUTS: Final = {
    "metrics": Input(adapters.otlp.metrics.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/metrics", PAYLOAD_FORM_OTLP_METRICS),
    "logs": Input(adapters.otlp.logs.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS),
    "traces": Input(adapters.otlp.traces.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/traces", PAYLOAD_FORM_OTLP_TRACES),
}
# The number of ranges of the part `messages`. The first is not measured.
_RANGES: Final = 6
# A field that no message has, as a varint: field 15 with wire type 0.
_UNKNOWN_FIELD: Final = b"\x78"

_numbers = itertools.count(1 << 21)  # four bytes as a varint, so that all bodies of a kind have one size


def once(kind: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield bodies of a kind without end. Each differs from all others."""
    for body in itertools.cycle(kind):
        number = next(_numbers)
        varint = bytes((number >> shift & 0x7F) | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
        yield body + _UNKNOWN_FIELD + varint


def ratio(with_: list[float], without: list[float]) -> str:
    """Return the ratio of the CPU time with repetitions to that without: of the medians, and the smallest and the largest of a
    round."""
    each = sorted(one / other for one, other in zip(with_, without, strict=True))
    return f"{statistics.median(with_) / statistics.median(without):.3f} ({each[0]:.3f} to {each[-1]:.3f})"


def of_gateway(here: Path, kafka: str, options: argparse.Namespace) -> None:
    """Print a row for each transport, signal and number of items."""
    gateways = {
        name: measuring.Gateway(here, kafka, settings, name) for name, settings in (("with", DEFAULTS), ("without", OFF))
    }
    print("| transport | signal | records a request | µs of CPU a request: with | without | ratio |\n|---|---|---|---|---|---|")
    with ExitStack() as stack:
        pids = {
            name: stack.enter_context(measuring.server(gateway.command, gateway.otlp_port, gateway.log))
            for name, gateway in gateways.items()
        }

        def senders(name: str, transport: str, signal: str, items: int) -> Senders:
            gateway, requests = gateways[name], once(bodies.otlp(signal, items))
            if transport == "grpc":
                return grpc_senders(gateway.grpc_port, bodies.METHODS[signal], requests)
            return http_senders(gateway.otlp_port, (http_message(f"/v1/{signal}", body) for body in requests))

        for transport in ("http", "grpc"):
            for signal in options.signal.split(","):
                for items in measuring.numbers(options.items):
                    cost: dict[str, list[float]] = {name: [] for name in gateways}
                    for name in gateways:
                        closed_loop(senders(name, transport, signal, items), WARM_S)
                    for _ in range(options.rounds):
                        for name, pid in pids.items():
                            taken, cpu_s = closed_loop_of(senders(name, transport, signal, items), options.seconds, pid)
                            cost[name].append(cpu_s / len(taken) * 1e6)
                    medians = " | ".join(f"{statistics.median(one):,.1f}" for one in cost.values())
                    print(
                        f"| {transport} | {signal} | {items:,} | {medians} | {ratio(cost['with'], cost['without'])} |",
                        flush=True,
                    )


def of_writer(here: Path, kafka: str, options: argparse.Namespace) -> None:
    """Print a row for each signal."""
    gateway = measuring.Gateway(here, kafka, DEFAULTS)
    print("| signal | µs of CPU a message of 1,000 records: with | without | ratio |\n|---|---|---|---|")
    with ExitStack() as stack:
        stack.enter_context(measuring.server(gateway.command, gateway.otlp_port, gateway.log))
        engines: dict[str, Bridge] = {}
        pids: dict[str, int] = {}
        for name, window_s in (("with", 900), ("without", 0)):
            engine = engines[name] = stack.enter_context(bridge(here / f"engine-{name}"))
            writer = WriterCommand(
                here / f"writer-{name}",
                kafka__bootstrap=kafka,
                kafka__session_timeout_s=600,  # a writer that is stopped keeps its partitions
                kafka__group_id=f"bench-{name}",
                clickhouse__url=engine.url,
                clickhouse__user=engine.user,
                clickhouse__password=engine.password,
                clickhouse__database=engine.database,
                logging__level="warning",
                repetitions__window_s=window_s,
            )
            writer.command = ["taskset", "-c", "0", *writer.command]
            stack.enter_context(started(writer))
            pids[name] = writer.worker()
        for signal in options.signal.split(","):
            requests = options.rows // ITEMS_OF_THE_WRITER
            kind = bodies.scrapes(signal, ITEMS_OF_THE_WRITER, 50)
            cost: dict[str, list[float]] = {name: [] for name in pids}
            count = f"SELECT count() FROM {TABLES[signal]}"
            for turn in range(options.rounds + 1):
                expected = ask(engines["with"], count) + requests * ITEMS_OF_THE_WRITER
                for pid in pids.values():
                    os.kill(pid, signals.SIGSTOP)
                messages = (http_message(f"/v1/{signal}", body) for body in once(kind))
                measuring.send_all(http_senders(gateway.otlp_port, messages, CONNECTIONS), requests)
                for name, pid in pids.items():
                    before = cpu_seconds(pid)
                    os.kill(pid, signals.SIGCONT)
                    wait(lambda: ask(engines[name], count) >= expected, "stored")  # noqa: B023 - called before the next
                    os.kill(pid, signals.SIGSTOP)
                    if turn:  # in the first, modules that are imported late are loaded
                        cost[name].append((cpu_seconds(pid) - before) / requests * 1e6)
                    if (found := ask(engines[name], count)) != expected:
                        sys.exit(f"{found} rows of {signal} are stored by the writer {name}, not {expected}")
                for pid in pids.values():
                    os.kill(pid, signals.SIGCONT)
            medians = " | ".join(f"{statistics.median(one):,.1f}" for one in cost.values())
            print(f"| {signal} | {medians} | {ratio(cost['with'], cost['without'])} |", flush=True)


def of_messages(options: argparse.Namespace) -> None:
    """Print a row for each signal and number of items."""
    print("| signal | records a message | µs of CPU a message |\n|---|---|---|")
    for signal in options.signal.split(","):
        for items in measuring.numbers(options.items):
            ranges = _ranges(asyncio.run(_messages(signal, items, max(60, options.rows // max(items, 10)))))
            taken = min(_cpu_of_recognizing(ranges) for _ in range(options.rounds))
            number = sum(len(each.payloads) for each in ranges[1:])
            print(f"| {signal} | {items:,} | {taken / number * 1e6:.2f} |", flush=True)


async def _messages(signal: str, items: int, number: int) -> list[Message]:
    """Return messages as a gateway makes them."""
    made = receivers(
        anonymous=ANONYMOUS,
        fingerprints=RequestFingerprints(900, HASHED, 0),
        now_unix_nano=time.time_ns,
        message_bytes_max=1 << 23,
    )
    for body in itertools.islice(once(bodies.otlp(signal, items)), number):
        await made.pipeline.ingest(_INPUTS[signal], body, ANONYMOUS, lambda _size: None)
    return made.producer.messages


def _ranges(messages: Sequence[Message]) -> list[Range]:
    """Return ranges as Kafka's client returns them: their messages are slices of one received buffer."""
    found: list[Range] = []
    size = max(1, len(messages) // _RANGES)
    for start in range(0, len(messages), size):
        payloads = [each.payload for each in messages[start : start + size]]
        received = memoryview(bytearray().join(payloads)).toreadonly()
        ends = list(itertools.accumulate(map(len, payloads)))
        parts = [received[end - len(each) : end] for each, end in zip(payloads, ends, strict=True)]
        found.append(Range(Partition(messages[start].topic, 0), start, start + len(parts), parts, log="log.0"))
    return found


def _cpu_of_recognizing(ranges: Sequence[Range]) -> float:
    """Return the CPU-seconds of all ranges but the first, before which no fingerprint is known."""
    repetitions = Repetitions(_EmptyStore(), 900, 1_000_000, _NoObserver())
    began = 0.0
    for number, each in enumerate(ranges):
        if number == 1:
            began = time.process_time()
        if repetitions.decide(each) is not each:
            sys.exit("a message was taken for a repetition")
        repetitions.committed(each)
    return time.process_time() - began


class _EmptyStore:
    def copies(
        self, _topic: str, _asked: object, _besides: object, _since: int, _until: int
    ) -> dict[tuple[bytes, bytes], list[int]]:
        return {}


class _NoObserver:
    def left_out(self, _topic: str, _messages: int) -> None:
        pass

    def looked_up(self, _fingerprints: int) -> None:
        pass


PARTS: Final = {"gateway": of_gateway, "writer": of_writer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--items", default="1,100,1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rows", type=int, default=300_000)
    options = parser.parse_args()
    measuring.leave_the_first_core()
    for part in options.part.split(","):
        if part == "messages":
            of_messages(options)
            continue
        with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
            PARTS[part](Path(directory), kafka, options)


if __name__ == "__main__":
    main()
