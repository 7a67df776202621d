"""The objects that garbage collections look at."""

import gc

# Requests leave almost no cycles. The few can wait for a larger collection, in place of 50 a second.
_THRESHOLDS = (20_000, 20, 20)


def freeze() -> None:
    """Exempt all objects that exist now from garbage collection: they stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
