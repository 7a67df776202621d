"""A log whose files are damaged, cut, removed or put back: each acknowledged message is read as it was, or reported as lost."""

import asyncio
import gc
import json
import os
import random
import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.examples import examples
from support.fakes.brokers import MIB, TOPICS, limits
from support.records import encoded
from support.waiting import eventually

from collector.broker.contract import BrokerDown, Message
from collector.broker.local_log import FILE_NAME, LocalLog, LocalLogUnusable
from collector.broker.local_log.carve import carve
from collector.broker.local_log.chunks import chunk_key, pack_checksums, pack_lengths, split
from collector.broker.local_log.incidents import Damage, Incidents, confirm, read_incidents
from collector.broker.local_log.open_files import OpenFiles
from collector.broker.local_log.plan import PartitionHead
from collector.broker.local_log.wal_index import WalState
from collector.broker.local_log.witness import Witness, Witnessed, read_witness

TOPIC = TOPICS[0]
LIMITS = limits(wal_bytes_max=64 * MIB)


class Left(NamedTuple):
    """A data directory as the death of the process leaves it, and what was acknowledged in it, by offset."""

    data: Path
    messages: dict[int, bytes]

    @property
    def log(self) -> Path:
        return self.data / "log"

    @property
    def file(self) -> Path:
        return self.log / FILE_NAME

    @property
    def wal(self) -> Path:
        return self.log / f"{FILE_NAME}-wal"

    @property
    def witness(self) -> Path:
        return self.data / "log.acknowledged"


class Read(NamedTuple):
    messages: dict[int, bytes]
    lost: set[int]
    """Offsets that are reported and not confirmed."""


async def open_log(data: Path) -> LocalLog:
    return await LocalLog.open(data / "log", LIMITS, TOPICS)


def payload(number: int, size: int = 900) -> bytes:
    """Of small ones several share a page; one of 60 KB is a chain of pages."""
    return random.Random(number).randbytes(60_000 if number % 13 == 7 else size)


async def leave(tmp_path: Path, *, checkpointed: bool = False, committed: int = 0, count: int = 40, size: int = 900) -> Left:
    """`checkpointed`: all is in the file, nothing in its write-ahead log."""
    data, copy = tmp_path / f"{uuid4()}", tmp_path / f"{uuid4()}"
    messages = {number: payload(number, size) for number in range(count)}
    log = await open_log(data)
    for number, content in messages.items():
        await log.append([Message(TOPIC, content)])
        if number + 1 == committed:
            polled = await log.poll(100 * MIB, 0)
            assert polled is not None
            await log.intend(polled)
            await log.commit(polled)
    if checkpointed:
        await log.close()
    shutil.copytree(data, copy)
    if not checkpointed:
        await log.close()
    shutil.rmtree(data)
    return Left(copy, {offset: content for offset, content in messages.items() if offset >= committed})


async def drain(log: LocalLog, data: Path) -> Read:
    messages: dict[int, bytes] = {}
    while polled := await log.poll(4000, 0):
        await log.intend(polled)
        await log.commit(polled)
        found = {polled.start + index: bytes(content) for index, content in enumerate(polled.payloads)}
        assert not found.keys() & messages.keys()
        messages |= found
    return Read(messages, lost(data))


def lost(data: Path) -> set[int]:
    damages = [damage for incident in read_incidents(data) if not incident.is_confirmed for damage in incident.damages]
    return {offset for damage in damages if damage.topic == TOPIC for offset in range(damage.start, damage.end)}


async def read(left: Left) -> Read:
    """As the next start finds it; and what comes then is kept, at offsets of its own."""
    async with await open_log(left.data) as log:
        await log.append([Message(TOPIC, b"after")])
        messages, reported = await drain(log, left.data)
    after = max(messages)
    assert messages.pop(after) == b"after"
    assert after > max(left.messages, default=-1)
    return Read(messages, reported)


def check(left: Left, found: Read) -> None:
    """Nothing is lost without a report, nothing is changed, and nothing is reported that is there."""
    assert {offset: left.messages.get(offset) for offset in found.messages} == found.messages
    assert left.messages.keys() - found.messages.keys() == found.lost


def flip(file: Path, at: int, bits: int = 0xFF) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= bits
    file.write_bytes(raw)


# The write-ahead log.


