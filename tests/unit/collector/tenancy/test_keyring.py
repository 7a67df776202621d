"""The keys in force: found by the same steps whatever they are, and read again when the file changes."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.waiting import eventually

from collector.tenancy import key_format, keyring, keys
from collector.tenancy.identity import Caller
from collector.tenancy.keyring import Keyring
from collector.tenancy.keys import KeysUnusable
from collector.tenancy.keys_file import Key, write_entries
from collector.tenancy.plans import BUILT_IN_PLANS, PRO
from collector.tenancy.scopes import Scope

NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)


class Clock:
    """A clock that does not move until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def create(path: Path, tenant: str = "acme", scope: Scope = Scope.INGEST, plan: str = "Pro") -> bytes:
    return keys.create(path, tenant=tenant, scope=scope, plan=plan, now=NOW).text.encode()


def end(path: Path, key: bytes, at: datetime = NOW) -> None:
    keys.end(path, key.decode(), at=at, now=NOW)


def open_ring(path: Path, clock: Clock | None = None, reload_s: float = 0.01) -> Keyring:
    return Keyring.open(path, BUILT_IN_PLANS, reload_s=reload_s, now_unix_s=clock or Clock())


@contextlib.asynccontextmanager
async def running(ring: Keyring) -> AsyncIterator[None]:
    task = asyncio.create_task(ring.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def other_character(key: bytes, at: int) -> bytes:
    return key[:at] + (b"x" if key[at : at + 1] != b"x" else b"y") + key[at + 1 :]


def wrong_keys(good: bytes) -> dict[str, bytes]:
    """Of every kind that is not in force, and never was."""
    return {
        "empty": b"",
        "unknown": key_format.new().encode(),
        "first character": other_character(good, 0),
        "in the middle": other_character(good, 30),
        "last character": other_character(good, 62),
        "too short": good[:-1],
        "too long": good + b"x",
        "twice": good + b", " + good,
        "far too long": good + b"x" * 100_000,
        "not text": b"\xff\x00" * 40,
        "with a space": good + b" ",
        "in capitals": good.upper(),
    }


def test_a_key_is_its_tenants(path: Path) -> None:
    """It has the tenant, its scope, its plan as the settings have it, and its public id."""
    acme, globex = create(path), create(path, "globex", Scope.ADMIN, "Unlimited")
    ring = open_ring(path)
    assert ring.find(acme) == Caller("acme", Scope.INGEST, PRO, acme[6:14].decode())
    assert ring.find(globex) == Caller("globex", Scope.ADMIN, BUILT_IN_PLANS["Unlimited"], globex[6:14].decode())


def test_a_wrong_key_is_nobodys(path: Path) -> None:
    """It is nobody's, however near it comes to a good one."""
    good = create(path)
    ring = open_ring(path)
    assert {kind: ring.find(key) for kind, key in wrong_keys(good).items()} == dict.fromkeys(wrong_keys(good))
    assert ring.find(good) is not None


def test_a_key_ends_by_the_clock(path: Path, clock: Clock) -> None:
    """It ends to the second, without the file being read again, and is back if the clock was wrong."""
    key = create(path)
    end(path, key, NOW + timedelta(seconds=10))
    ring = open_ring(path, clock)
    clock.now = NOW + timedelta(seconds=9.999)
    assert ring.find(key) is not None
    clock.now = NOW + timedelta(seconds=10)
    assert ring.find(key) is None
    clock.now = NOW
    assert ring.find(key) is not None


def test_every_key_takes_the_same_steps(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good, unknown, near, revoked, overlong: one hash of at most 64 bytes, one comparison of 32 bytes with 32, one look at the
    clock, whatever came before."""
    good, revoked = create(path), create(path)
    end(path, revoked)
    ring = open_ring(path, clock)
    steps: list[object] = []

    def sha256(data: bytes) -> Any:
        steps.append("hash")
        assert len(data) <= 64
        return real_sha256(data)

    def compare_digest(left: bytes, right: bytes) -> bool:
        steps.append(("compare", len(left), len(right)))
        return real_compare(left, right)

    def now() -> float:
        steps.append("clock")
        return clock()

    real_sha256, real_compare = keyring.sha256, keyring.compare_digest  # type: ignore[attr-defined]
    monkeypatch.setattr(keyring, "sha256", sha256)
    monkeypatch.setattr(keyring, "compare_digest", compare_digest)
    monkeypatch.setattr(ring, "_now_unix_s", now)
    for kind, key in {"good": good, "revoked": revoked, **wrong_keys(good)}.items():
        steps.clear()
        assert (ring.find(key) is not None) == (kind == "good")
        assert steps == ["hash", ("compare", 32, 32), "clock"], kind


def test_nothing_is_kept_of_what_is_sent(path: Path) -> None:
    """A thousand unknown keys leave the keyring as it was."""
    create(path)
    ring = open_ring(path)
    before = copy.copy(vars(ring)), dict(ring._ring)
    for _ in range(1000):
        ring.find(key_format.new().encode())
    assert (vars(ring), dict(ring._ring)) == before


async def test_a_change_is_seen(path: Path) -> None:
    """A new key is in force, a revoked one is not, and others are as they were."""
    first, second = create(path), create(path)
    ring = open_ring(path)
    third = create(path)
    end(path, second)
    assert ring.find(third) is None
    with structlog.testing.capture_logs() as logs:
        await ring.reload()
    assert (ring.find(first) is None, ring.find(second) is None, ring.find(third) is None) == (False, True, False)
    assert [(entry["event"], entry["keys"]) for entry in logs] == [("the keys file was read", 3)]


async def test_a_file_that_has_not_changed_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a good one nor a broken one: looking is cheap."""
    create(path)
    ring = open_ring(path)
    read: list[Path] = []
    real_read = keys.read

    def counted(path: Path) -> keys.KeysDocument | None:
        read.append(path)
        return real_read(path)

    monkeypatch.setattr(keys, "read", counted)
    for _ in range(3):
        await ring.reload()
    assert read == []
    path.write_text("broken")
    for _ in range(3):
        await ring.reload()
    assert read == [path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ('{"version": 1, "ke', "it is not JSON"),
        ('{"version": 2, "keys": []}', "it is of version 2"),
        (
            write_entries([Key("00000000", "t", Scope.INGEST, "Gold", "0" * 64, NOW, None, "")]).decode(),
            "key 00000000 of tenant t is on plan Gold, and there is no such plan in the settings, which have Free, Pro, Unl",
        ),
    ],
)
async def test_a_broken_file_keeps_the_last_good_one(path: Path, text: str, said: str) -> None:
    """It is said once, and for as long as it is so in `failure`; once it is good again, that is said too."""
    good = create(path)
    kept = path.read_bytes()
    ring = open_ring(path)
    path.write_text(text)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await ring.reload()
    assert ring.find(good) is not None
    assert ring.failure is not None
    assert f"the keys file {path}" in ring.failure
    assert said in ring.failure
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert logs[0]["error"] == ring.failure
    path.write_bytes(kept)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await ring.reload()
    assert ring.failure is None
    assert ring.find(good) is not None
    assert [entry["event"] for entry in logs] == ["the keys file was read", "the keys file can be used again"]


async def test_a_file_that_is_gone_takes_no_keys_with_it(path: Path) -> None:
    """A file that can't be reached takes none, either. Put back just as it was, it is used again."""
    good = create(path)
    ring = open_ring(path)
    away = path.with_name("away")
    path.rename(away)
    await ring.reload()
    assert ring.failure == f"the keys file {path} is gone; put it back, or make a new one with `keys create`"
    path.mkdir()
    await ring.reload()
    assert ring.failure is not None
    assert "Is a directory" in ring.failure
    assert ring.find(good) is not None
    path.rmdir()
    away.rename(path)
    await ring.reload()
    assert ring.failure is None
    assert ring.find(good) is not None


async def test_another_reason_is_said_too(path: Path) -> None:
    """Broken, then gone: two lines in the log."""
    create(path)
    ring = open_ring(path)
    with structlog.testing.capture_logs() as logs:
        path.write_text("broken")
        await ring.reload()
        path.unlink()
        await ring.reload()
        await ring.reload()
    assert len(logs) == 2


async def test_a_file_may_come_later(path: Path) -> None:
    """Without it there are no keys, and that is no failure. The first one is seen when it comes."""
    ring = open_ring(path)
    await ring.reload()
    assert ring.failure is None
    assert ring.find(key_format.new().encode()) is None
    path.write_text("broken")
    await ring.reload()
    assert ring.failure is not None
    path.unlink()
    await ring.reload()
    assert ring.failure is None
    key = create(path)
    await ring.reload()
    assert ring.find(key) is not None


def test_a_broken_file_stops_the_start(path: Path) -> None:
    """There is no good one to go on with."""
    path.write_text("{")
    with pytest.raises(KeysUnusable, match=f"the keys file {path} is broken"):
        open_ring(path)


def test_an_ended_key_needs_no_plan(path: Path) -> None:
    """A plan can be taken from the settings once no key in force is on it."""
    ended, good = create(path, plan="Gold"), create(path)
    end(path, ended)
    ring = open_ring(path)
    assert ring.find(ended) is None
    assert ring.find(good) is not None


async def test_a_key_is_found_at_every_moment_of_a_change(path: Path) -> None:
    """While the file is changed, broken, taken away and put back, and read each time, a key that is in it all along is found
    each of many times; the last change is in force at the end."""
    good = create(path)
    ring = open_ring(path, reload_s=0.001)
    failures: set[bool] = set()
    finds = 0
    async with running(ring):
        for round_ in range(15):
            if round_ % 3 == 0:
                text = path.read_bytes()
                path.write_bytes(text[:-20])
            elif round_ % 3 == 1:
                path.unlink()
            else:
                path.write_bytes(text)
                last = await asyncio.to_thread(create, path)
            for _ in range(20):
                await asyncio.sleep(0.0005)
                for _ in range(10):
                    assert ring.find(good) is not None
                    finds += 1
                failures.add(ring.failure is None)
        await eventually(lambda: ring.find(last) is not None)
    assert finds == 3000
    assert failures == {True, False}


async def test_a_revoked_key_ends_without_a_restart(path: Path) -> None:
    """`run` sees to it."""
    key = create(path)
    ring = open_ring(path)
    async with running(ring):
        assert ring.find(key) is not None
        end(path, key)
        await eventually(lambda: ring.find(key) is None)
