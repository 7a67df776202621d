"""What is in a keys file."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.tenancy.key_format import ID_ALPHABET
from collector.tenancy.keys_file import EntriesWrong, Key, note_problem, read_entries, tenant_problem, write_entries
from collector.tenancy.scopes import Scope

NOON = datetime(2026, 4, 10, 12, tzinfo=UTC)
KEY = Key("7h3k9x2m", "acme", Scope.INGEST, "Pro", "ab" * 32, NOON, None, "checkout")

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=128)
times = st.integers(0, 253_402_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
origins = st.sampled_from(["https://app.example.com", "https://*.example.com", "http://localhost:*", "null", "*"])
entries = st.builds(
    Key,
    id=st.text(ID_ALPHABET, min_size=8, max_size=8),
    tenant=names,
    scope=st.sampled_from(Scope),
    plan=names,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    created=times,
    ends=st.none() | times,
    note=st.just("") | names,
    origins=st.just(()),
)
of_pages = st.builds(
    lambda key, listed: key._replace(scope=Scope.INGEST, origins=tuple(listed)),
    entries,
    st.lists(origins, min_size=1, max_size=3),
)


def document(**changes: object) -> bytes:
    """One with a good entry, and then with an entry that has these changes; ... takes a member away."""
    entry = {**json.loads(write_entries([KEY]))["keys"][0], "id": "00000000", "sha256": "cd" * 32, **changes}
    good = json.loads(write_entries([KEY]))["keys"][0]
    changed = {name: value for name, value in entry.items() if value is not ...}
    return json.dumps({"version": 1, "keys": [good, changed]}).encode()


@given(st.lists(entries | of_pages, max_size=5, unique_by=(lambda key: key.id, lambda key: key.sha256)))
def test_what_is_written_is_read(keys: list[Key]) -> None:
    """It is the same, in its order."""
    assert read_entries(write_entries(keys)) == keys


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is not JSON: Expecting value, line 1, column 1"),
        (b'{"version": 1,', "it is not JSON: "),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "it is not JSON: Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "it is JSON, but not of keys"),
        (b"1" * 5000, "it is JSON, but not of keys"),
        (b"[]", 'it must be an object with "version": 1'),
        (b"{}", 'it must be an object with "version": 1'),
        (b'{"version": true, "keys": []}', 'it must be an object with "version": 1'),
        (b'{"version": 0, "keys": []}', 'it must be an object with "version": 1'),
        (b'{"version": 2, "secrets": []}', "it is of version 2, and this collector reads 1: a newer one wrote it"),
        (b'{"version": 1}', 'beside "version" it must have "keys", a list, and nothing else'),
        (b'{"version": 1, "keys": {}}', 'it must have "keys", a list'),
        (b'{"version": 1, "keys": [], "more": 1}', "and nothing else"),
        (b'{"version": 1, "keys": [1]}', "keys[0]: it must be an object"),
        (b'{"version": 1, "keys": [], "keys": []}', '"keys" appears twice in one object'),
        (document(id="KEY"), 'keys[1] (id "KEY"): id must be 8 small letters and digits'),
        (document(id=...), "keys[1]: id is missing"),
        (document(note=...), 'keys[1] (id "00000000"): note is missing'),
        (document(tenant=""), 'keys[1] (id "00000000"): tenant is empty'),
        (document(tenant=" a"), "tenant begins or ends with a space"),
        (document(tenant="x" * 129), "tenant has 129 characters; at most 128 are allowed"),
        (document(tenant="a\x1b[1m"), "tenant has a character that can't be printed: U+001B"),
        (document(tenant=1), "tenant must be text, not 1"),
        (document(scope="owner"), 'there is no scope "owner"; there are ingest, readonly, write, admin'),
        (document(origins=[]), "origins must be a list of texts, not []"),
        (document(origins="https://a.test"), 'origins must be a list of texts, not "https://a.test"'),
        (document(origins=[1]), "origins must be a list of texts, not [1]"),
        (document(origins=["a.test"]), 'origins have "a.test", which is no origin: write https://app.example.com'),
        (document(origins=["*"] * 65), "origins are 65; at most 64 are allowed"),
        (document(scope="write", origins=["*"]), "origins are for keys of scope ingest"),
        (document(plan=""), "plan is empty"),
        (document(plan=None), "plan must be text, not null"),
        (document(sha256="AB" * 32), "sha256 must be 64 hexadecimal digits, in small letters"),
        (document(sha256="ab" * 32), "keys[0] has the same sha256"),
        (document(id=KEY.id), "keys[0] has the same id"),
        (document(created="yesterday"), 'created must be a time as 2026-04-10T12:00:00Z, not "yesterday"'),
        (document(created="2026-04-10T12:00:00"), "created must be a time as"),
        (document(ends=0), "ends must be text or null, not 0"),
        (document(ends="9999-12-31T23:59:59-10:00"), "ends must be a time as"),
        (document(ends=False), "ends must be text or null, not false"),
        (document(note="x" * 257), "note has 257 characters; at most 256 are allowed"),
        (document(admin=True), 'a key has no "admin"'),
        (document(tenant={"x": "y" * 200}), "…"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, said: str) -> None:
    """The error has the entry's place and id, and the fault. The whole document is refused."""
    with pytest.raises(EntriesWrong) as caught:
        read_entries(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_member_that_is_there_twice_is_refused() -> None:
    """Otherwise the later would win, and a key that was ended by hand could be valid."""
    text = write_entries([KEY]).replace(b'"ends": null', b'"ends": "2026-01-01T00:00:00Z", "ends": null')
    with pytest.raises(EntriesWrong, match='"ends" appears twice in one object'):
        read_entries(text)


def test_times_of_any_zone_are_read() -> None:
    """Who writes one by hand may write it in a time zone of their own."""
    (_, key) = read_entries(document(ends="2026-04-10T14:00:00.75+02:00"))
    assert key.ends == NOON
    assert key.ends.tzinfo == UTC


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key._replace(tenant=""),
        lambda key: key._replace(note="\n"),
        lambda key: key._replace(plan=" "),
    ],
)
def test_what_could_not_be_read_is_not_written(change: Callable[[Key], Key]) -> None:
    """This holds for every caller."""
    with pytest.raises(EntriesWrong):
        write_entries([change(KEY)])