async def test_a_flipped_byte_of_the_wal_costs_at_most_its_message(tmp_path: Path) -> None:
    """SQLite would drop all that comes after it: 29 of 40 messages."""
    size = (await leave(tmp_path)).wal.stat().st_size
    first_salt = 32 + 8
    for at in (size // 3, size // 2, size - 1000, 1, 5, 20, first_salt, first_salt + 7, 32 + 5 * (24 + 16384) + 10):
        left = await leave(tmp_path)
        flip(left.wal, at)
        found = await read(left)
        check(left, found)
        assert len(found.lost) <= 1, at
        assert any(path.name.endswith("-wal-before") for path in left.data.glob("damaged-*/*")), "it is not kept"


@pytest.mark.parametrize("zeroed", [4_096, 17_000, 50_000])
async def test_a_wal_whose_beginning_is_zeros_costs_what_was_there(tmp_path: Path, zeroed: int) -> None:
    """A disk may leave a page of zeros: the header and the first frames are gone."""
    left = await leave(tmp_path)
    raw = left.wal.read_bytes()
    left.wal.write_bytes(bytes(zeroed) + raw[zeroed:])
    found = await read(left)
    check(left, found)
    assert len(found.lost) <= 1


@pytest.mark.parametrize("keep", [0.5, 0.1, 0])
async def test_a_wal_that_was_cut_is_noticed(tmp_path: Path, keep: float) -> None:
    left = await leave(tmp_path)
    os.truncate(left.wal, int(left.wal.stat().st_size * keep))
    found = await read(left)
    check(left, found)
    assert len(found.lost) > 10


async def test_a_wal_that_was_removed_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it held since the last checkpoint is lost: the log says how much, at error, and goes on."""
    left = await leave(tmp_path)
    left.wal.unlink()
    found = await read(left)
    check(left, found)
    assert left.messages.keys() == found.lost
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if "acknowledged messages of the local log are lost or damaged" in line]
    assert "error" in line
    assert "messages=40" in line


async def test_a_large_wal_is_restored_beside_what_is_written(tmp_path: Path) -> None:
    """SQLite writes what is restored over the frames that it could not read. These are read from a copy, kept as it was."""
    left = await leave(tmp_path, count=400, size=20_000)
    flip(left.wal, left.wal.stat().st_size // 20)
    damaged = left.wal.read_bytes()
    assert len(damaged) > 8 * MIB
    found = await read(left)
    check(left, found)
    assert len(found.lost) <= 1
    (kept,) = left.data.glob("damaged-*/messages.sqlite-wal-before")
    assert damaged == kept.read_bytes()


async def test_the_end_of_a_transaction_that_was_not_acknowledged_is_no_damage(tmp_path: Path) -> None:
    """What a crash cut off while it was written was never acknowledged."""
    left = await leave(tmp_path)
    with left.wal.open("ab") as file:
        file.write(left.wal.read_bytes()[32 : 32 + 10_000])
    found = await read(left)
    assert left.messages == found.messages
    assert not list(left.data.glob("damaged-*"))


# The file.


@pytest.mark.parametrize("at", [0, 18, 30, 55, 70, 100, 105])
async def test_a_damaged_header_costs_nothing(tmp_path: Path, at: int) -> None:
    left = await leave(tmp_path, checkpointed=True)
    for offset in range(at, at + 10):
        flip(left.file, offset)
    found = await read(left)
    check(left, found)
    assert set() == found.lost
    assert [FILE_NAME] == [path.name for path in left.data.glob("damaged-*/messages.sqlite")]


async def test_a_flipped_byte_of_a_message_is_not_stored(tmp_path: Path) -> None:
    """The message is reported and kept aside; those of the same row and behind it are read."""
    left = await leave(tmp_path, checkpointed=True)
    flip(left.file, left.file.read_bytes().index(left.messages[20][:50]), 0x20)
    found = await read(left)
    check(left, found)
    assert {20} == found.lost
    (kept,) = left.data.glob("damaged-*/*.payload")
    assert 1 == sum(a != b for a, b in zip(kept.read_bytes(), left.messages[20], strict=True))


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
async def test_a_page_of_noise_costs_what_is_in_it(tmp_path: Path, part: float) -> None:
    left = await leave(tmp_path, checkpointed=True)
    raw = bytearray(left.file.read_bytes())
    start = int(len(raw) / 16384 * part) * 16384
    raw[start : start + 16384] = os.urandom(16384)
    left.file.write_bytes(raw)
    found = await read(left)
    check(left, found)
    assert len(found.lost) < 20


@pytest.mark.parametrize("part", [0.5, 0.05, 0])
async def test_a_file_that_was_cut_is_noticed(tmp_path: Path, part: float) -> None:
    left = await leave(tmp_path, checkpointed=True)
    os.truncate(left.file, int(left.file.stat().st_size * part))
    found = await read(left)
    check(left, found)
    assert found.lost


async def test_a_file_that_was_removed_is_noticed(tmp_path: Path) -> None:
    """Its write-ahead log, which SQLite would remove, still gives what it holds."""
    left = await leave(tmp_path)
    left.file.unlink()
    found = await read(left)
    check(left, found)
    assert set() == found.lost


async def test_a_damaged_free_list_costs_nothing(tmp_path: Path) -> None:
    left = await leave(tmp_path, committed=30)
    with closing(sqlite3.connect(left.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    trunk = int.from_bytes(left.file.read_bytes()[32:36])
    assert trunk
    for offset in range(8):
        flip(left.file, (trunk - 1) * 16384 + offset)
    found = await read(left)
    check(left, found)
    assert set() == found.lost


async def test_damage_while_it_runs_is_survived(tmp_path: Path) -> None:
    """The file is made anew from what can be read, while appends and polls go on."""
    async with await open_log(tmp_path) as log:
        messages = {number: payload(number) for number in range(100)}
        for content in messages.values():
            await log.append([Message(TOPIC, content)])
        file = tmp_path / "log" / FILE_NAME
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with file.open("r+b") as raw:
            for page in range(1, file.stat().st_size // 16384):
                raw.seek(page * 16384)
                if raw.read(1) in (b"\x05", b"\x0d"):
                    raw.seek(page * 16384)
                    raw.write(b"\xff")  # no page of a table has this type
                    break
        await log.append([Message(TOPIC, b"after")])
        found = await drain(log, tmp_path)
    left = Left(tmp_path, {**messages, 100: b"after"})
    check(left, found)


# Copies and removals.


async def test_a_log_that_was_removed_is_missed(tmp_path: Path) -> None:
    """Offsets go on after it, so that nothing new is taken for what was stored before."""
    left = await leave(tmp_path, committed=15)
    shutil.rmtree(left.log)
    found = await read(left)
    check(left, found)
    assert set(range(15, 40)) == found.lost


def identity_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return str(connection.execute("SELECT id FROM identity ORDER BY rowid").fetchone()[0])


@pytest.mark.parametrize(("own", "other"), [(5, 20), (20, 5)])
@pytest.mark.parametrize("stored", [0, 3, 5])
async def test_another_log_in_its_place_is_a_log_of_its_own(
    tmp_path: Path, own: int, other: int, stored: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its content is read, whichever has come farther. What only the former log held is reported until that is put back."""
    left, theirs = await leave(tmp_path, count=own, committed=stored), await leave(tmp_path, count=other)
    kept = tmp_path / "kept"
    left.log.rename(kept)
    shutil.copytree(theirs.log, left.log)
    async with await open_log(left.data) as log:
        found = await drain(log, left.data)
    assert theirs.messages == found.messages
    assert set(range(stored, own)) == found.lost
    assert 1 == capsys.readouterr().out.count("the local log was replaced by another")
    (left.log).rename(tmp_path / "theirs")
    kept.rename(left.log)
    found = await read(left)
    assert (left.messages, set()) == (found.messages, found.lost)
    assert all(incident.is_confirmed for incident in read_incidents(left.data)[:1]) or stored == own
    assert "replaced by another" in capsys.readouterr().out
    again = await open_log(left.data)
    await again.close()
    assert "another one" not in capsys.readouterr().out


async def test_two_logs_in_turn_are_distinguished(tmp_path: Path) -> None:
    """Messages at the same offsets of two logs are reported for each of the two."""
    left, theirs, third = await leave(tmp_path, count=4), await leave(tmp_path, count=4), await leave(tmp_path, count=1)
    for log in (theirs, third):
        shutil.rmtree(left.log)
        shutil.copytree(log.log, left.log)
        await (await open_log(left.data)).close()
    damages = [damage for incident in read_incidents(left.data) for damage in incident.damages]
    assert [(0, 4), (0, 4)] == [(damage.start, damage.end) for damage in damages]
    assert 2 == len({damage.log for damage in damages})


@pytest.mark.parametrize("what", ["witness", "file"])
async def test_a_log_that_was_made_anew_is_no_other_one(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If only the new file or only the new witness outlived a crash, or one is a copy from before, they belong together."""
    left = await leave(tmp_path, committed=15, checkpointed=True)
    before = tmp_path / "before"
    shutil.copytree(left.data, before)
    flip(left.file, 20)
    async with await open_log(left.data) as log:
        made_anew = log.identity
    assert made_anew != identity_of(before / "log" / FILE_NAME)
    if what == "witness":
        shutil.copy(before / "log.acknowledged", left.witness)
    else:
        shutil.copy(before / "log" / FILE_NAME, left.file)
    found = await read(left)
    check(left, found)
    assert left.messages == found.messages
    assert "replaced by another" not in capsys.readouterr().out


class Site:
    """A data directory, what was acknowledged in it, and what its store has."""

    def __init__(self, data: Path, *, has_store: bool = False) -> None:
        """`has_store`: the store's directory is in it too."""
        self.data = data
        self.store = data / "store" if has_store else None
        if self.store is not None:
            self.store.mkdir(parents=True, exist_ok=True)
        self.acknowledged: list[bytes] = []
        self.stored: list[bytes] = []

    async def use(self, name: str, appended: int, stored: int | None, *, clean: bool = True) -> None:
        """Append, and store so many, or all; end as a process does, or as one that is killed."""
        log = await LocalLog.open(self.data / "log", LIMITS, TOPICS, store=self.store)
        for number in range(appended):
            content = f"{name} {number}".encode()
            await log.append([Message(TOPIC, content)])
            self.acknowledged.append(content)
        while stored != 0 and (polled := await log.poll(1, 0)):
            await log.intend(polled)
            self.stored += [bytes(it) for it in polled.payloads]
            await log.commit(polled)
            stored = None if stored is None else stored - 1
        before = self.data.with_name("killed")
        if not clean:
            shutil.copytree(self.data, before)
        await log.close()
        if not clean:
            shutil.rmtree(self.data)
            before.rename(self.data)

    def copied(self, data: Path) -> "Site":
        shutil.copytree(self.data, data)
        copy = Site(data, has_store=self.store is not None)
        copy.acknowledged, copy.stored = list(self.acknowledged), list(self.stored)
        return copy

    @property
    def lost_messages(self) -> int:
        return sum(damage.messages for incident in read_incidents(self.data) for damage in incident.damages)

    def check(self, others: set[bytes]) -> None:
        """Nothing is stored twice, what is not stored is reported, and what waited in the log that came is stored."""
        assert len(self.stored) == len(set(self.stored))
        assert others <= set(self.stored)
        assert len(set(self.acknowledged) - set(self.stored)) <= self.lost_messages


def exchange(one: Path, other: Path) -> None:
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


@pytest.mark.parametrize(
    ("exchanged", "clean", "starts"),
    [
        (["log"], True, 1),
        (["log"], False, 3),
        (["log"], True, 40),
        (["log", "log.acknowledged"], True, 1),
        (["log", "log.acknowledged"], False, 3),
    ],
)
@pytest.mark.parametrize("of_own", [(6, 0), (6, 3), (0, None)])
@pytest.mark.parametrize("of_copy", [(4, 0), (9, 8), (4, None)])
async def test_logs_of_two_copies_that_are_exchanged_lose_nothing(
    tmp_path: Path,
    of_own: tuple[int, int | None],
    of_copy: tuple[int, int | None],
    exchanged: list[str],
    clean: bool,
    starts: int,
) -> None:
    """A directory and its copy go on with messages of their own, then each gets the other's log, and later its own again. With
    the witness beside it: the store has another."""
    own = Site(tmp_path / "own", has_store=True)
    await own.use("both", 10, 4, clean=clean)
    copy = own.copied(tmp_path / "copy")
    for site, name, (appended, stored) in ((own, "own", of_own), (copy, "copy", of_copy)):
        await site.use(name, appended, stored, clean=clean)
        for _ in range((starts if site is copy else 1) - 1):
            await site.use(name, 0, 0)
    waited = {site.data: set(site.acknowledged) - set(site.stored) for site in (own, copy)}
    for name in exchanged:
        exchange(own.data / name, copy.data / name)
    for site, other in ((own, copy), (copy, own)):
        await site.use(f"after {site.data.name}", 1, None)
        site.check(waited[other.data])
    for name in exchanged:
        exchange(own.data / name, copy.data / name)
    for site in (own, copy):
        await site.use(f"again {site.data.name}", 1, None)
        site.check(set())


async def test_a_start_that_broke_off_is_no_other_branch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was killed when the log had its start and the witness did not."""
    site = Site(tmp_path / "data")
    await site.use("a", 5, 2)
    for _ in range(3):
        witness = site.data / "log.acknowledged"
        before = witness.read_bytes()
        await site.use("b", 0, 0)
        witness.write_bytes(before)
    await site.use("c", 1, None)
    site.check(set(site.acknowledged))
    assert not read_incidents(site.data)
    assert "another branch" not in capsys.readouterr().out


async def test_an_old_copy_of_before_a_start_is_the_same_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its messages are not stored again, and what came since is reported."""
    site = Site(tmp_path / "data")
    await site.use("a", 5, 2)
    shutil.copytree(site.data / "log", tmp_path / "old")
    for number in range(3):
        await site.use(f"b {number}", 2, 1)
    shutil.rmtree(site.data / "log")
    shutil.copytree(tmp_path / "old", site.data / "log")
    await site.use("c", 1, None)
    assert len(set(site.stored)) == len(site.stored)
    assert set(range(5, 11)) == lost(site.data)
    assert "another branch" not in capsys.readouterr().out


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
async def test_an_old_copy_of_log_and_witness_is_noticed_by_the_store(tmp_path: Path, clean: bool) -> None:
    """What the store has is not stored again, and what came since is reported."""
    site = Site(tmp_path / "data", has_store=True)
    await site.use("a", 5, 2, clean=clean)
    shutil.copytree(site.data, tmp_path / "old")
    await site.use("b", 4, 5, clean=clean)
    for name in ("log", "log.acknowledged"):
        exchange(site.data / name, tmp_path / "old" / name)
    await site.use("c", 1, None)
    assert len(set(site.stored)) == len(site.stored)
    assert {7, 8} == lost(site.data)
    site.check(set())


async def test_log_and_witness_that_were_removed_are_missed(tmp_path: Path) -> None:
    """The store says what they held; once."""
    site = Site(tmp_path / "data", has_store=True)
    await site.use("a", 5, 2)
    shutil.rmtree(site.data / "log")
    (site.data / "log.acknowledged").unlink()
    for name in ("b", "c"):
        await site.use(name, 1, None)
    assert {2, 3, 4} == lost(site.data)
    assert len(set(site.stored)) == len(site.stored)
    site.check(set())


@pytest.mark.parametrize("is_damaged", [False, True], ids=["removed", "damaged"])
async def test_the_witness_in_the_store_is_used_where_the_other_is_lost(
    tmp_path: Path, is_damaged: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss is noticed all the same. What was damaged is kept."""
    site = Site(tmp_path / "data", has_store=True)
    await site.use("a", 5, 2, clean=False)
    (site.data / "log" / f"{FILE_NAME}-wal").unlink()
    witness = site.data / "log.acknowledged"
    witness.write_bytes(b"noise") if is_damaged else witness.unlink()
    await site.use("b", 1, None)
    assert "restored from the copy in the store" in capsys.readouterr().out
    assert {2, 3, 4} == lost(site.data)
    assert is_damaged == any((incident.folder / "log.acknowledged").exists() for incident in read_incidents(site.data))


async def test_a_witness_in_the_store_that_trails_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store is an older copy, or the file could not be written for many starts, or says that its end was final."""
    site = Site(tmp_path / "data", has_store=True)
    await site.use("a", 5, 2)
    assert site.store is not None
    in_store = site.store / "log.acknowledged"
    before = in_store.read_bytes()
    with closing(Witness.open(in_store)) as witness:
        seen = read_witness(in_store)
        assert seen is not None
        witness.write(seen._replace(is_final=True))
    final = in_store.read_bytes()
    for number, (starts, old) in enumerate(((1, before), (1, final), (50, before), (1, final))):
        for start in range(starts):
            await site.use(f"b {number} {start}", 1, 1)
        in_store.write_bytes(old)
    await site.use("c", 1, 1)
    kept = in_store.read_bytes()
    await site.use("d", 1, 1)
    in_store.write_bytes(kept)
    (site.data / "log.acknowledged").unlink()  # then it is all that there is
    await site.use("e", 1, None)
    site.check(set())
    assert len(set(site.acknowledged)) == len(set(site.stored))
    assert not read_incidents(site.data)
    assert "another branch" not in capsys.readouterr().out


async def test_a_log_of_an_older_version_has_no_branches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its witness names no starts: the positions are compared, as they were. So too where the older one ran in between."""
    site = Site(tmp_path / "data")
    for number in range(2):
        await site.use(f"a {number}", 5, 2)
        witness = site.data / "log.acknowledged"
        seen = read_witness(witness)
        assert seen is not None
        assert len(seen.lineage) == 1 + number
        raw = witness.read_bytes()
        witness.write_bytes(raw.replace(b"ISLGADD1", bytes(8)))
    with closing(sqlite3.connect(site.data / "log" / FILE_NAME)) as connection:
        connection.execute("DROP TABLE epochs")
    await site.use("b", 1, None)
    site.check(set(site.acknowledged))
    assert not read_incidents(site.data)
    assert "another branch" not in capsys.readouterr().out


# Removals and moves while it runs.


def remove(data: Path) -> None:
    shutil.rmtree(data / "log")


def remove_wal(data: Path) -> None:
    (data / "log" / f"{FILE_NAME}-wal").unlink()


def remove_file(data: Path) -> None:
    (data / "log" / FILE_NAME).unlink()


def move_log(data: Path) -> None:
    (data / "log").rename(data / "moved")


def move_data(data: Path) -> None:
    data.rename(data.with_name("moved"))


def replace(data: Path) -> None:
    shutil.copytree(data / "log", data / "copy")
    (data / "log").rename(data / "moved")
    (data / "copy").rename(data / "log")


@pytest.mark.parametrize("away", [remove, remove_wal, remove_file, move_log, move_data, replace])
async def test_a_log_that_is_removed_takes_nothing(tmp_path: Path, away: Callable[[Path], None]) -> None:
    """Even the first append after it is refused. Its content is read and committed, so that it can be stored."""
    data = tmp_path / "data"
    async with await open_log(data) as log:
        await log.append([Message(TOPIC, b"a")])
        polled = await log.poll(4000, 0)
        assert polled is not None
        await log.append([Message(TOPIC, b"b"), Message(TOPICS[1], b"c")])
        away(data)
        for _ in range(3):
            with pytest.raises(BrokerDown, match="put it back, or restart the collector"):
                await log.append([Message(TOPIC, b"lost")])
        assert log.has_lost_files
        assert log.failure is not None
        assert "while it was in use" in log.failure
        await log.intend(polled)
        await log.commit(polled)
        read = {polled.partition.topic: [b"a"]}
        while more := await log.poll(4000, 0):
            read.setdefault(more.partition.topic, []).extend(bytes(payload) for payload in more.payloads)
            await log.intend(more)
            await log.commit(more)
        assert {TOPIC: [b"a", b"b"], TOPICS[1]: [b"c"]} == read


def cut(file: Path, size: int, *, grown: bool = False) -> None:
    before = file.stat().st_size
    assert size < before
    os.truncate(file, size)
    if grown:
        os.truncate(file, before)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -16_000, -20_000])
@pytest.mark.parametrize("grown", [False, True])
async def test_a_log_that_is_cut_takes_nothing(tmp_path: Path, keep: float, grown: bool) -> None:
    """Even the first append after it is refused, whether the write-ahead log is filled up again or not; what the last
    transaction wrote can't be a hole. The next start reports what is missing, and none of what was refused is there."""
    messages = {number: payload(number) for number in range(40)}
    data = tmp_path / "data"
    log = await open_log(data)
    for content in messages.values():
        await log.append([Message(TOPIC, content)])
    wal = data / "log" / f"{FILE_NAME}-wal"
    size = wal.stat().st_size
    cut(wal, int(size * keep) if 0 < keep < 1 else int(keep) % size, grown=grown)
    for _ in range(3):
        with pytest.raises(BrokerDown, match="restart the collector"):
            await log.append([Message(TOPIC, b"refused")])
    assert (True, True) == (log.has_lost_files, log.is_cut)
    await log.close()
    left = Left(data, messages)
    found = await read(left)
    check(left, found)


@pytest.mark.parametrize("size", [0, 5_000, 100_000])
async def test_a_database_that_is_cut_takes_nothing(tmp_path: Path, size: int) -> None:
    left = await leave(tmp_path, checkpointed=True)
    async with await open_log(left.data) as log:
        cut(left.file, size)
        with pytest.raises(BrokerDown, match="restart the collector"):
            await log.append([Message(TOPIC, b"refused")])
        assert log.is_cut
    check(left, await read(left))


async def test_a_log_that_is_cut_during_a_transaction_takes_nothing(tmp_path: Path) -> None:
    """It may be cut at any moment, in what was written before: no append that begins after it is acknowledged; and what was
    acknowledged is read or reported."""
    for number in range(20):
        data, acknowledged = tmp_path / f"{number}", dict[int, bytes]()
        written = [0]  # bytes, before the transaction that runs
        log = await open_log(data)
        wal = data / "log" / f"{FILE_NAME}-wal"
        was_cut = threading.Event()

        async def send(
            log: LocalLog, acknowledged: dict[int, bytes], wal: Path, written: list[int], was_cut: threading.Event
        ) -> None:
            with suppress(BrokerDown):
                while True:
                    began_after = was_cut.is_set()
                    content = payload(len(acknowledged))
                    await log.append([Message(TOPIC, content)])
                    assert not began_after
                    acknowledged[len(acknowledged)] = content
                    written[0] = wal.stat().st_size

        def cut_soon(wal: Path, written: list[int], was_cut: threading.Event, number: int) -> None:
            time.sleep(0.02 + 0.0003 * number)
            os.truncate(wal, (0, 40, written[0] // 2)[number % 3])
            was_cut.set()

        sending = asyncio.create_task(send(log, acknowledged, wal, written, was_cut))
        await eventually(lambda written=written: written[0])
        await asyncio.to_thread(cut_soon, wal, written, was_cut, number)
        await asyncio.wait_for(sending, 60)
        await log.close()
        left = Left(data, acknowledged)
        check(left, await read(left))


async def test_a_log_that_is_cut_while_it_is_looked_at_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut after the end of the last transaction was found, and before that of this one is remembered."""
    remember, wal = OpenFiles._end, tmp_path / "log" / f"{FILE_NAME}-wal"

    def cut_and_remember(files: OpenFiles, state: WalState) -> object:
        os.truncate(wal, 40)
        monkeypatch.setattr(OpenFiles, "_end", remember)
        return remember(files, state)

    async with await open_log(tmp_path) as log:
        for number in range(3):
            await log.append([Message(TOPIC, payload(number))])
        monkeypatch.setattr(OpenFiles, "_end", cut_and_remember)
        for number in range(3, 6):
            with pytest.raises(BrokerDown, match="was cut while it was in use"):
                await log.append([Message(TOPIC, payload(number))])
        assert log.is_cut


async def test_a_write_ahead_log_that_begins_anew_is_not_cut(tmp_path: Path) -> None:
    """Checkpoints, freed pages and smaller files are no damage."""
    small = limits(wal_bytes_max=64 * 1024, spare_bytes_max=0)
    async with await LocalLog.open(tmp_path / "log", small, TOPICS) as log:
        for number in range(300):
            await log.append([Message(TOPIC, payload(number, 5000)) for _ in range(1 + number % 7)])
            if number % 50 == 49:
                await drain(log, tmp_path)
            await log.ping()
        assert (False, False, None) == (log.has_lost_files, log.is_cut, log.failure)
        assert (tmp_path / "log" / FILE_NAME).stat().st_size < MIB
    assert not read_incidents(tmp_path)


async def test_a_write_ahead_log_that_is_overwritten_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    """It is overwritten in its middle, while it is in use: nothing that was changed is stored."""
    messages = {number: payload(number) for number in range(40)}
    async with await open_log(tmp_path) as log:
        for content in messages.values():
            await log.append([Message(TOPIC, content)])
        wal = tmp_path / "log" / f"{FILE_NAME}-wal"
        with wal.open("r+b") as file:
            raw = file.read()
            file.seek(raw.rindex(messages[20][:100]))
            file.write(b"x" * 50)
        left = Left(tmp_path, messages)
        check(left, await drain(log, tmp_path))


async def test_an_idle_log_notices_that_it_is_gone(tmp_path: Path) -> None:
    """It notices it without an append, when its state is looked at."""
    async with await open_log(tmp_path) as log:
        await log.ping()
        remove(tmp_path)
        await log.ping()
        assert log.has_lost_files


async def test_a_log_that_is_put_back_goes_on(tmp_path: Path) -> None:
    """With the same files nothing is missing: what came before and after is read, and nothing that was refused."""
    async with await open_log(tmp_path) as log:
        await log.append([Message(TOPIC, b"a")])
        move_log(tmp_path)
        with pytest.raises(BrokerDown):
            await log.append([Message(TOPIC, b"refused")])
        (tmp_path / "moved").rename(tmp_path / "log")
        await log.ping()
        assert (False, None) == (log.has_lost_files, log.failure)
        await log.append([Message(TOPIC, b"b")])
    async with await open_log(tmp_path) as log:
        found = await drain(log, tmp_path)
    assert ([b"a", b"b"], set()) == (list(found.messages.values()), found.lost)


async def test_closing_leaves_what_is_in_its_place_alone(tmp_path: Path) -> None:
    """SQLite removes the write-ahead log at its path when the last connection is closed: another log's, that was put there."""
    theirs = await leave(tmp_path)
    data = tmp_path / "data"
    log = await open_log(data)
    await log.append([Message(TOPIC, b"a")])
    move_log(data)
    shutil.copytree(theirs.log, data / "log")
    await log.close()
    del log
    gc.collect()
    moved = Left(data, theirs.messages)
    assert theirs.wal.read_bytes() == moved.wal.read_bytes()
    async with await open_log(data) as log:
        found = await drain(log, data)
    assert (theirs.messages, {0}) == (found.messages, found.lost)


async def test_a_witness_that_is_removed_is_made_again(tmp_path: Path) -> None:
    """While the log is used: what is lost later is noticed."""
    async with await open_log(tmp_path) as log:
        (tmp_path / "log.acknowledged").unlink()
        deadline = asyncio.get_running_loop().time() + 10
        while not (tmp_path / "log.acknowledged").exists():
            await log.append([Message(TOPIC, b"a")])
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        await log.append([Message(TOPIC, b"a")])
        seen = read_witness(tmp_path / "log.acknowledged")
        assert seen is not None
        assert ((log.identity,), log.depth(TOPIC)) == (seen.identities, seen.heads[TOPIC].end)


async def test_a_first_start_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    """The file had a header and no tables yet, the witness had nothing."""
    (tmp_path / "log").mkdir()
    with closing(sqlite3.connect(tmp_path / "log" / FILE_NAME)) as connection:
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    assert (tmp_path / "log" / FILE_NAME).stat().st_size == 16384
    (tmp_path / "log.acknowledged").write_bytes(bytes(8192))
    async with await open_log(tmp_path) as log:
        await log.append([Message(TOPIC, b"a")])
        assert log.is_new
        assert {0: b"a"} == (await drain(log, tmp_path)).messages
    assert not read_incidents(tmp_path)


async def test_a_log_that_was_empty_may_be_removed(tmp_path: Path) -> None:
    left = await leave(tmp_path, committed=40)
    shutil.rmtree(left.log)
    found = await read(left)
    assert (set(), {}) == (found.lost, found.messages)


async def test_an_old_copy_is_not_stored_again(tmp_path: Path) -> None:
    """A copy of the log of before 30 messages were stored gives none of these, and what came after it is reported."""
    data, old = tmp_path / "data", tmp_path / "old"
    messages = {number: payload(number) for number in range(40)}
    log = await open_log(data)
    for number, content in messages.items():
        if number == 20:
            shutil.copytree(data / "log", old)
        await log.append([Message(TOPIC, content)])
        if number == 29:
            polled = await log.poll(100 * MIB, 0)
            assert polled is not None
            await log.intend(polled)
            await log.commit(polled)
    left = Left(tmp_path / "left", {number: messages[number] for number in range(30, 40)})
    left.data.mkdir()
    shutil.copy(data / "log.acknowledged", left.witness)
    shutil.copytree(old, left.log)
    await log.close()
    found = await read(left)
    check(left, found)
    assert set(range(30, 40)) == found.lost


async def test_offsets_go_on_after_a_loss(tmp_path: Path) -> None:
    """They go on also if nothing was appended before the next start."""
    left = await leave(tmp_path)
    left.wal.unlink()
    for _ in range(2):
        async with await open_log(left.data) as log:
            assert {40} == {position.end for partition, position in (await log.positions()).items() if partition.topic == TOPIC}
    found = await read(left)
    check(left, found)


# The witness.


@pytest.mark.parametrize("how", ["removed", "noise", "cut"])
async def test_a_lost_witness_is_reported_and_loses_nothing(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = await leave(tmp_path)
    if how == "removed":
        left.witness.unlink()
    elif how == "noise":
        left.witness.write_bytes(os.urandom(8192))
    else:
        os.truncate(left.witness, 40)
    found = await read(left)
    assert left.messages == found.messages
    assert set() == found.lost
    assert "is damaged or missing" in capsys.readouterr().out
    assert (how != "removed") == bool(list(left.data.glob("damaged-*/log.acknowledged")))
    assert read_witness(left.witness) is not None, "the check goes on from here"


async def test_a_witness_that_is_removed_with_the_wal_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows how much is lost, which is said until it is confirmed; not of a log that was closed, which has no WAL."""
    closed = await leave(tmp_path, checkpointed=True)
    closed.witness.unlink()
    assert closed.messages == (await read(closed)).messages
    assert not read_incidents(closed.data)
    assert "may be lost" not in capsys.readouterr().out

    left = await leave(tmp_path)
    left.witness.unlink()
    left.wal.unlink()
    async with await open_log(left.data) as log:
        await log.append([Message(TOPIC, b"after")])
        assert (1, 0) == log.damages()
    (incident,) = read_incidents(left.data)
    assert [("", 0)] == [(damage.topic, damage.messages) for damage in incident.damages]
    assert "its write-ahead log is missing, and its contents are unknown" in capsys.readouterr().out
    confirm([incident])
    async with await open_log(left.data) as log:
        assert (0, 0) == log.damages()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("part", ["header", "first page", "file"])
async def test_positions_are_carved_where_the_witness_is_gone(tmp_path: Path, part: str, checkpointed: bool) -> None:
    """A file that SQLite can't use is made anew without the witness too, from the positions that fit their checksums."""
    left = await leave(tmp_path, checkpointed=checkpointed, committed=3)
    left.witness.unlink()
    if part == "file" and not checkpointed:
        left.file.unlink()
    else:
        raw = left.file.read_bytes()
        damaged = 100 if part == "header" else 16 * 1024
        left.file.write_bytes(bytes(damaged) + raw[damaged:])
    found = await read(left)
    check(left, found)
    assert set() == found.lost


async def test_a_file_that_says_nothing_is_left_as_it_is(tmp_path: Path) -> None:
    """If neither the witness nor a position is left, the start is refused, with what to do."""
    left = await leave(tmp_path, checkpointed=True)
    left.witness.unlink()
    noise = random.Random(1).randbytes(left.file.stat().st_size)
    left.file.write_bytes(noise)
    with pytest.raises(LocalLogUnusable, match=f"its contents are unknown: move {left.log} away"):
        await open_log(left.data)
    assert noise == left.file.read_bytes()


async def test_a_torn_witness_still_tells(tmp_path: Path) -> None:
    """One of its two places is enough: it is at most one transaction behind."""
    left = await leave(tmp_path)
    flip(left.witness, 30)
    left.wal.unlink()
    found = await read(left)
    assert set(range(39)) <= found.lost


def test_a_witness_is_read_by_older_versions(tmp_path: Path) -> None:
    """What was added is behind the part that they read. A file that they wrote, without it, is read."""
    file = tmp_path / "log.acknowledged"
    witness = Witness.open(file)
    heads = {TOPIC: PartitionHead(1, 3, 12, None)}
    witness.write(Witnessed(("ab" * 16,), heads, is_final=True))
    witness.close()
    raw = file.read_bytes()
    at = raw.index(b"ISLGADD1")
    assert int(google_crc32c.value(raw[4096 : at - 4])).to_bytes(4, "little") == raw[at - 4 : at]
    assert Witnessed(("ab" * 16,), heads, is_final=True) == read_witness(file)
    file.write_bytes(raw[:at].ljust(8192, b"\0"))
    assert Witnessed(("ab" * 16,), heads) == read_witness(file)


async def test_a_witness_that_is_cut_is_made_again(tmp_path: Path) -> None:
    """It is made again also if nothing is appended, when the log's state is looked at."""
    async with await open_log(tmp_path) as log:
        await log.append([Message(TOPIC, b"a")])
        os.truncate(tmp_path / "log.acknowledged", 0)
        await log.ping()
        seen = read_witness(tmp_path / "log.acknowledged")
        assert seen is not None
        assert 1 == seen.heads[TOPIC].end


async def test_a_witness_of_the_past_is_no_alarm(tmp_path: Path) -> None:
    """After a power cut it is such a witness, since it was not synced lately."""
    left = await leave(tmp_path)
    witness = Witness.open(left.witness)
    for _ in range(2):
        witness.write(Witnessed((identity_of(left.file),), {TOPIC: PartitionHead(1, 0, 12, None)}))
    witness.close()
    found = await read(left)
    assert left.messages == found.messages
    assert not list(left.data.glob("damaged-*"))


async def test_the_witness_never_runs_ahead(tmp_path: Path) -> None:
    """After each transaction it says what the file has, and is synced within about a second."""
    async with await open_log(tmp_path) as log:
        for number in range(30):
            await log.append([Message(TOPIC, b"x"), Message(TOPICS[1], b"y")])
            seen = read_witness(tmp_path / "log.acknowledged")
            assert seen is not None
            assert (number + 1, number + 1) == (seen.heads[TOPIC].end, seen.heads[TOPICS[1]].end)
            with closing(sqlite3.connect(tmp_path / "log" / FILE_NAME)) as connection:
                (last,) = connection.execute("SELECT max(key) & 0xFFFFFFFFFFFF FROM chunks WHERE key < 2 << 48").fetchone()
            assert last + 1 >= seen.heads[TOPIC].end
        deadline = asyncio.get_running_loop().time() + 10
        while not log._files.is_witness_synced:  # nothing public tells: only a power cut shows it
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


# Reports.


async def test_an_operator_confirms(tmp_path: Path) -> None:
    """It is shown until then, also after a restart, and no longer afterwards. The damaged data stay."""
    left = await leave(tmp_path)
    left.wal.unlink()
    async with await open_log(left.data) as log:
        assert (1, 40) == log.damages()
    async with await open_log(left.data) as log:
        assert (1, 40) == log.damages()
        confirm(read_incidents(left.data))
        assert (0, 0) == log.damages()
    (incident,) = read_incidents(left.data)
    assert incident.is_confirmed
    assert 40 == incident.messages


@pytest.mark.parametrize("version_1", [(), (0, 2), (0,)])
async def test_a_report_names_the_requests_around_a_loss(tmp_path: Path, version_1: Sequence[int]) -> None:
    """It has process and sequence number: those between are lost. It has them also for an earlier version's messages."""
    batch_ids = [uuid4() for _ in range(3)]
    async with await open_log(tmp_path) as log:
        for number, batch_id in enumerate(batch_ids):
            batch = TelemetryBatchV1()
            record = batch.records.add(source=SOURCE_OTLP, batch_id=batch_id.bytes, received_time_unix_nano=10**18)
            record.receipt.process_id, record.receipt.sequence = b"p" * 16, number + 1
            await log.append([Message(TOPIC, batch.SerializeToString() if number in version_1 else encoded(batch))])
        with closing(sqlite3.connect(tmp_path / "log" / FILE_NAME)) as connection, connection:
            connection.execute("UPDATE chunks SET payload = zeroblob(length(payload)) WHERE key & 0xff = 1")
        found = await drain(log, tmp_path)
    assert {1} == found.lost
    (report,) = tmp_path.glob("damaged-*/report.jsonl")
    around = {it["where"]: it for it in json.loads(report.read_text())["requests"]}
    assert (1, 3) == (around["before"]["sequence"], around["after"]["sequence"])
    assert (str(batch_ids[0]), str(batch_ids[2])) == (around["before"]["batch_id"], around["after"]["batch_id"])


async def test_damage_in_doubt_is_reported_once(tmp_path: Path) -> None:
    """A range that may be stored already keeps its ends: what is damaged in it is empty, and the range is polled as often as
    one likes."""
    async with await open_log(tmp_path) as log:
        for number in range(5):
            await log.append([Message(TOPIC, payload(number))])
        polled = await log.poll(MIB, 0)
        assert polled is not None
        await log.intend(polled)
        with closing(sqlite3.connect(tmp_path / "log" / FILE_NAME)) as connection, connection:
            connection.execute("UPDATE chunks SET payload = zeroblob(length(payload)) WHERE key & 0xff = 2")
            connection.execute("DELETE FROM chunks WHERE key & 0xff = 4")
        for _ in range(3):
            again = await log.poll(MIB, 0)
            assert again is not None
            assert (0, 5, True) == (again.start, again.end, again.in_doubt)
            assert [payload(0), payload(1), b"", payload(3), b""] == list(again.payloads)
            polled = again
        await log.commit(polled)
    (report,) = tmp_path.glob("damaged-*/report.jsonl")
    assert [(2, 3), (4, 5)] == sorted((it["start"], it["end"]) for it in map(json.loads, report.read_text().splitlines()))


async def test_a_loss_is_reported_before_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the report can't be written, the log does not start, and the next start finds the loss again."""
    left = await leave(tmp_path)
    left.wal.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("collector.broker.local_log.incidents._write", full)
        with pytest.raises(LocalLogUnusable, match="No space left on device"):
            await open_log(left.data)
    found = await read(left)
    check(left, found)


def test_what_is_found_again_ends_its_alarm(tmp_path: Path) -> None:
    """The alarm ends if all of it is there, and returns if it is missing again. Another log's, or none's, is not meant."""
    incidents = Incidents(tmp_path)

    def report(start: int, end: int, log: str = "own") -> None:
        incidents.report([Damage(topic=TOPIC, start=start, end=end, reason="missing", log=log)])

    def left() -> list[tuple[str, int, int]]:
        damages = [damage for incident in incidents.unconfirmed() for damage in incident.damages]
        return [(damage.log, damage.start, damage.end) for damage in damages]

    report(3, 9)
    assert 2 == incidents.found_again(lambda _: [(4, 6)])
    assert [("own", 3, 4), ("own", 6, 9)] == left()
    assert 4 == incidents.found_again(lambda damage: [(damage.start, damage.end)])
    assert not incidents.unconfirmed()
    again = Incidents(tmp_path)
    again.report([Damage(topic=TOPIC, start=3, end=5, reason="missing", log="own")])
    report(0, 2, "other")
    assert 2 == again.found_again(lambda damage: [(3, 5)] if damage.log == "own" else [])
    assert [("other", 0, 2)] == left()


def test_what_is_reported_is_not_reported_again_in_parts(tmp_path: Path) -> None:
    """What the start found missing is met again while reading, range by range."""
    incidents = Incidents(tmp_path)

    def report(start: int, end: int, topic: str = TOPIC) -> list[tuple[int, int]]:
        new = incidents.report([Damage(topic=topic, start=start, end=end, reason="missing")])
        return [(damage.start, damage.end) for damage in new]

    assert [(3, 6)] == report(3, 6)
    assert [] == report(3, 4) + report(4, 6)
    assert [(0, 3), (6, 9)] == report(0, 9)
    assert [(3, 6)] == report(3, 6, TOPICS[1])
    confirm(read_incidents(tmp_path))
    assert [] == report(0, 9), "confirmed before it is met again"
    assert [(9, 10)] == report(8, 10)


def test_a_damaged_report_is_not_taken_for_none(tmp_path: Path) -> None:
    """What it said is not known, until it is confirmed. A line that has no end was never written whole."""
    incidents = Incidents(tmp_path)
    incidents.report([Damage(topic=TOPIC, start=3, end=6, reason="missing")])
    (incident,) = read_incidents(tmp_path)
    report = incident.folder / "report.jsonl"
    whole = report.read_bytes()
    report.write_bytes(whole + whole[:20])
    assert [(TOPIC, 3, 6)] == [(it.topic, it.start, it.end) for it in read_incidents(tmp_path)[0].damages]
    report.write_bytes(
        whole.replace(b'"start"', b'"stArt"') + whole.replace(b'"start": 3', b'"start": 7').replace(b'"end": 6', b'"end": 9')
    )
    (incident,) = incidents.unconfirmed()
    assert [(TOPIC, 7, 9), ("", 0, 0)] == [(it.topic, it.start, it.end) for it in incident.damages]
    confirm([incident])
    assert not incidents.unconfirmed()


# The format.


def test_a_checksum_holds_a_message_in_its_place() -> None:
    """The same bytes at another offset, in another partition or topic, or in another order are damage."""
    key = chunk_key(1, 5)
    payloads = [b"one", b"two", b"one"]
    lengths, checksums = pack_lengths(payloads), pack_checksums(TOPIC, key, payloads)
    assert payloads == split(TOPIC, key, lengths, b"".join(payloads), checksums)
    none = [None, None, None]
    assert none == split(TOPICS[1], key, lengths, b"".join(payloads), checksums)
    assert none == split(TOPIC, key + 1, lengths, b"".join(payloads), checksums)
    assert none == split(TOPIC, chunk_key(2, 5), lengths, b"".join(payloads), checksums)
    assert [None, None, b"one"] == split(TOPIC, key, lengths, b"twoone" + b"one", checksums)
    assert [b"one", None, b"one"] == split(TOPIC, key, lengths, b"onetwXone", checksums)


async def test_only_what_its_checksum_proves_is_carved(tmp_path: Path) -> None:
    left = await leave(tmp_path, checkpointed=True)
    whole = {chunk.key: chunk.payload for chunk in carve(left.file, [], {1: TOPIC})}
    assert left.messages == {key & 0xFFFF: content for key, content in whole.items()}
    assert [] == list(carve(left.file, [], {1: TOPICS[1]}))
    assert [] == list(carve(left.file, [], {2: TOPIC}))


async def test_a_whole_copy_of_a_row_is_preferred(tmp_path: Path) -> None:
    """A page is in the write-ahead log once for each transaction that changed it: a row of which the newest copy is damaged may
    have an older one."""
    pair, wal = [payload(1), payload(2)], tmp_path / "wal"
    async with await open_log(tmp_path) as log:
        await log.append([Message(TOPIC, content) for content in pair])
        await log.append([Message(TOPIC, payload(3))])
        shutil.copyfile(tmp_path / "log" / f"{FILE_NAME}-wal", wal)
    flip(wal, wal.read_bytes().rfind(pair[0]))
    found = [chunk.payload for chunk in carve(None, [wal], {1: TOPIC}) if chunk.key == chunk_key(1, 0)]
    assert len(found) == 2
    assert b"".join(pair) == found[0]


async def test_a_file_without_checksums_is_used_on(tmp_path: Path) -> None:
    """The directory of a version before checksums: all of it is read, what comes then has checksums, nobody is alarmed."""
    directory = tmp_path / "log"
    directory.mkdir()
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.executescript("""
            PRAGMA page_size = 16384; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
            CREATE TABLE partitions (
                id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL, intent INTEGER) STRICT;
            CREATE TABLE chunks (key INTEGER PRIMARY KEY, lengths BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
            PRAGMA application_id = 0x49534C47; PRAGMA user_version = 1;
            INSERT INTO partitions VALUES (1, 'infrasage.metrics', 7, 9);
        """)
        rows = [(1 << 48 | 6, [b"six", b"seven"]), (1 << 48 | 8, [b"eight"]), (1 << 48 | 9, [b"nine"])]
        for key, payloads in rows:
            lengths = b"".join(struct.pack("<I", len(it)) for it in payloads)
            connection.execute("INSERT INTO chunks VALUES (?, ?, ?)", (key, lengths, b"".join(payloads)))
        connection.commit()
    async with await open_log(tmp_path) as log:
        await log.append([Message(TOPIC, b"ten")])
        polled = await log.poll(MIB, 0)
        assert polled is not None
        assert (7, 9, True, [b"seven", b"eight"]) == (polled.start, polled.end, polled.in_doubt, list(polled.payloads))
        found = await drain(log, tmp_path)
    assert {7: b"seven", 8: b"eight", 9: b"nine", 10: b"ten"} == found.messages
    assert not list(tmp_path.glob("damaged-*"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE epochs SET heads = ''",
        "UPDATE epochs SET heads = '[]'",
        "UPDATE epochs SET heads = '{\"t\": 1}'",
        "UPDATE epochs SET heads = CAST(x'ff' AS TEXT)",
        "UPDATE epochs SET id = 'no number'",
        "UPDATE epochs SET id = 'ab'",
        "UPDATE identity SET id = 'None'",
        "UPDATE identity SET id = CAST(x'ff' AS TEXT)",
        "DELETE FROM identity",
    ],
)
async def test_a_damaged_identity_is_no_trap(tmp_path: Path, statement: str) -> None:
    """A damaged start is none, either: the file is made anew from its content, with the witness's identity and start."""
    left = await leave(tmp_path, checkpointed=True, committed=3, count=30)
    with closing(sqlite3.connect(left.file)) as connection:
        connection.execute(statement)
        connection.commit()
    found = await read(left)
    assert left.messages == found.messages
    check(left, found)


# Whatever is damaged.


DAMAGES: dict[str, Callable[[bytearray, int], object]] = {
    "flip": lambda raw, at: raw.__setitem__(at, raw[at] ^ 0x40),
    "noise": lambda raw, at: raw.__setitem__(slice(at, at + 64), random.Random(at).randbytes(min(64, len(raw) - at))),
    "zeros": lambda raw, at: raw.__setitem__(slice(at, at + 4096), bytes(min(4096, len(raw) - at))),
    "cut": lambda raw, at: raw.__delitem__(slice(at, len(raw))),
}


@pytest.fixture(scope="module")
def lefts(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Left]:
    path = tmp_path_factory.mktemp("lefts")
    return {
        checkpointed: asyncio.run(leave(path, checkpointed=checkpointed, committed=3, count=30))
        for checkpointed in (False, True)
    }


@examples(40)
@given(how=st.sampled_from(sorted(DAMAGES)), in_file=st.booleans(), part=st.floats(0, 1, exclude_max=True))
def test_whatever_is_damaged_is_read_or_reported(
    lefts: dict[bool, Left], tmp_path_factory: pytest.TempPathFactory, how: str, in_file: bool, part: float
) -> None:
    """Any byte, any stretch, any cut, of the file or its write-ahead log: no message changes or vanishes without a report."""
    original = lefts[in_file]
    data = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(original.data, data)
    left = Left(data, original.messages)
    file = left.file if in_file else left.wal
    raw = bytearray(file.read_bytes())
    DAMAGES[how](raw, int(part * len(raw)))
    file.write_bytes(raw)
    try:
        found = asyncio.run(read(left))
    except LocalLogUnusable as error:
        if "its version is" not in str(error):  # that of a newer program is left as it is
            raise
    else:
        check(left, found)
    shutil.rmtree(data.parent)


@pytest.mark.parametrize("flip", [0x01, 0x80])
@pytest.mark.parametrize("what", ["identity", "epoch", "positions"])
async def test_a_start_that_is_damaged_is_not_used(tmp_path: Path, what: str, flip: int) -> None:
    """Wherever a byte of it changes, the structure of the file stays sound: what it says is not what was written. The same
    with an identity, as far as it is none any more."""
    left = await leave(tmp_path, checkpointed=True, committed=3, count=7, size=60)
    await (await open_log(left.data)).close()  # whose start tells of positions
    with closing(sqlite3.connect(left.file)) as connection:
        (identity,) = connection.execute("SELECT id FROM identity").fetchone()
        epoch, positions = connection.execute("SELECT id, heads FROM epochs ORDER BY number DESC").fetchone()
    content = left.file.read_bytes()
    row = content.rindex((epoch + positions).encode())
    at, text = {
        "identity": (content.rindex(identity.encode()), identity),
        "epoch": (row, epoch),
        "positions": (row + len(epoch), positions),
    }[what]
    for index in range(0, len(text), 5):
        damaged = bytearray(content)
        damaged[at + index] ^= flip
        if what == "identity" and chr(damaged[at + index]) in "0123456789abcdef":
            continue
        data = tmp_path / f"{index}"
        shutil.copytree(left.data, data)
        copy = Left(data, dict(left.messages))
        copy.file.write_bytes(damaged)
        found = await read(copy)
        check(copy, found)
        assert not found.lost, index
        assert list(data.glob("damaged-*")), "the damaged file is not kept"
        shutil.rmtree(data)
