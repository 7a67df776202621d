"""What the local log promises beyond the contract: its file, its limits, its failures."""

import asyncio
import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.fakes.brokers import LIMITS, MIB, TOPICS, limits
from support.processes.commands import command, run
from support.processes.small_disk import small_disk
from support.waiting import eventually

from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerDown, BrokerFull, Message, Partition, Range
from collector.broker.local_log import FILE_NAME, LocalLog, LocalLogLimits, LocalLogUnusable
from collector.broker.local_log.files import LogFiles
from collector.broker.local_log.witness import read_witness
from collector.runtime.disk import measure

TOPIC = TOPICS[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log"


async def open_log(directory: Path, limits_: LocalLogLimits = LIMITS) -> LocalLog:
    return await LocalLog.open(directory, limits_, TOPICS)


async def take_all(log: LocalLog, bytes_max: int = MIB) -> list[bytes]:
    taken: list[bytes] = []
    while messages := await log.poll(bytes_max, 0):
        await log.intend(messages)
        await log.commit(messages)
        taken += map(bytes, messages.payloads)
    return taken


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The writer thread's next transaction waits, as for a slow disk."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def taken_up(log: LocalLog, payload: bytes) -> "asyncio.Task[None]":
    """An append whose transaction has begun."""
    task = asyncio.create_task(log.append([Message(TOPIC, payload)]))
    await asyncio.sleep(0)
    await eventually(lambda: not log._waiting)  # nothing public tells: it makes no difference to callers
    return task


# The file.


async def test_a_log_is_used_by_one_process(directory: Path) -> None:
    """Another one is refused before it has touched anything, and takes over where the first has ended."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"content")])
        for _ in range(2):
            with pytest.raises(LocalLogUnusable, match="another process uses it"):
                await open_log(directory)
        seen = read_witness(directory.with_name("log.acknowledged"))
        assert seen is not None
        assert [start.id for start in log.starts] == [start.id for start in seen.lineage]
        with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
            assert (1,) == connection.execute("SELECT count() FROM epochs").fetchone()
    async with await open_log(directory) as log:
        assert [b"content"] == await take_all(log)


async def test_a_file_system_that_locks_no_directory_is_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS is such a file system: the data directory's own lock is a file."""

    def refused(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refused)
    async with await open_log(directory) as log:
        assert [b"content"] == await appended_and_taken(log, b"content")


async def test_space_is_given_back(directory: Path) -> None:
    """Once everything is stored, the file is small again, and so is its write-ahead log; they never exceeded their bounds."""
    file, wal = directory / FILE_NAME, directory / f"{FILE_NAME}-wal"
    async with await open_log(directory) as log:
        payload = os.urandom(500_000)
        for _ in range(20):
            await asyncio.gather(*(log.append([Message(topic, payload)]) for topic in TOPICS for _ in range(2)))
            assert wal.stat().st_size <= 4 * LIMITS.wal_bytes_max + 2 * LIMITS.commit_bytes_max
        await eventually(lambda: 120 * len(payload) <= log.bytes_used < 1.1 * 120 * len(payload))
        assert 120 * len(payload) <= file.stat().st_size + wal.stat().st_size
        assert 120 == len(await take_all(log))
        await eventually(lambda: file.stat().st_size <= LIMITS.spare_bytes_max + MIB)
        await eventually(lambda: log.bytes_used == 0)
        assert [payload] == await appended_and_taken(log, payload)


async def appended_and_taken(log: LocalLog, payload: bytes) -> list[bytes]:
    await log.append([Message(TOPIC, payload)])
    return await take_all(log)


async def test_space_that_is_not_given_back_is_logged_now_and_then(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk every transaction fails to return space: that is one line at first, not one for each."""

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with await LocalLog.open(directory, limits(), TOPICS) as log:
        monkeypatch.setattr(LogFiles, "tidy", full)
        for _ in range(5):
            await log.append([Message(TOPICS[0], b"content")])
    assert 1 == "".join(capsys.readouterr()).count("local log cannot give back space now")


async def test_space_is_given_back_while_appends_go_on(directory: Path) -> None:
    """It needs no pause to shrink: what waits in the log stays as it is."""
    file = directory / FILE_NAME
    async with await open_log(directory, limits(spare_bytes_max=0)) as log:
        for number in range(60):
            await log.append([Message(TOPIC, b"%3d" % number * 100_000)])
        largest = file.stat().st_size
        # Appends all the time, so that the writer thread is never idle for long; reads more than it appends.
        appended, taken = 60, 0
        while taken < appended and appended < 1000:
            sending = [asyncio.create_task(log.append([Message(TOPIC, b"%3d" % (appended + n) * 100)])) for n in range(4)]
            messages = await log.poll(MIB, 0)
            assert messages is not None
            await log.intend(messages)
            await log.commit(messages)
            assert all(int(payload[:3]) == taken + n for n, payload in enumerate(messages.payloads))
            taken += len(messages.payloads)
            await asyncio.gather(*sending)
            appended += 4
            if file.stat().st_size < largest // 3:
                break
        assert file.stat().st_size < largest // 3


async def test_an_empty_log_has_all_its_room(directory: Path) -> None:
    """Neither the file's own pages nor its past count against the size limit."""
    async with await open_log(directory, limits(bytes_max=64 * 1024)) as log:
        assert 0 == log.bytes_used
        for _ in range(20):
            payload = os.urandom(40_000)
            assert [payload] == await appended_and_taken(log, payload)
            await eventually(lambda: log.bytes_used == 0)


async def test_small_messages_fill_little_more_than_their_bytes(directory: Path) -> None:
    async with await open_log(directory) as log:
        for _ in range(50):
            await asyncio.gather(*(log.append([Message(TOPIC, bytes(500))]) for _ in range(200)))
        assert log.bytes_used < 1.5 * 50 * 200 * 500


async def test_a_log_that_was_made_anew_has_another_identity(directory: Path) -> None:
    """One file has one identity, at each start. Where all was removed, offsets begin again, and the identity is another."""
    seen: list[tuple[str, str, int, bool]] = []
    for _ in range(2):
        for _ in range(2):
            async with await open_log(directory) as log:
                await log.append([Message(TOPIC, b"a")])
                messages = await log.poll(MIB, 0)
                assert messages is not None
                seen.append((log.identity, messages.log.partition(".")[0], messages.start, log.is_new))
        shutil.rmtree(directory.parent)
    one, other = seen[0][0], seen[2][0]
    assert one != other
    assert [(id_, id_, 0, new) for id_ in (one, other) for new in (True, False)] == seen


def as_before_identities(directory: Path) -> None:
    """The file as versions made it that knew no identities."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.executescript("""
            DROP TABLE identity;
            PRAGMA user_version = 1;
            ALTER TABLE chunks DROP COLUMN checksums;
            ALTER TABLE partitions DROP COLUMN floor;
            ALTER TABLE partitions DROP COLUMN checksum;
            ALTER TABLE partitions DROP COLUMN intent_log;
            ALTER TABLE partitions DROP COLUMN intent_depth;
        """)


async def test_a_file_of_an_older_version_gets_an_identity(directory: Path) -> None:
    """It gets one once, and keeps its content."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"a")])
    as_before_identities(directory)
    identities = []
    for _ in range(2):
        async with await open_log(directory) as log:
            identities.append(log.identity)
            assert not log.is_new
    assert 1 == len(set(identities))
    async with await open_log(directory) as log:
        assert [b"a"] == await take_all(log)


async def test_an_intent_of_an_older_version_has_no_identity(directory: Path) -> None:
    """Its range comes back with none, however often it is intended again; the next range has one."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"a")])
        messages = await log.poll(MIB, 0)
        assert messages is not None
        await log.intend(messages)
        await log.append([Message(TOPIC, b"b")])
    as_before_identities(directory)
    for _ in range(2):
        async with await open_log(directory) as log:
            old = await log.poll(MIB, 0)
            assert old is not None
            assert ("", True, [b"a"]) == (old.log, old.in_doubt, list(old.payloads))
            await log.intend(old)
    async with await open_log(directory) as log:
        assert old is not None
        await log.commit(old)
        following = await log.poll(MIB, 0)
        assert following is not None
        assert (log.identity, [b"b"]) == (following.log.partition(".")[0], list(following.payloads))


async def test_an_intent_keeps_its_log_and_its_depth(directory: Path) -> None:
    """It keeps them through restarts, and until the commit. If it is repeated with another depth, it has that one."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"a"), Message(TOPIC, b"b")])
        messages = await log.poll(MIB, 0)
        assert messages is not None
        first = messages._replace(end=1, payloads=[b"a"])
        await log.intend(first)
    for depth in (3, 4):
        async with await open_log(directory) as log:
            await log.intend(first._replace(depth=depth))
        async with await open_log(directory) as log:
            assert first._replace(in_doubt=True, depth=depth) == await log.poll(MIB, 0)
    async with await open_log(directory) as log:
        await log.commit(first)
        rest = await log.poll(MIB, 0)
        assert rest is not None
        assert ([b"b"], 0, False) == (list(rest.payloads), rest.depth, rest.in_doubt)
        assert first.log != rest.log


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (None, "file is not a database"),
        ("CREATE TABLE other (x)", "a database of something else"),
        ("PRAGMA application_id = 0x49534C47; PRAGMA user_version = 7; CREATE TABLE other (x)", "version is 7"),
    ],
)
async def test_a_file_that_is_no_log_is_named(directory: Path, statement: str | None, reason: str) -> None:
    """It is refused at the start, named, and left as it is."""
    directory.mkdir(parents=True)
    file = directory / FILE_NAME
    if statement is None:
        file.write_bytes(b"not a database, whatever its name says\n" * 100)
    else:
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(statement)
    before = file.read_bytes()
    with pytest.raises(LocalLogUnusable) as caught:
        await open_log(directory)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)
    assert before == file.read_bytes()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalLogUnusable, match="file/log"):
        await open_log(tmp_path / "file" / "log")


