"""backup and restore, under load, by the real command."""

import json
import shutil
import time
from pathlib import Path

import pytest
from support.processes.program import MakeProgram, Program, run
from support.senders import COUNTS_SQL, Senders
from support.waiting import until


def counts(program: Program) -> dict[int, int]:
    return {int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)}


def audited(data_dir: Path) -> None:
    done = run("audit", "--data-dir", data_dir)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_backup_under_load(make_program: MakeProgram, tmp_path: Path) -> None:
    """What was acknowledged before it began is in it, nothing is twice, it audits to zero, and the restored one goes on."""
    program = make_program(writer__linger_ms=5)
    program.start()
    backups = [tmp_path / "backup-1", tmp_path / "backup-2"]
    began: list[float] = []
    with Senders(program.http_port, threads=8) as senders:
        until(lambda: len(senders.acknowledged) > 300)
        for backup in backups:
            began.append(time.monotonic())
            done = run("backup", backup, "--data-dir", program.data_dir)
            assert done.returncode == 0, done.stderr
            assert "the writer paused for " in done.stdout
        before = len(senders.acknowledged)
        until(lambda: len(senders.acknowledged) > before + 100)  # it goes on
    assert not senders.refused
    assert not list(program.data_dir.glob("snapshot*"))
    assert not list(program.data_dir.glob("store/shadow/snapshot"))
    assert program.stop() == 0
    senders.check(counts(program))

    # The second one, which another came before.
    restored = Program(tmp_path / "restored")
    done = run("restore", backups[1], "--data-dir", restored.data_dir)
    assert done.returncode == 0, done.stderr
    found = counts(restored)
    due = {record for at_s, records in senders.acknowledgements if at_s < began[1] for record in records}
    assert len(due) > 300
    assert not due - found.keys()
    assert set(found.values()) == {1}
    assert not found.keys() - senders.acknowledged
    audited(restored.data_dir)
    assert (restored.data_dir / "keys.json").read_bytes() == (program.data_dir / "keys.json").read_bytes()
    try:
        restored.start()
        with Senders(restored.http_port, threads=2) as more:
            until(lambda: len(more.acknowledged) > 50)
        assert "lost or damaged" not in restored.log()
        assert restored.value("SELECT count() FROM telemetry") == len(found) + len(more.acknowledged)
        audited(restored.data_dir)
    finally:
        restored.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `backup`, of a collector that was killed with messages in its log, and with `whole`, restored from it."""
    place = tmp_path_factory.mktemp("killed")
    program = Program(place / "data")
    try:
        program.start()
        with Senders(program.http_port, threads=2) as senders:
            until(lambda: len(senders.acknowledged) > 50)
            program.kill()
    finally:
        program.close()
    done = run("backup", place / "backup", "--data-dir", program.data_dir)
    assert done.returncode == 0, done.stderr
    restored = Program(place / "whole")
    assert run("restore", place / "backup", "--data-dir", restored.data_dir).returncode == 0
    senders.check(counts(restored))
    return place


@pytest.fixture
def backup(killed: Path, tmp_path: Path) -> Path:
    """A copy of both in `tmp_path`, to be damaged."""
    for name in ("backup", "whole"):
        shutil.copytree(killed / name, tmp_path / name, symlinks=True)
    return tmp_path / "backup"


def test_a_damaged_backup_is_not_restored(backup: Path, tmp_path: Path) -> None:
    """A changed byte, a missing file, a missing manifest, a name that leads elsewhere: it says so, and nothing is restored."""
    data_dir = tmp_path / "elsewhere" / "data"
    manifest = json.loads((backup / "manifest.json").read_text())
    file = next(name for name in manifest["files"] if name.endswith("data.bin"))

    def refused(words: str) -> None:
        done = run("restore", backup, "--data-dir", data_dir)
        assert done.returncode == 1
        assert words in done.stderr
        assert {"lock"} == {path.name for path in data_dir.iterdir()} if data_dir.exists() else True

    content = (backup / file).read_bytes()
    (backup / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(f"{file} has {len(content):,} bytes with another checksum")
    (backup / file).unlink()
    refused(f"{file} is missing")
    manifest["files"]["../data/keys.json"] = manifest["files"].pop(file)
    (backup / "manifest.json").write_text(json.dumps(manifest))
    refused("its manifest names ../data/keys.json")
    (backup / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    refused("has format 2, and this program reads 1")
    (backup / "manifest.json").unlink()
    refused("is no backup: it has no manifest.json")
    for name in ("whole/log", "whole/store"):  # of another data directory: nothing there was touched
        assert (tmp_path / name).exists()


def test_a_restore_overwrites_nothing(backup: Path, tmp_path: Path) -> None:
    """It is refused if there is data. One that was interrupted is done again, and no collector starts there before."""
    data_dir = tmp_path / "whole"
    done = run("restore", backup, "--data-dir", data_dir)
    assert done.returncode == 1
    assert "it has data already (store, keys.json, log.acknowledged, log); move it away" in done.stderr
    shutil.rmtree(data_dir / "log")  # as if the machine had died between two of its last steps
    (data_dir / "restoring").mkdir()
    started = run("query", "SELECT 1", "--data-dir", data_dir)
    assert started.returncode == 1
    assert "a restore into" in started.stderr
    done = run("restore", backup, "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    audited(data_dir)


def test_a_backup_that_breaks_off_is_none(backup: Path, tmp_path: Path) -> None:
    """What is there already is left alone; a part of an earlier attempt is replaced, and has no manifest until it is whole."""
    data_dir, target = tmp_path / "whole", tmp_path / "second"
    done = run("backup", backup, "--data-dir", data_dir)
    assert done.returncode == 1
    assert "it exists already; name a new directory" in done.stderr
    partial = tmp_path / "second.partial"
    (partial / "log").mkdir(parents=True)
    (partial / "log" / "left.sqlite").touch()
    assert run("restore", partial, "--data-dir", tmp_path / "none").returncode == 1
    done = run("backup", target, "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert not partial.exists()
    assert not (target / "log" / "left.sqlite").exists()


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_what_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    """Nothing is made of a data directory or a backup that does not exist."""
    done = run(command, tmp_path / "nothing", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_only_the_embedded_form_is_backed_up(tmp_path: Path) -> None:
    """Kafka and ClickHouse servers have means of their own: docs/operate/backup.md."""
    done = run("backup", tmp_path / "backup", kafka__bootstrap="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "only the embedded form" in done.stderr
