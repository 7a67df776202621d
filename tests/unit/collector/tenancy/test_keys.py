"""The keys file: what is kept, who may change it at the same time, and what a crash leaves."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.processes.program import environment

from collector.tenancy import key_format, keys
from collector.tenancy.keys import Created, KeyNotFound, KeysUnusable
from collector.tenancy.keys_file import Key
from collector.tenancy.scopes import Scope

NOW = datetime(2026, 4, 10, 12, 0, 0, 500_000, tzinfo=UTC)

# argv: the file, how many.
CREATE_AND_REVOKE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from collector.tenancy import keys
from collector.tenancy.scopes import Scope
path, now = Path(sys.argv[1]), datetime.now(UTC)
for index in range(int(sys.argv[2])):
    created = keys.create(path, tenant="t", scope=Scope.INGEST, plan="Pro", now=now)
    if index % 2:
        keys.end(path, created.key.id, at=now, now=now)
    print(created.key.id, index % 2, flush=True)
"""

FIRST_START = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from collector.tenancy import keys
print(keys.ensure_admin_key(Path(sys.argv[1]), now=datetime.now(UTC)))
"""

# argv: the file, the step. The process is killed just before that call of the operating system.
KILLED_AT = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from collector.tenancy import keys
from collector.tenancy.scopes import Scope
name, call = sys.argv[2].split()
original, left = getattr(os, name), [int(call)]
def step(*args, **kwargs):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(os, name, step)
keys.create(Path(sys.argv[1]), tenant="new", scope=Scope.INGEST, plan="Pro", now=datetime.now(UTC))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where no file is yet, nor its directory."""
    return tmp_path / "data" / "keys.json"


def create(path: Path, tenant: str = "acme", now: datetime = NOW) -> Created:
    return keys.create(path, tenant=tenant, scope=Scope.INGEST, plan="Pro", note="n", now=now)


def tenants(path: Path) -> list[str]:
    return [key.tenant for key in keys.list_keys(path)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_kept_as_its_hash(path: Path) -> None:
    """The file has what is needed to recognize a key, and not what is needed to send with it."""
    created = create(path)
    text = created.text
    assert keys.list_keys(path) == [created.key]
    assert created.key == Key(
        *(
            key_format.id_of(text),
            "acme",
            Scope.INGEST,
            "Pro",
            key_format.sha256_of(text),
            NOW.replace(microsecond=0),
            None,
            "n",
        )
    )
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir()).decode()
    assert key_format.id_of(text) in kept
    assert text not in kept
    assert text[14:30] not in kept


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The file, its lock, and the directory where one is made."""
    create(path)
    assert (mode(path), mode(path.with_name("keys.json.lock")), mode(path.parent)) == (0o600, 0o600, 0o700)


def test_a_change_keeps_who_may_read(path: Path) -> None:
    """Who gave the gateways' group the file need not do so again after each change."""
    create(path)
    path.chmod(0o640)
    create(path)
    assert mode(path) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_is_the_directory_owners(path: Path) -> None:
    """`sudo … keys create` leaves a file that the collector can read; and a file keeps its owner."""
    path.parent.mkdir()
    os.chown(path.parent, 12345, 23456)
    create(path)
    for made in (path, path.with_name("keys.json.lock")):
        assert (made.stat().st_uid, made.stat().st_gid) == (12345, 23456)
    os.chown(path, 34567, 23456)
    create(path)
    assert path.stat().st_uid == 34567