# Failures.


def test_a_full_disk_is_survived(directory: Path) -> None:
    """While the disk is full, appends are refused; then they work again, and what was acknowledged is there."""
    run(command("support.processes.disk_full", directory))


async def test_an_append_that_waited_too_long_is_not_kept(directory: Path) -> None:
    """Its time is up before its transaction began: nothing of it was kept. One that has begun is waited for."""
    async with await open_log(directory, limits(append_timeout_s=0.05)) as log:
        with locked(directory):
            begun = await taken_up(log, b"begun")
            with pytest.raises(BrokerDown, match=r"4 bytes to .*did not begin within 0\.05 s"):
                await log.append([Message(TOPIC, b"late")])
            assert not begun.done()
        await begun
        await log.append([Message(TOPIC, b"next")])
        assert [b"begun", b"next"] == await take_all(log)


async def test_a_cancelled_append_that_waits_is_not_kept(directory: Path) -> None:
    async with await open_log(directory) as log:
        with locked(directory):
            begun = await taken_up(log, b"begun")
            waiting = asyncio.create_task(log.append([Message(TOPIC, b"waiting")]))
            await asyncio.sleep(0)
            for task in (begun, waiting):
                task.cancel()
            await asyncio.gather(begun, waiting, return_exceptions=True)
        await log.append([Message(TOPIC, b"next")])
        assert [b"begun", b"next"] == await take_all(log)


