"""How fast this machine is at the moment, for limits of CPU time that hold on any machine.

A limit is meant for a machine that copies 64 MB into new memory in 25 ms. A slower machine, or one whose memory others use,
gets as much more as it takes longer, and twice that: between the copies and the test the load of the others changes, and not
all work slows down as copies do. Attacks of this kind took 1.4 to 38 s before they were bounded, so the tests still find them.
bench/hostile.py measures the costs themselves.
"""

import time

_COPY_BYTES = 64_000_000
_COPY_S = 0.025
_COPIES = 3
_SLACK = 2


def scaled(limit_s: float, spent_s: float) -> float:
    """Return the limit on this machine: at least `_SLACK` times `limit_s` seconds of CPU.

    The speed is measured, which takes 150 ms of CPU, only if `spent_s` is not below the limit of a fast machine."""
    limit_least_s = limit_s * _SLACK
    if spent_s < limit_least_s:
        return limit_least_s
    source = bytes(_COPY_BYTES)
    copies_s: list[float] = []
    for _ in range(_COPIES):
        began = time.process_time()
        copy = bytearray(source)
        copies_s.append(time.process_time() - began)
        del copy
    return limit_least_s * max(1.0, sorted(copies_s)[_COPIES // 2] / _COPY_S)
