"""Measures the effect of a noisy tenant on a quiet one: throughput and latency without it, and beside it.

    python bench/tenants.py [--noise http,grpc,large,unlimited] [--quota 50] [--times 20] [--rounds 5] [--seconds 2]

The noisy tenant's plan allows `quota` requests a second. It sends `times` as many, by 16 connections:
  http       small requests over HTTP
  grpc       small requests over gRPC
  large      50 requests a second of 1 MiB over HTTP; each exceeds its plan, and is sent in full whatever the answer is
  unlimited  as http, but on a plan without limits, which shows the effect if there were no plans

The quiet tenant sends requests of 100 log records over 8 connections: first 200 a second, for the latency from the planned time
of each, and then as many as it can, for the throughput. It is measured without and beside the noisy tenant in turn, so that
other work of the machine affects both alike. The output has medians over the rounds, and their ratios.

`serve` runs on one core. The senders run on the others, the noisy one at the lowest priority: otherwise the two tenants would
compete where they send. The output also has the share of its core that the server spends on the noise.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.processes.program import Program, metric, started
from support.senders import otlp_logs
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
LINE: Final = "a line of a log, of some length, as there are many"
QUIET_ITEMS: Final = 100
QUIET_CONNECTIONS: Final = 8
QUIET_PER_S: Final = 200.0
NOISY_ITEMS: Final = 10
NOISY_CONNECTIONS: Final = 16
LARGE_BYTES: Final = 1 << 20
LARGE_PER_S: Final = 50.0
# More bytes than small requests need, and fewer than a large one has.
NOISY_BYTES_PER_S: Final = 512 << 10
UNDER_WAY: Final = "under way"

Send = Callable[[], Awaitable[bool]]  # sends a request; returns whether it was accepted


class Round(NamedTuple):
    """The results of the quiet tenant: the requests a second at full speed, the durations in seconds at its steady rate, and
    the number of refused requests."""

    per_s: float
    taken_s: list[float]
    refused: int


class Noise(NamedTuple):
    """The noisy tenant's requests a second, sent and accepted, and the share of a core that the server spent while nobody else
    sent."""

    sent: float
    accepted: float
    core: float


# Sending.


@asynccontextmanager
async def http_sender(port: int, key: str, body: bytes) -> AsyncIterator[Send]:
    """Yield a sender over a socket. A slow client would change the results."""
    head = (
        "POST /v1/logs HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\n"
        f"X-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    message = head.encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def one() -> bool:
        writer.write(message)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", answer, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        status = int(answer.split(b" ", 2)[1])
        if status not in (200, 413, 429):
            raise RuntimeError(answer.decode())
        return status == 200

    yield one
    writer.close()


@asynccontextmanager
async def grpc_sender(port: int, key: str, body: bytes) -> AsyncIterator[Send]:
    own_connection = ("grpc.use_local_subchannel_pool", 1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[own_connection]) as channel:
        call: Any = channel.unary_unary(METHOD)

        async def one() -> bool:
            try:
                await call(body, timeout=30, metadata=(("x-api-key", key),))
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        yield one


async def send_all(
    senders: Sequence[AbstractAsyncContextManager[Send]],
    per_s: float | None,
    ended: asyncio.Event,
    done: Callable[[bool, float], None],
) -> None:
    """Send until `ended` is set. `per_s` is the rate of all senders together, which take turns; None sends as many as they can.

    `done` is called for each request with whether it was accepted, and its duration in seconds from its planned time."""
    began = time.perf_counter()

    async def run(index: int, sender: AbstractAsyncContextManager[Send]) -> None:
        turn = index
        async with sender as one:
            while not ended.is_set():
                due = time.perf_counter()
                if per_s is not None:
                    now, due = due, began + turn / per_s
                    turn += len(senders)
                    await asyncio.sleep(max(0.0, due - now))
                accepted = await one()
                done(accepted, time.perf_counter() - due)

    await asyncio.gather(*(run(index, sender) for index, sender in enumerate(senders)))


# The noisy tenant, in a separate process.


async def make_noise(kind: str, port: int, key: str, per_s: float) -> None:
    """Send noise until standard input ends. Print a line when the tenant's burst is used up. At the end, print the requests a
    second that were sent and accepted since then."""
    ended = asyncio.Event()
    reading = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    reading.add_done_callback(lambda _: ended.set())
    sent = accepted = 0

    def done(was_accepted: bool, _taken_s: float) -> None:
        nonlocal sent, accepted
        sent += 1
        accepted += was_accepted

    body = otlp_logs(["x" * LARGE_BYTES] if kind == "large" else [LINE] * NOISY_ITEMS)
    sender = grpc_sender if kind == "grpc" else http_sender
    senders = [sender(port, key, body) for _ in range(NOISY_CONNECTIONS)]
    sending = asyncio.create_task(send_all(senders, LARGE_PER_S if kind == "large" else per_s, ended, done))
    await asyncio.sleep(1.5)
    sent = accepted = 0
    began = time.perf_counter()
    print(UNDER_WAY, flush=True)
    await ended.wait()
    took_s = time.perf_counter() - began
    print(json.dumps([sent / took_s, accepted / took_s]))
    await sending


@contextmanager
def noise(kind: str, program: Program, key: str, per_s: float) -> Iterator[list[Noise]]:
    """Run the noisy tenant inside this context. After the context, the yielded list has its results."""
    port = program.grpc_port if kind == "grpc" else program.http_port
    results: list[Noise] = []
    command = ["nice", "-n", "19", sys.executable, __file__, "--make-noise", kind, str(port), key, str(per_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != f"{UNDER_WAY}\n":
            sys.exit(f"the noise ended with {process.wait()}")
        before, began = cpu_seconds(program.pid()), time.perf_counter()
        time.sleep(1)
        core = (cpu_seconds(program.pid()) - before) / (time.perf_counter() - began)
        yield results
    finally:
        out, _ = process.communicate(timeout=60)
    sent, accepted = json.loads(out)
    results.append(Noise(sent, accepted, core))


def cpu_seconds(pid: int) -> float:
    """Return the CPU-seconds of a process, user and system, as /proc reports them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The quiet tenant.


