"""The witness: a small file next to the log's directory that records how far the log has come, and so shows losses.

The log writes it after each transaction and before the acknowledgement, and syncs it about once a second. So its content was
durable in the log when it was written: it may be older than the log, never newer. After the death of the process it is exact.
After a power cut it may lack the last seconds, and then it does not show the loss of these.

It has two places that are written in turns, each with a checksum: a torn write leaves the other place intact.

Another witness is in the directory of the embedded store. If the log and the witness next to it were replaced by those of
another directory, the witness in the store still records which log was there, and how far it had come.

Invariants:
1. The file never records more than is durable in the log (test_the_witness_never_runs_ahead).
2. A damaged or missing file loses no message and is reported (test_a_lost_witness_is_reported_and_loses_nothing).
3. It names the log that it is about: positions of another log are never compared with it
   (test_another_log_in_its_place_is_a_log_of_its_own).
4. An older version, which lacks a part of the format, can read the other parts (test_a_witness_is_read_by_older_versions).
5. The witness in the store is used only if it knows a start that the other does not, or another log
   (test_logs_of_two_copies_that_are_exchanged_lose_nothing, test_a_witness_in_the_store_that_trails_is_not_believed).
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import google_crc32c

from collector.broker.local_log.lineage import EPOCH_BYTES, IDENTITY_BYTES, Epoch, PartitionStart
from collector.broker.local_log.plan import PartitionHead

_MAGIC: Final = b"ISLGACK2"
_FORMER_MAGIC: Final = b"ISLGACK1"  # names no log
_PLACE_BYTES: Final = 4096
_START: Final = struct.Struct("<8sQH")
_HEAD: Final = struct.Struct("<IQQQIHH")
_CHECKSUM_BYTES: Final = 4
# Later versions added this, behind the checksum of the part that earlier versions read. Its checksum covers both parts.
_ADDED: Final = struct.Struct("<8sBH")
_ADDED_MAGIC: Final = b"ISLGADD1"
# A start: its number, whether another branch was found, and for how many of the topics above, in their order, a place follows.
_EPOCH: Final = struct.Struct(f"<{EPOCH_BYTES}sBH")
_AT: Final = struct.Struct("<QQ")
# The log's identity, and those of the last logs that it was rebuilt from.
_IDENTITIES_MAX: Final = 8


class Witnessed(NamedTuple):
    """The content of the file. `identities` are those of the log and of the files that it was rebuilt from. A file of a version
    without identities has none."""

    identities: tuple[str, ...]
    heads: dict[str, PartitionHead]
    is_final: bool = False
    """Whether messages behind these positions were refused, and are not only unknown."""
    lineage: tuple[Epoch, ...] = ()
    """The last starts, as far as there is room."""


class Witness:
    """Writes the open file. Only one thread at a time may use it. Every method raises OSError."""

    def __init__(self, file: Path, sequence: int) -> None:
        """Use `open`."""
        self.is_synced = True
        self._sequence = sequence
        self._starts: tuple[tuple[Epoch, ...], list[str], list[bytes]] = (), [], []
        """The lineage and the topics that were written last, and the starts of the lineage in bytes."""
        self._descriptor: Final = os.open(file, os.O_RDWR)

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open the file. Make it if it does not exist, or has another size."""
        if not file.exists() or file.stat().st_size != 2 * _PLACE_BYTES:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, bytes(2 * _PLACE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(file.parent)
        newest = _newest(file.read_bytes())
        return cls(file, newest[0] if newest is not None else 0)

    def write(self, witnessed: Witnessed) -> None:
        topics = list(witnessed.heads)
        if self._starts[0] is not witnessed.lineage or self._starts[1] != topics:
            self._starts = witnessed.lineage, topics, [_start(epoch, topics) for epoch in witnessed.lineage]
        self._sequence += 1
        place = _encode(self._sequence, witnessed, self._starts[2])
        os.pwrite(self._descriptor, place, self._sequence % 2 * _PLACE_BYTES)
        self.is_synced = False

    def sync(self) -> None:
        self.is_synced = True  # even if it fails: it is tried again after the next `write`
        os.fdatasync(self._descriptor)

    def is_at(self, file: Path) -> bool:
        """Return whether the open file is still at the path, and was not cut."""
        try:
            found = file.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor)) and found.st_size >= 2 * _PLACE_BYTES

    def close(self) -> None:
        os.close(self._descriptor)


def read_witness(file: Path) -> Witnessed | None:
    """Return the content of a witness; None if there is no file, or neither of its places is whole."""
    try:
        newest = _newest(file.read_bytes())
    except FileNotFoundError:
        return None
    return newest[1] if newest is not None else None


