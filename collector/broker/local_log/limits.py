"""The sizes that bound the local log."""

from dataclasses import dataclass


class LocalLogUnusable(Exception):
    """The file can't be opened as a local log; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class LocalLogLimits:
    """Sizes in bytes. On disk the log takes at most about `bytes_max` + 4 * `wal_bytes_max` + 2 * `commit_bytes_max`."""

    bytes_max: int  # messages not yet committed, as the pages they fill; past it: BrokerFull
    waiting_bytes_max: int  # appends that no transaction has taken yet; past it: BrokerDown
    commit_bytes_max: int  # messages that share a transaction
    wal_bytes_max: int  # the write-ahead log before it is checkpointed; four times that is never passed for long
    spare_bytes_max: int  # freed space that the file keeps for reuse, if that is more than its messages take
    reserve_percent: float  # of the file system, that must stay free; less: BrokerFull
    reserve_bytes_min: int  # and at least so much
    reserve_bytes_max: int  # and at most so much
    append_timeout_s: float  # how long an append may wait for its transaction to begin
