"""The sizes that bound the local log."""

from dataclasses import dataclass


class LocalLogUnusable(Exception):
    """The file can't be opened as a local log. The message contains its path and the reason."""


@dataclass(frozen=True, kw_only=True)
class LocalLogLimits:
    """Sizes in bytes. On disk the log takes at most about `bytes_max` + 4 * `wal_bytes_max` + 2 * `commit_bytes_max`."""

    bytes_max: int  # messages not yet committed, measured by the pages that they fill; past it: BrokerFull
    waiting_bytes_max: int  # appends that no transaction has taken yet; past it: BrokerDown
    commit_bytes_max: int  # messages that share a transaction
    wal_bytes_max: int  # the write-ahead log before it is checkpointed; four times that is never passed for long
    spare_bytes_max: int  # freed space that the file keeps for reuse, if that is more than its messages take
    reserve_percent: float  # the part of the file system that must stay free; less: BrokerFull
    reserve_bytes_min: int  # the least that this part may be
    reserve_bytes_max: int  # the most that this part may be
    append_timeout_s: float  # how long an append may wait for its transaction to begin
