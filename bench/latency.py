"""Measures p50 and p99 at half load. The gateway and the OpenTelemetry Collector get the load that uses half of the Collector.

    python bench/latency.py [--transport http,grpc] [--signal metrics] [--items 100] [--rounds 9] [--seconds 3] [--keep]

Needs what bench/gateway.py needs, and starts the same pair. First, each server gets as much as 32 concurrent requests can send.
The Collector's rate per CPU-second is the capacity of its core. Then half of that rate is sent to each server in turn, however
long the answers take. The duration of a request is measured from its planned time. The used share of the core is shown as well.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import measuring, tables
from bench.gateway import NAMES, SAME, WARM_S, Pair
from bench.measuring import closed_loop, cpu_seconds, open_loop, percentile_ms, spread

SUITE: Final = "latency"
SATURATED_ROUNDS: Final = 2


def measure(pair: Pair, transport: str, signal: str, items: int, rounds: int, seconds: float) -> dict[str, Any]:
    with pair:
        saturated: dict[str, list[float]] = defaultdict(list)
        for name in NAMES:
            closed_loop(pair.senders(name, transport, signal, items), WARM_S)
        for _ in range(SATURATED_ROUNDS):
            for name in NAMES:
                before = cpu_seconds(pair.pids[name])
                requests = len(closed_loop(pair.senders(name, transport, signal, items), seconds))
                saturated[name].append(requests / (cpu_seconds(pair.pids[name]) - before))
        per_s = statistics.median(saturated["collector"]) / 2
        sides: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in NAMES}
        for _ in range(rounds):
            for name, side in sides.items():
                before = cpu_seconds(pair.pids[name])
                taken = open_loop(pair.senders(name, transport, signal, items), per_s, seconds)
                side["core"].append((cpu_seconds(pair.pids[name]) - before) / seconds)
                side["p50_ms"].append(percentile_ms(taken, 50))
                side["p99_ms"].append(percentile_ms(taken, 99))
    result: dict[str, Any] = {"transport": transport, "signal": signal, "items": items, "per_s": round(per_s)}
    for name, side in sides.items():
        result[name] = {
            "saturated_per_cpu_s": round(statistics.median(saturated[name])),
            **{key: [round(one, 2) for one in spread(values)] for key, values in side.items()},
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="http,grpc")
    parser.add_argument("--signal", default="metrics")
    parser.add_argument("--items", default="100")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    measuring.leave_the_first_core()
    with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
        print(tables.HEADS[SUITE])
        for transport in options.transport.split(","):
            for signal in options.signal.split(","):
                for items in measuring.numbers(options.items):
                    pair = Pair(Path(directory), kafka)
                    result = measure(pair, transport, signal, items, options.rounds, options.seconds)
                    print(tables.latency_row(result), flush=True)
                    if options.keep:
                        measuring.keep(SUITE, result, SAME)


if __name__ == "__main__":
    main()