def test_an_owner_that_would_change_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a gateway of that user could not read the file any more."""
    create(path)
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(
        KeysUnusable, match=r"it belongs to user \d+ and group \d+, and the new file would not; run this as that user"
    ):
        create(path)
    assert path.read_bytes() == before


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    """The file that it leads to is the one that is replaced."""
    create(path)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    create(link, "second")
    assert link.is_symlink()
    assert tenants(path) == ["acme", "second"]


def test_changes_at_the_same_time_are_all_kept(path: Path) -> None:
    """Three processes create and revoke; every key is there, and ended or not as its process said."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_AND_REVOKE, str(path), "12"], stdout=subprocess.PIPE, text=True, env=environment()
        )
        for _ in range(3)
    ]
    said = "".join(process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    expected = {line.split()[0]: line.split()[1] == "1" for line in said.splitlines()}
    assert len(expected) == 36
    assert {key.id: key.ends is not None for key in keys.list_keys(path)} == expected


def test_one_of_several_first_starts_makes_the_admin_key(path: Path) -> None:
    """It prints it, and the others find it made."""
    processes = [
        subprocess.Popen([sys.executable, "-c", FIRST_START, str(path)], stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert said[:2] == ["None", "None"]
    (key,) = keys.list_keys(path)
    assert key.sha256 == key_format.sha256_of(said[2])
    assert (key.tenant, key.scope, key.plan) == ("admin", Scope.ADMIN, "Unlimited")


def test_a_file_without_keys_is_not_a_first_start(path: Path) -> None:
    """Who took all keys away meant it."""
    path.parent.mkdir()
    path.write_text('{"version": 1, "keys": []}')
    assert keys.ensure_admin_key(path, now=NOW) is None
    assert keys.list_keys(path) == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("open 2", ["old"]),  # the lock is held, the new file not made
        ("fsync 1", ["old"]),  # written, perhaps not on the disk
        ("replace 1", ["old"]),  # on the disk, under another name
        ("fsync 2", ["old", "new"]),  # in its place
    ],
)
def test_a_kill_leaves_the_old_file_or_the_new_one(path: Path, step: str, expected: list[str]) -> None:
    """Kill -9 at each step of a change; the next change finds nothing in its way."""
    create(path, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, str(path), step], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert tenants(path) == expected
    create(path, "next")
    assert tenants(path) == [*expected, "next"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    ("name", "call", "expected"), [("fsync", 1, ["old"]), ("replace", 1, ["old"]), ("fsync", 2, ["old", "new"])]
)
def test_a_failing_disk_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, expected: list[str]
) -> None:
    """The error names the file, what failed and what has to be so; nothing half-written is left."""
    create(path, "old")
    original, left = getattr(os, name), [call]

    def fail(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, fail)
        with pytest.raises(KeysUnusable, match=rf"cannot change the keys file {path}: Input/output error; .* writable"):
            create(path, "new")
    assert tenants(path) == expected
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_lock_that_is_never_released_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes after a while, with the lock's name, and nothing has changed."""
    create(path)
    monkeypatch.setattr(keys, "_LOCK_TRIES", 2)
    with path.with_name("keys.json.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KeysUnusable, match=r"another process has held .*keys\.json\.lock for 0\.1 s"):
            create(path)
    assert len(keys.list_keys(path)) == 1


def test_a_key_ends_at_the_time_that_was_set(path: Path) -> None:
    """Now means now, to the fraction of a second; the others are not touched."""
    first, second = create(path), create(path)
    ended = keys.end(path, first.key.id, at=NOW, now=NOW)
    assert ended.has_ended(NOW)
    assert keys.list_keys(path) == [ended, second.key]


def test_an_end_is_never_put_off(path: Path) -> None:
    """A key that has ended, or will, does not come back by another end; one that will can end sooner."""
    key_id = create(path).key.id
    at = NOW.replace(microsecond=0)
    assert keys.end(path, key_id, at=at + timedelta(hours=2), now=NOW).ends == at + timedelta(hours=2)
    assert keys.end(path, key_id, at=at + timedelta(hours=3), now=NOW).ends == at + timedelta(hours=2)
    assert keys.end(path, key_id, at=at, now=NOW).ends == at
    assert keys.end(path, key_id, at=at + timedelta(hours=1), now=NOW).ends == at


def test_keys_that_ended_long_ago_are_left_out(path: Path) -> None:
    """They are at the next change, 90 days later, and not before: so the file does not grow for ever."""
    key_id = create(path, "ended").key.id
    keys.end(path, key_id, at=NOW, now=NOW)
    create(path, "second", NOW + timedelta(days=89))
    assert tenants(path) == ["ended", "second"]
    create(path, "third", NOW + timedelta(days=91))
    assert tenants(path) == ["second", "third"]


def test_a_key_is_found_by_id_or_as_a_whole(path: Path) -> None:
    """Either of the two may ask."""
    created = create(path)
    assert keys.find(path, created.key.id) == keys.find(path, created.text) == created.key


def test_a_missing_key_and_a_mistyped_one_have_different_errors(path: Path) -> None:
    """The checksum shows which it is. Neither message has the secret."""
    text = create(path).text
    for wanted, said in (
        ("00000000", f'there is no key "00000000" in {path}; `keys list` shows those that there are'),
        ("\x1b[1m", 'there is no key "\\u001b[1m" in'),
        (other := key_format.new(), f'there is no key "{key_format.id_of(other)}" in'),
        (text[:-1], "not a valid key; it may be mistyped or cut: it has 62 characters"),
        (text[:30] + ("x" if text[30] != "x" else "y") + text[31:], "may be mistyped or cut: a character in it is wrong"),
    ):
        with pytest.raises(KeyNotFound) as finding:
            keys.find(path, wanted)
        with pytest.raises(KeyNotFound) as ending:
            keys.end(path, wanted, at=NOW, now=NOW)
        assert said in str(finding.value)
        assert str(ending.value) == str(finding.value)
        assert text[14:30] not in str(finding.value)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    """Reading it fails. Nothing is made by reading, or by ending a key that is not there."""
    assert keys.read(path) is None
    assert keys.stamp_of(path) is None
    for attempt in (lambda: keys.list_keys(path), lambda: keys.end(path, "00000000", at=NOW, now=NOW)):
        with pytest.raises(KeysUnusable, match=f"there is no keys file {path}: `keys create` makes it"):
            attempt()
    assert not path.parent.exists()


def test_a_broken_file_is_not_written_over(path: Path) -> None:
    """It may still be repaired."""
    path.parent.mkdir()
    path.write_text('{"version": 1, "keys": [')
    with pytest.raises(KeysUnusable, match=f"the keys file {path} is broken: it is not JSON.*; fix it, or put back a copy"):
        create(path)
    assert path.read_text() == '{"version": 1, "keys": ['


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A directory in its place, a file in its directory's."""
    with pytest.raises(KeysUnusable, match=f"cannot read the keys file {tmp_path}: Is a directory"):
        keys.read(tmp_path)
    (tmp_path / "file").touch()
    for attempt in (lambda: keys.read(tmp_path / "file" / "keys.json"), lambda: keys.stamp_of(tmp_path / "file" / "keys.json")):
        with pytest.raises(KeysUnusable, match="Not a directory"):
            attempt()
    with pytest.raises(KeysUnusable, match=r"cannot change the keys file .*: "):
        create(tmp_path / "file" / "keys.json")


def test_a_file_has_a_largest_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that could not be read again is not written, and one that is larger is not read."""
    create(path)
    size = path.stat().st_size
    monkeypatch.setattr(keys, "FILE_BYTES_MAX", size + 10)
    with pytest.raises(KeysUnusable, match=rf"would have \d+ bytes, and at most {size + 10} are read: revoke keys"):
        create(path)
    assert len(keys.list_keys(path)) == 1
    monkeypatch.setattr(keys, "FILE_BYTES_MAX", size - 1)
    with pytest.raises(KeysUnusable, match=f"has {size} bytes; at most {size - 1} are read"):
        keys.list_keys(path)


def test_what_could_not_be_read_again_is_refused(path: Path) -> None:
    """The caller has not checked the name: the file is as it was."""
    create(path)
    with pytest.raises(KeysUnusable, match=r"cannot change the keys file .*: tenant is empty"):
        create(path, "")
    assert tenants(path) == ["acme"]


def test_an_id_is_given_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key is made where the id of the first is taken."""
    taken, free = create(path), key_format.new()
    texts = iter([taken.text, free])
    monkeypatch.setattr(key_format, "new", lambda: next(texts))
    assert create(path).text == free


def test_a_stamp_tells_that_a_file_has_changed(path: Path) -> None:
    """Replaced, or written in place; and not when nothing was done to it."""
    create(path)
    first = keys.stamp_of(path)
    assert keys.stamp_of(path) == first
    document = keys.read(path)
    assert document is not None
    assert document.stamp == first
    create(path)
    second = keys.stamp_of(path)
    assert second != first
    with path.open("a") as file:
        file.write("\n")
    assert keys.stamp_of(path) != second


@pytest.mark.parametrize(("keys_file", "expected"), [(None, Path("/data/keys.json")), (Path("/etc/keys"), Path("/etc/keys"))])
def test_the_file_is_in_the_data_directory(keys_file: Path | None, expected: Path) -> None:
    """It is there if no other one is named."""
    assert keys.path_of(Path("/data"), keys_file) == expected