@pytest.mark.parametrize(
    ("text", "tenant", "note"),
    [
        ("acme", None, None),
        ("Acme GmbH & Co. KG", None, None),
        ("日本", None, None),
        ("x" * 128, None, None),
        ("", "is empty", None),
        (" ", "begins or ends with a space", None),
        ("acme ", "begins or ends with a space", None),
        ("a\nb", "has a character that can't be printed: U+000A", "has a character that can't be printed: U+000A"),
        ("a\u202eb", "has a character that can't be printed: U+202E", "has a character that can't be printed: U+202E"),
        ("x" * 300, "has 300 characters; at most 128 are allowed", "has 300 characters; at most 256 are allowed"),
    ],
)
def test_names_can_be_printed(text: str, tenant: str | None, note: str | None) -> None:
    """A tenant's name is on one line, has no space around it, and is not too long; a note may also be empty."""
    assert (tenant_problem(text), note_problem(text)) == (tenant, note)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(None, False), (NOON, True), (NOON - timedelta(seconds=1), True), (NOON + timedelta(seconds=1), False)],
)
def test_a_key_ends_at_its_time(ends: datetime | None, expected: bool) -> None:
    """At that moment it is not valid any more."""
    assert KEY._replace(ends=ends).has_ended(NOON) is expected
    assert KEY._replace(ends=ends).has_ended(NOON.astimezone(timezone(timedelta(hours=9)))) is expected


def test_a_key_without_origins_is_written_as_older_versions_read_it() -> None:
    """They refuse a member that they do not know."""
    (entry,) = json.loads(write_entries([KEY]))["keys"]
    assert "origins" not in entry
