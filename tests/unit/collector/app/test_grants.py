"""`schema grants`: for whom statements are made, and when they are run."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collector.app import grants
from collector.app.grants import RequestedGrants
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError, StoreMisconfigured
from collector.tenancy import keys
from collector.tenancy.scopes import Scope

NOW = datetime.now(UTC)
WANTED = RequestedGrants(None, (), None, (), False, "tenant_")


class Server:
    """Remembers the statements that were run; `users` are there before."""

    def __init__(self, *users: str, failing: str = "\0", is_refused: bool = False) -> None:
        self.is_refused = is_refused
        self.users = users
        self.failing = failing
        self.ran: list[str] = []

    def read(self, sql: str, format_: str) -> bytes:
        assert "startsWith(name, 'tenant_')" in sql
        assert format_ == "JSONCompactColumns"
        if self.is_refused:
            raise StoreError("no")
        return json.dumps([[list(self.users)]]).encode()

    def administer(self, statement: str) -> None:
        if self.failing in statement:
            raise StoreMisconfigured("no")
        self.ran.append(statement)

    def close(self) -> None:
        """Nothing is open."""


Use = Callable[[Server], Server]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    def use_(server: Server) -> Server:
        monkeypatch.setattr(grants, "open_server", lambda _: server)
        return server

    return use_


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With keys of four tenants, one of which has ended."""
    path = tmp_path / "keys.json"
    for tenant, scope in (("acme", Scope.INGEST), ("beta", Scope.WRITE), ("beta", Scope.READONLY), ("boss", Scope.ADMIN)):
        keys.create(path, tenant=tenant, scope=scope, plan="Free", note="", origins=(), now=NOW)
    ended = keys.create(path, tenant="gone", scope=Scope.WRITE, plan="Free", note="", origins=(), now=NOW)
    keys.end(path, ended.key.id, at=NOW - timedelta(seconds=1), now=NOW)
    given = {"data_dir": tmp_path, "clickhouse": {"url": "http://127.0.0.1:1", "user": "writer", "database": "telemetry"}}
    return Settings.model_validate(given)


def passwords(directory: Path, given: Mapping[str, str]) -> Path:
    file = directory / "passwords.json"
    file.write_text(json.dumps(given))
    return file


def test_tenants_with_a_key_in_force_get_users(settings: Settings) -> None:
    """Ended keys and administrators get none. The collector's user goes on reading every row."""
    text = grants.text(settings, WANTED._replace(all_rows=("report",)))
    assert ["acme", "beta"] == [line.split('"')[1] for line in text.splitlines() if line.startswith("-- tenant ")]
    assert "USING 1 TO `writer`, `report`;" in text
    assert "ON `telemetry`.otel_logs, " in text


def test_no_tenant_is_an_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "keys.json").unlink()
    with pytest.raises(CannotRun, match=r"keys\.json"):
        grants.text(settings, WANTED)
    keys.create(tmp_path / "keys.json", tenant="boss", scope=Scope.ADMIN, plan="Free", note="", origins=(), now=NOW)
    with pytest.raises(CannotRun, match="has no valid key except administrators' keys; name tenants by --tenant"):
        grants.text(settings, WANTED)


def test_no_password_is_printed(settings: Settings, tmp_path: Path, use: Use) -> None:
    """Neither with the statements nor of what was done; and without one, the statement is none that a server takes."""
    wanted = WANTED._replace(passwords=passwords(tmp_path, {"acme": "hunter2", "beta": "hunter3"}))
    use(Server())
    assert "hunter" not in grants.text(settings, wanted) + grants.apply(settings, wanted)
    assert grants.text(settings, wanted).count(" SALT '") == 4
    assert grants.text(settings, WANTED).count("sha256_hash BY 'SHA256-OF-THE-PASSWORD'") == 2


def test_a_new_user_needs_a_password(settings: Settings, tmp_path: Path, use: Use) -> None:
    """It is needed before any statement is run. An existing user keeps its password, and gets what is new."""
    server = use(Server("tenant_acme"))
    with pytest.raises(CannotRun, match=r'no password for the new users of "beta": .*Nothing was changed'):
        grants.apply(settings, WANTED)
    assert [] == server.ran
    done = grants.apply(settings, WANTED._replace(passwords=passwords(tmp_path, {"beta": "hunter2"})))
    assert 'changed user "tenant_acme" for tenant "acme"\nmade user "tenant_beta" for tenant "beta"' == done
    users = [statement.split(" DEFAULT ")[0] for statement in server.ran if " USER " in statement]
    assert "ALTER USER `tenant_acme`" == users[0]
    assert ["CREATE USER IF NOT EXISTS `tenant_beta`", "ALTER USER `tenant_beta`"] == [
        user.split(" IDENTIFIED WITH sha256_hash BY '")[0] for user in users[1:]
    ]


def test_a_tenant_is_removed(settings: Settings, use: Use) -> None:
    """The name is given, and nothing else is done. An ordinary run names users whose tenant is not in the keys file."""
    server = use(Server("tenant_acme", "tenant_beta", "tenant_gone"))
    stray = 'user "tenant_gone" has no tenant in the keys file; --remove TENANT removes one'
    assert stray == grants.apply(settings, WANTED).splitlines()[-1]
    server.ran.clear()
    assert 'removed user "tenant_gone"' == grants.apply(settings, WANTED._replace(removed=("gone",)))
    assert ["DROP USER", "DROP ROW", "DROP ROW"] == [" ".join(statement.split()[:2]) for statement in server.ran]
    assert grants.text(settings, WANTED._replace(removed=("gone",))).count(";") == 3


def test_a_statement_that_fails_ends_the_run(settings: Settings, use: Use) -> None:
    """No grant comes after a policy that could not be made."""
    server = use(Server("tenant_acme", "tenant_beta", failing="PERMISSIVE FOR SELECT USING TenantId"))
    with pytest.raises(CannotRun, match="no; what was done until then stays, and `schema grants` may be run again"):
        grants.apply(settings, WANTED)
    assert [] == [statement for statement in server.ran if statement.startswith("GRANT")]


def test_a_user_who_reads_every_row_is_no_tenants(settings: Settings) -> None:
    """The collector's own user must not become readonly."""
    for wanted in (WANTED._replace(user_prefix="wri"), WANTED._replace(all_rows=("tenant_x",))):
        with pytest.raises(CannotRun, match="--user-prefix"):
            grants.text(settings, wanted)


def test_who_may_not_see_users_is_named(settings: Settings, use: Use) -> None:
    """The error has the page that lists the grants, and nothing is run."""
    server = use(Server(is_refused=True))
    with pytest.raises(CannotRun, match=r'user "writer" can\'t see which users there are: no; docs/operate/tenants\.md'):
        grants.apply(settings, WANTED)
    assert [] == server.ran


def test_the_embedded_engine_has_no_users(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="the embedded engine has no users"):
        grants.apply(Settings(data_dir=tmp_path), WANTED)


@pytest.mark.parametrize("content", [None, b"\xff", b"[1]", b'{"acme": ""}', b'{"acme": 1}', b"[" * 100_000])
def test_a_file_of_passwords_that_is_none(settings: Settings, tmp_path: Path, content: bytes | None) -> None:
    """Is named, and nothing of it is repeated."""
    file = tmp_path / "passwords"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CannotRun, match=r"--passwords: .*passwords") as refused:
        grants.text(settings, WANTED._replace(passwords=file))
    assert len(str(refused.value)) < 300