async def test_what_waits_is_bounded(directory: Path) -> None:
    """Past waiting_bytes_max an append is refused at once; room comes back as soon as the disk does."""
    async with await open_log(directory, limits(waiting_bytes_max=1000)) as log:
        with locked(directory):
            begun = await taken_up(log, b"begun")
            waiting = [asyncio.create_task(log.append([Message(TOPIC, bytes(500))])) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(BrokerDown, match=r"cannot append 1 bytes to .*: 1000 of 1000 bytes wait"):
                await log.append([Message(TOPIC, b"x")])
        await asyncio.gather(begun, *waiting)
        await log.append([Message(TOPIC, bytes(5000))])
        assert [5, 500, 500, 5000] == [len(payload) for payload in await take_all(log)]


async def test_closing_finishes_what_waits(directory: Path) -> None:
    """What was appended before `close` is kept and acknowledged; what comes after is refused, and so are polls."""
    log = await open_log(directory)
    polling = asyncio.create_task(log.poll(MIB, 600))
    with locked(directory):
        begun = await taken_up(log, b"begun")
        waiting = asyncio.create_task(log.append([Message(TOPIC, b"waiting")]))
        await asyncio.sleep(0)
        closing_ = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        for refused in (log.append([Message(TOPIC, b"late")]), log.ping(), log.poll(MIB, 600), polling):
            with pytest.raises(BrokerDown, match="it is closed"):
                await refused
    await asyncio.gather(begun, waiting, closing_)
    async with await open_log(directory) as log:
        assert [b"begun", b"waiting"] == await take_all(log)


async def test_a_lock_that_lasts_is_a_failure_that_passes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every caller hears of a transaction that failed; `failure` tells until the next one works."""
    monkeypatch.setattr("collector.broker.local_log.schema.LOCK_TIMEOUT_S", 0.05)
    async with await open_log(directory) as log:
        await log.ping()
        with locked(directory):
            outcomes = await asyncio.gather(*(log.append([Message(TOPIC, b"x")]) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(outcome, BrokerDown) for outcome in outcomes)
            assert log.failure == "SQLITE_BUSY: database is locked"
            with pytest.raises(BrokerDown, match=f"cannot write {directory / FILE_NAME}: SQLITE_BUSY"):
                await log.ping()
        await log.ping()
        assert log.failure is None
        assert [] == await take_all(log)


async def test_an_append_that_meets_a_full_disk_is_refused_as_such(directory: Path) -> None:
    """The space is checked now and then, so other data may have filled the disk since. Nothing of the append is kept."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"before")])
        database = log._files._database._connection
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BrokerFull, match=f"cannot write {directory / FILE_NAME}: SQLITE_FULL"):
            await log.append([Message(TOPIC, b"x" * MIB)])
        assert log.failure == "SQLITE_FULL: database or disk is full"
        database.execute("PRAGMA max_page_count = 1000000")
        await log.append([Message(TOPIC, b"after")])
        assert log.failure is None
        assert [b"before", b"after"] == await take_all(log)


