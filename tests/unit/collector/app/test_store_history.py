"""An older copy of the embedded store in the store's place is noticed, and nothing else is taken for one."""

from pathlib import Path

from collector.app.store_history import StoreHistory
from collector.broker.local_log import LogStart
from collector.broker.local_log.lineage import PartitionStart

LOGS, TRACES = "infrasage.logs", "infrasage.traces"


def id_of(name: str) -> str:
    return name.encode().hex().zfill(16)


def start(name: str, logs: int, traces: int = 0, *, is_branch: bool = False) -> LogStart:
    """At which so many messages were committed."""
    return LogStart(id_of(name), {LOGS: PartitionStart(logs, logs + 5), TRACES: PartitionStart(traces, traces)}, is_branch)


def noted(directory: Path, *starts: LogStart) -> int:
    """Of these starts, the last is this one. How many messages the store lacks."""
    history = StoreHistory(directory, starts)
    lacking = sum(end - start for start, end in history.lacks().values())
    history.note()
    return lacking


def test_a_store_beside_each_start_lacks_nothing(tmp_path: Path) -> None:
    starts = [start("a", 0), start("b", 10), start("c", 30, 4)]
    assert [0, 0, 0] == [noted(tmp_path, *starts[:count]) for count in (1, 2, 3)]


def test_what_an_older_copy_lacks_is_found(tmp_path: Path) -> None:
    """A copy of before the start `b` is put back: what was committed from there on is missing. It is reported once."""
    assert 0 == noted(tmp_path, start("a", 0))
    copied = (tmp_path / "log.starts").read_bytes()
    assert 0 == noted(tmp_path, start("a", 0), start("b", 10))
    (tmp_path / "log.starts").write_bytes(copied)
    starts = [start("a", 0), start("b", 10), start("c", 30, 4)]
    assert {LOGS: (10, 30), TRACES: (0, 4)} == StoreHistory(tmp_path, starts).lacks()
    assert 24 == noted(tmp_path, *starts)
    assert 0 == noted(tmp_path, *starts, start("d", 31, 4))


def test_a_newer_store_that_is_put_back_has_it(tmp_path: Path) -> None:
    """It lacks what was stored in the older one meanwhile."""
    newer, older = tmp_path / "newer", tmp_path / "older"
    newer.mkdir()
    older.mkdir()
    starts = [start("a", 0), start("b", 10), start("c", 30), start("d", 37)]
    for count in (1, 2):
        noted(newer, *starts[:count])
    noted(older, *starts[:1])
    assert 20 == noted(older, *starts[:3])
    history = StoreHistory(newer, starts)
    assert [(10, 30)] == history.has(LOGS, 10, 30)
    assert [(12, 30)] == history.has(LOGS, 12, 40)
    assert [] == history.has(LOGS, 30, 37) == history.has(TRACES, 0, 9)
    assert {LOGS: (30, 37)} == history.lacks()


def test_a_topic_that_is_new_since_is_found(tmp_path: Path) -> None:
    noted(tmp_path, LogStart(id_of("a"), {}))
    assert 7 == noted(
        tmp_path, LogStart(id_of("a"), {}), LogStart(id_of("b"), {}), LogStart(id_of("c"), {LOGS: PartitionStart(7, 9)})
    )


def test_a_store_of_another_branch_lacks_what_ours_had(tmp_path: Path) -> None:
    """The store of a copy that was used too is put in its place: all since the last start that both have had."""
    for count in (1, 2):
        noted(tmp_path, *[start("a", 0), start("copy", 10)][:count])
    assert 15 == noted(tmp_path, start("a", 0), start("b", 10), start("c", 25))


def test_a_store_that_never_was_beside_it_lacks_everything(tmp_path: Path) -> None:
    noted(tmp_path, start("other", 3))
    assert 25 == noted(tmp_path, start("a", 0), start("b", 25))


def test_a_start_that_stored_nothing_is_not_missed(tmp_path: Path) -> None:
    """It was killed between log and store, or a command opened the log alone."""
    noted(tmp_path, start("a", 0))
    assert 0 == noted(tmp_path, start("a", 0), start("killed", 10), start("c", 10))


def test_a_log_that_was_away_is_known_again(tmp_path: Path) -> None:
    """Another log was in its place meanwhile."""
    noted(tmp_path, start("a", 0))
    noted(tmp_path, start("other", 50))
    assert 0 == noted(tmp_path, start("a", 0), start("b", 10))


def test_of_a_store_without_a_history_nothing_is_known(tmp_path: Path) -> None:
    """It is of a version that kept none, or new."""
    assert 0 == noted(tmp_path, start("a", 0), start("b", 10), start("c", 30))


def test_another_branch_of_the_log_is_left_to_the_log(tmp_path: Path) -> None:
    noted(tmp_path, start("a", 0))
    assert 0 == noted(tmp_path, start("a", 0), start("copy", 10), start("c", 30, is_branch=True))
    assert id_of("c") in (tmp_path / "log.starts").read_text().split()


def test_a_file_of_any_bytes_is_no_history(tmp_path: Path) -> None:
    """It is read, and written anew."""
    (tmp_path / "log.starts").write_bytes(bytes(range(256)))
    noted(tmp_path, start("a", 0))
    assert 0 == noted(tmp_path, start("a", 0), start("b", 10))


def test_the_file_stays_small(tmp_path: Path) -> None:
    for number in range(200):
        noted(tmp_path, start(str(number), number))
    assert 48 == len((tmp_path / "log.starts").read_text().split())