def measure(port: int, key: str, seconds: float) -> Round:
    body = otlp_logs([LINE] * QUIET_ITEMS)
    refused = 0

    def send(per_s: float | None) -> list[float]:
        taken: list[float] = []

        def done(accepted: bool, taken_s: float) -> None:
            nonlocal refused
            taken.append(taken_s)
            refused += not accepted

        async def run() -> None:
            ended = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, ended.set)
            await send_all([http_sender(port, key, body) for _ in range(QUIET_CONNECTIONS)], per_s, ended, done)

        asyncio.run(run())
        return taken

    steady = send(QUIET_PER_S)
    return Round(len(send(None)) / seconds, steady, refused)


def settle(program: Program) -> None:
    """Wait until everything is stored. The server continues to store after the senders have ended."""
    time.sleep(3.5)  # the lag is polled every three seconds
    until(lambda: metric(program.http, "infrasage_log_lag_messages") == 0, timeout_s=120)


def compare(kind: str, alone: list[Round], beside: list[Round], noises: list[Noise]) -> str:
    """Return a row of the table."""

    def per_s(rounds: list[Round]) -> float:
        return statistics.median(each.per_s for each in rounds)

    def percentile_ms(rounds: list[Round], percent: int) -> float:
        return statistics.median(statistics.quantiles(each.taken_s, n=100)[percent - 1] for each in rounds) * 1000

    cells = [f"{per_s(alone):,.0f} / {per_s(beside):,.0f} = **{per_s(beside) / per_s(alone):.2f}**"]
    for percent in (50, 99):
        one, other = percentile_ms(alone, percent), percentile_ms(beside, percent)
        cells.append(f"{one:.2f} / {other:.2f} = **{other / one:.2f}**")
    cells.append(str(sum(each.refused for each in [*alone, *beside])))
    sent, accepted, core = (statistics.median(values) for values in zip(*noises, strict=True))
    return f"| {kind} | {' | '.join(cells)} | {sent:,.0f} | {accepted:,.1f} | {core:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", default="http,grpc,large,unlimited")
    parser.add_argument("--quota", type=int, default=50)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--make-noise", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make_noise:
        kind, port, key, per_s = options.make_noise
        asyncio.run(make_noise(kind, int(port), key, float(per_s)))
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    small = {
        "Small": {"requests_per_s": options.quota, "requests_burst": options.quota, "bytes_per_s": NOISY_BYTES_PER_S},
    }
    with tempfile.TemporaryDirectory() as directory:
        program = Program(Path(directory) / "data", plans=json.dumps(small), logging__level="warning")
        program.command = ["taskset", "-c", str(cores[0]), *program.command]
        path = program.data_dir / keys.FILE_NAME
        now = datetime.now(UTC)
        made = {
            tenant: keys.create(path, tenant=tenant, scope=Scope.INGEST, plan=plan, now=now).text
            for tenant, plan in (("quiet", "Unlimited"), ("noisy", "Small"), ("unlimited", "Unlimited"))
        }
        with started(program):
            measure(program.http_port, made["quiet"], 1)  # warm
            print(f"a plan of {options.quota} requests a second, and {options.times} times as many; alone / beside = ratio")
            print(
                "| noise | requests a second | p50, ms | p99, ms | refused | noisy: sent a second | accepted | server's core |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for kind in options.noise.split(","):
                alone: list[Round] = []
                beside: list[Round] = []
                noises: list[Noise] = []
                key = made["unlimited" if kind == "unlimited" else "noisy"]
                for _ in range(options.rounds):
                    settle(program)
                    alone.append(measure(program.http_port, made["quiet"], options.seconds))
                    settle(program)
                    with noise(kind, program, key, options.quota * options.times) as told:
                        beside.append(measure(program.http_port, made["quiet"], options.seconds))
                    noises += told
                print(compare(kind, alone, beside, noises), flush=True)


if __name__ == "__main__":
    main()