def trusted_witness(own: Witnessed | None, in_store: Witnessed | None) -> Witnessed | None:
    """Return the witness to use: the one next to the log, unless the one in the store shows that both the log and its witness
    were replaced. The witness in the store may trail: then the other knows all of its starts."""
    if in_store is None:
        return own
    in_store = in_store._replace(is_final=False)  # it may be outdated
    if own is None:
        return in_store
    if not own.identities or not in_store.identities or not own.lineage or not in_store.lineage:
        return own  # an older version wrote a witness without them
    if not set(own.identities) & set(in_store.identities):
        return in_store
    known = {epoch.id for epoch in own.lineage}
    is_later = in_store.lineage[-1].id not in known and any(epoch.id in known for epoch in in_store.lineage)
    return in_store if is_later else own


def sync_directory(directory: Path) -> None:
    """Let a file that was made or renamed in a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest(raw: bytes) -> tuple[int, Witnessed] | None:
    places = [_decode(raw[at : at + _PLACE_BYTES]) for at in (0, _PLACE_BYTES)]
    return max((place for place in places if place is not None), key=lambda place: place[0], default=None)


def _encode(sequence: int, witnessed: Witnessed, lineage: Sequence[bytes]) -> bytes:
    """Return the content of a place. `lineage` are the starts, encoded; as many of the last as fit are written."""
    identities, heads, is_final, _ = witnessed
    named = [bytes.fromhex(identity) for identity in identities[:_IDENTITIES_MAX]]
    parts = [_START.pack(_MAGIC, sequence, len(heads)), bytes([len(named)]), *named]
    for topic, head in heads.items():
        name, log = topic.encode(), head.intent_log.encode()
        # An intent ends after at least one message, so 0 means none.
        parts.append(
            _HEAD.pack(head.id, head.committed, head.end, head.intent or 0, head.intent_depth, len(name), len(log)) + name + log
        )
    text = b"".join(parts)
    text += _checksum(text)
    room = _PLACE_BYTES - len(text) - _ADDED.size - _CHECKSUM_BYTES
    starts: list[bytes] = []
    for start in reversed(lineage):
        room -= len(start)
        if room < 0:
            break
        starts.insert(0, start)
    text += _ADDED.pack(_ADDED_MAGIC, is_final, len(starts)) + b"".join(starts)
    return text + _checksum(text)


def _start(epoch: Epoch, topics: Sequence[str]) -> bytes:
    places = [_AT.pack(*epoch.heads.get(topic, (0, 0))) for topic in topics]
    return _EPOCH.pack(bytes.fromhex(epoch.id), epoch.is_branch, len(places)) + b"".join(places)


def _decode(place: bytes) -> tuple[int, Witnessed] | None:
    try:
        magic, sequence, topics = _START.unpack_from(place)
        at = _START.size
        heads: dict[str, PartitionHead] = {}
        identities: tuple[str, ...] = ()
        if magic == _MAGIC:
            first = at + 1
            at = first + place[at] * IDENTITY_BYTES
            identities = tuple(place[i : i + IDENTITY_BYTES].hex() for i in range(first, at, IDENTITY_BYTES))
        elif magic != _FORMER_MAGIC:
            return None
        for _ in range(topics):
            id_, committed, end, intent, depth, name_bytes, log_bytes = _HEAD.unpack_from(place, at)
            at += _HEAD.size
            name, log = place[at : at + name_bytes], place[at + name_bytes : at + name_bytes + log_bytes]
            at += name_bytes + log_bytes
            heads[name.decode()] = PartitionHead(id_, committed, end, intent or None, log.decode(), depth)
    except (struct.error, UnicodeDecodeError, IndexError):
        return None
    if place[at : at + _CHECKSUM_BYTES] != _checksum(place[:at]):
        return None
    is_final, lineage = _added(place, at + _CHECKSUM_BYTES, list(heads))
    return sequence, Witnessed(identities, heads, is_final, lineage)


def _added(place: bytes, at: int, topics: list[str]) -> tuple[bool, tuple[Epoch, ...]]:
    """Return the part that later versions added, or its defaults if it is missing or damaged."""
    lineage: list[Epoch] = []
    try:
        magic, is_final, starts = _ADDED.unpack_from(place, at)
        if magic != _ADDED_MAGIC:
            return False, ()
        at += _ADDED.size
        for _ in range(starts):
            id_, is_branch, count = _EPOCH.unpack_from(place, at)
            at += _EPOCH.size
            heads: dict[str, PartitionStart] = {}
            for topic in topics[:count]:
                heads[topic] = PartitionStart(*_AT.unpack_from(place, at))
                at += _AT.size
            lineage.append(Epoch(id_.hex(), heads, bool(is_branch)))
    except struct.error:
        return False, ()
    if place[at : at + _CHECKSUM_BYTES] != _checksum(place[:at]):
        return False, ()
    return bool(is_final), tuple(lineage)


def _checksum(text: bytes) -> bytes:
    return int(google_crc32c.value(text)).to_bytes(_CHECKSUM_BYTES, "little")