@pytest.mark.parametrize("message_bytes", [1_000, 60_000, 300_000, 1_000_000])
async def test_a_checkpoint_leaves_the_reserve_to_the_next_start(tmp_path: Path, message_bytes: int) -> None:
    """A message takes its space twice until a checkpoint is done. The log counts both, and stops before a start has no room."""
    disk_limits = limits(wal_bytes_max=16 * MIB, reserve_percent=10, reserve_bytes_min=512 * MIB, bytes_max=1024 * MIB)
    with small_disk(tmp_path / "data" / "log", 24) as disk:
        async with await open_log(disk, disk_limits) as log:
            kept = 0
            refusals: list[str] = []
            while len(refusals) < 20:
                try:
                    await log.append([Message(TOPIC, os.urandom(message_bytes))])
                    kept += 1
                except BrokerFull as error:
                    refusals.append(str(error))
                assert 6 * MIB < measure(disk).free
            assert all(f"bytes: the disk of {disk} has " in refusal for refusal in refusals)
            assert kept * message_bytes > 8 * MIB
        async with await open_log(disk, disk_limits) as log:
            assert kept == len(await take_all(log))


# Who may do what.


async def test_a_range_that_is_not_in_hand_is_refused(directory: Path) -> None:
    """Neither an intent nor a commit moves a partition to where it can't go."""
    async with await open_log(directory) as log:
        await log.append([Message(TOPIC, b"a"), Message(TOPIC, b"b")])
        partition = Partition(TOPIC, 0)
        for start, end in ((0, 3), (1, 2)):
            with pytest.raises(BrokerDown, match=f"cannot intend infrasage.metrics/0 {start} to {end}"):
                await log.intend(Range(partition, start, end, []))
        with pytest.raises(BrokerDown, match=r"cannot commit infrasage\.metrics/0 0 to 1"):
            await log.commit(Range(partition, 0, 1, []))
        await log.intend(Range(partition, 0, 1, [b"a"]))
        with pytest.raises(BrokerDown, match=r"cannot intend infrasage\.metrics/0 0 to 2"):
            await log.intend(Range(partition, 0, 2, [b"a", b"b"]))
        with pytest.raises(BrokerDown, match=r"cannot intend infrasage\.logs/0 0 to 1"):
            await log.intend(Range(Partition(TOPICS[1], 0), 0, 1, []))


async def test_dead_letters_are_kept_where_the_log_is_full(directory: Path) -> None:
    """They are moved within the log, not added to it; nobody polls them, and they stay."""
    async with await open_log(directory, limits(bytes_max=180_000)) as log:
        for _ in range(3):
            await log.append([Message(TOPIC, bytes(50_000))])
        with pytest.raises(BrokerFull, match=r"cannot append 50020 bytes: the log is full but for \d+"):
            await log.append([Message(TOPIC, bytes(50_000))])
        await log.append([Message(DEAD_LETTERS_TOPIC, b"dead" * 10_000)])
        await log.append([Message(DEAD_LETTERS_TOPIC, b"letter")])
        await take_all(log)
        assert 2 == log.depth(DEAD_LETTERS_TOPIC)
        assert 0 == log.depth(TOPIC)
    async with await open_log(directory) as log:
        assert 2 == log.depth(DEAD_LETTERS_TOPIC)
        assert [] == await take_all(log)


async def test_a_transaction_takes_so_much_and_no_more(directory: Path) -> None:
    """commit_bytes_max splits what waits into several transactions; a larger message has one of its own."""
    async with await open_log(directory, limits(commit_bytes_max=1000)) as log:
        payloads = [bytes(400)] * 5 + [bytes(5000)] + [b"x"] * 3
        await asyncio.gather(*(log.append([Message(TOPIC, payload)]) for payload in payloads))
        assert payloads == await take_all(log)


async def test_no_messages_are_no_work(directory: Path) -> None:
    async with await open_log(directory) as log:
        await log.append([])
        assert await log.poll(MIB, 0) is None
