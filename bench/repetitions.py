"""What it costs to recognize requests that are sent again: CPU of the gateway and of the writer, with and without.

    python bench/repetitions.py [--part gateway,writer] [--signal metrics,logs,traces] [--items 1,100,1000] [--rounds 5]
                                [--seconds 2] [--rows 300000]

Needs Kafka's jars in $PEERS. One gateway (or writer) has the default settings of [repetitions], the other `window_s = 0`. Both
are measured in turn, so that what else the machine does hits both alike. Each request is sent once: an unknown field at the end
of its body has its number. Decoders skip that field.

The writers have a database each. They are stopped (SIGSTOP) while the topic is filled, then each in turn goes on until it has
stored everything. What is compared is the CPU time of the writer's process; look-ups in the store do not occur after a writer's
first window, and a writer that has just started makes them: they are counted as its work.
"""

import argparse
import itertools
import os
import signal as signals
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import bodies, measuring
from bench.measuring import Senders, closed_loop, closed_loop_of, cpu_seconds, grpc_senders, http_message, http_senders
from bench.writer import CONNECTIONS, TABLES, ask, wait

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.processes.clickhouse_server import Bridge, bridge
from support.processes.program import WriterCommand, started

DEFAULTS: Final = ""
OFF: Final = "repetitions.window_s = 0\n"
ITEMS_OF_THE_WRITER: Final = 1000
WARM_S: Final = 0.3
# A field that no message has, as a varint: field 15 with wire type 0.
_UNKNOWN_FIELD: Final = b"\x78"

_numbers = itertools.count(1 << 21)  # four bytes as a varint, so that all bodies of a kind have one size


def once(kind: tuple[bytes, ...]) -> Iterator[bytes]:
    """Bodies of a kind, without end, each of which differs from all others."""
    for body in itertools.cycle(kind):
        number = next(_numbers)
        varint = bytes((number >> shift & 0x7F) | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
        yield body + _UNKNOWN_FIELD + varint


def ratio(with_: list[float], without: list[float]) -> str:
    """How much CPU with repetitions takes in comparison, of the medians, and its least and most by round."""
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
                    if turn:  # the first makes what is loaded late
                        cost[name].append((cpu_seconds(pid) - before) / requests * 1e6)
                    if (found := ask(engines[name], count)) != expected:
                        sys.exit(f"{found} rows of {signal} are stored by the writer {name}, not {expected}")
                for pid in pids.values():
                    os.kill(pid, signals.SIGCONT)
            medians = " | ".join(f"{statistics.median(one):,.1f}" for one in cost.values())
            print(f"| {signal} | {medians} | {ratio(cost['with'], cost['without'])} |", flush=True)


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
        with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
            PARTS[part](Path(directory), kafka, options)


if __name__ == "__main__":
    main()
