"""Measures what it costs to find the caller of a key, and whether the time distinguishes valid keys from others.

    python bench/keys.py [--keys 10000] [--rounds 200] [--batch 500]

Measures keys of every kind in batches. The order of the kinds changes each time, so that other work of the machine affects all
alike. Prints each kind's median in nanoseconds a request, and its difference to the valid key's, beside the quartiles of the
valid key's own batches. A difference within these quartiles is noise. `Keyring.find` is measured first, where the secret is
compared; then `Access.sender`, where every refusal costs an exception more.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from adapters.errors import RequestRefused
from collector.tenancy import key_format, keys
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.keyring import Keyring
from collector.tenancy.keys_file import Key, write_entries
from collector.tenancy.plans import BUILT_IN_PLANS, UNLIMITED
from collector.tenancy.scopes import Scope

ANONYMOUS: Final = Caller("anonymous", Scope.INGEST, UNLIMITED, "")


def key_ring(directory: Path, keys_number: int) -> tuple[Keyring, str, str]:
    """Return a keyring of `keys_number` keys, a valid key, and a revoked key."""
    now = datetime.now(UTC)
    path = directory / keys.FILE_NAME
    texts = {key_format.id_of(text): text for text in (key_format.new() for _ in range(keys_number))}
    listed = [
        Key(key_id, f"tenant {key_id}", Scope.INGEST, "Pro", key_format.sha256_of(text), now, None, "")
        for key_id, text in texts.items()
    ]
    listed[-1] = listed[-1]._replace(ends=now - timedelta(hours=1))
    path.write_bytes(write_entries(listed))
    began = time.perf_counter()
    ring = Keyring.open(path, BUILT_IN_PLANS, reload_s=1, now_unix_s=time.time)
    print(f"{len(listed)} keys, {path.stat().st_size / 1e6:.1f} MB, read in {(time.perf_counter() - began) * 1e3:.0f} ms")
    return ring, texts[listed[0].id], texts[listed[-1].id]


def off_by_one(key: str, at: int) -> bytes:
    """Return the key with another character in one place."""
    return f"{key[:at]}{'a' if key[at] != 'a' else 'b'}{key[at + 1 :]}".encode()


def timed(call: Callable[[bytes | None], Caller | None], key: bytes | None, batch: int) -> float:
    """Return the nanoseconds a call."""
    refused = 0
    began = time.perf_counter_ns()
    for _ in range(batch):
        try:  # contextlib.suppress would cost as much as the measured call
            call(key)
        except RequestRefused:
            refused += 1
    return (time.perf_counter_ns() - began) / batch


def measure(
    title: str, call: Callable[[bytes | None], Caller | None], kinds: dict[str, bytes | None], options: argparse.Namespace
) -> None:
    order = list(kinds)
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        random.shuffle(order)
        for kind in order:
            taken[kind].append(timed(call, kinds[kind], options.batch))
    low, good, high = statistics.quantiles(taken["good"], n=4)
    print(f"\n{title}, ns: the good key's quartiles are {low:.0f}, {good:.0f}, {high:.0f}")
    for kind, times in taken.items():
        median = statistics.median(times)
        print(f"  {kind:26}{median:8.0f}{median - good:+8.0f}")


def main() -> None:
    """Print the cost of each kind of key."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--batch", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        ring, good, revoked = key_ring(Path(directory), options.keys)
    kinds: dict[str, bytes | None] = {
        "good": good.encode(),
        "unknown": key_format.new().encode(),
        "one off, at the start": off_by_one(good, len(key_format.PREFIX)),
        "one off, in the middle": off_by_one(good, len(good) // 2),
        "one off, at the end": off_by_one(good, len(good) - 1),
        "revoked": revoked.encode(),
        "one character too long": good.encode() + b"x",
        "60,000 characters too long": good.encode() + b"x" * 60_000,
    }
    measure("find", lambda key: ring.find(key or b""), kinds, options)
    measure("sender", Access(ring.find, ANONYMOUS).sender, {**kinds, "none": None}, options)


if __name__ == "__main__":
    main()
