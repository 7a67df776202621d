"""Sum up the items and receipts in a broker's messages, for an audit.

Only the headers of messages are read, and only sums are kept. So memory does not grow with the number of messages.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from adapters.codec.wire import NonCanonical
from adapters.record_headers import record_headers
from adapters.record_upgrade import current
from collector.audit.report import MINUTE_NS, BrokerSums, Window

_UUID_BYTES: Final = 16
_UUID7: Final = 7


class Tally:
    """Sums up messages of telemetry topics: call `add` with each, then `held`."""

    def __init__(self, window: Window, batches: Collection[UUID]) -> None:
        """`batches` are the batches whose receipts are searched."""
        self._window: Final = window
        self._asked: Final = batches
        self._items: Final[Counter[tuple[int, str]]] = Counter()
        self._receipts: Final[Counter[int]] = Counter()
        self._with_receipt: Final[set[UUID]] = set()

    def add(self, topic: str, payload: bytes) -> None:
        """Add one message. A message that can't be read adds nothing: it became a dead letter."""
        for at, id_, items, has_receipt in _records(payload, self._window):
            minute = at // MINUTE_NS
            if items:
                self._items[minute, topic] += items
            if has_receipt:
                self._receipts[minute] += 1
                if self._asked and (batch_id := UUID(bytes=id_)) in self._asked:
                    self._with_receipt.add(batch_id)

    def sums(self, begins: int, first: Mapping[str, int]) -> BrokerSums:
        """Return the sums. `begins` and `first` are as in Held."""
        without = {batch_id for batch_id in self._asked if batch_id not in self._with_receipt and batch_id.version == _UUID7}
        return BrokerSums(self._items, self._receipts, without, begins, first)


class BatchTally:
    """Sums up messages batch by batch, which needs memory for each: use it for a minute or so."""

    def __init__(self, window: Window) -> None:
        self._window: Final = window
        self.batches: Final[dict[UUID, Counter[str]]] = {}

    def add(self, topic: str, payload: bytes) -> None:
        """Add one message."""
        for _, id_, items, _ in _records(payload, self._window):
            self.batches.setdefault(UUID(bytes=id_), Counter())[topic] += items


def _records(payload: bytes, window: Window) -> list[tuple[int, bytes, int, bool]]:
    """Return arrival, batch id, number of items, and whether there is a receipt, for each record in the window."""
    try:
        headers = record_headers(current(payload))
    except NonCanonical:
        return []
    tenant = None if window.tenant is None else window.tenant.encode()
    return [
        (header.received_time_unix_nano, header.batch_id, header.item_count, header.receipt is not None)
        for header in headers
        if window.start <= header.received_time_unix_nano < window.end
        and tenant in (None, header.tenant)
        and len(header.batch_id) == _UUID_BYTES
    ]
