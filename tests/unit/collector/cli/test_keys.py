"""The keys commands as their users meet them."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.processes.program import environment
from typer.testing import CliRunner, Result

from collector.cli.main import app
from collector.tenancy import key_format, keys
from collector.tenancy.scopes import Scope

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("INFRASAGE_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments], input=typed)


def create(*more: str, tenant: str = "acme", scope: str = "ingest", plan: str = "Pro") -> str:
    """The key."""
    done = invoke("create", "--tenant", tenant, "--scope", scope, "--plan", plan, *more)
    assert done.exit_code == 0, done.stderr
    return done.stdout.removesuffix("\n")


def listed() -> list[dict[str, Any]]:
    done = invoke("list", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_new_key_is_alone_on_standard_output(tmp_path: Path) -> None:
    """A script takes it with $(…); what it is, and that it can't be had again, is on standard error, without the key."""
    done = invoke("create", "--tenant", "acme", "--scope", "ingest", "--plan", "Pro", "--note", "checkout")
    assert done.exit_code == 0
    assert re.fullmatch(r"isage_[0-9A-Za-z]{57}\n", done.stdout)
    key = done.stdout.strip()
    key_id = key_format.id_of(key)
    assert done.stderr == (
        f"key {key_id}: tenant acme, scope ingest, plan Pro; in data/keys.json\n"
        "It can't be shown again. Send it as X-API-Key: KEY, or as Authorization: Bearer KEY.\n"
    )
    (kept,) = keys.list_keys(tmp_path / "data" / "keys.json")
    assert (kept.id, kept.tenant, kept.scope, kept.plan, kept.note) == (key_id, "acme", Scope.INGEST, "Pro", "checkout")
    assert kept.sha256 == key_format.sha256_of(key)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "data/keys.json"),
        (["--data-dir", "d"], "d/keys.json"),
        (["--keys-file", "k/k.json"], "k/k.json"),
        (["--keys-file", "k/k.json", "--data-dir", "d"], "k/k.json"),
        (["--config", "c.toml"], "c/keys"),
    ],
)
def test_the_file_is_where_the_settings_say(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """All commands find the same one."""
    (tmp_path / "c.toml").write_text('[tenants]\nkeys_file = "c/keys"')
    key_id = key_format.id_of(create(*arguments))
    assert (tmp_path / expected).is_file()
    assert key_id in invoke("list", *arguments).stdout
    assert invoke("rotate", key_id, *arguments).exit_code == 0
    assert invoke("revoke", key_id, *arguments).exit_code == 0
    assert len(keys.list_keys(tmp_path / expected)) == 2


def test_plans_of_the_settings_are_known(tmp_path: Path) -> None:
    """They are known beside the built-in ones."""
    (tmp_path / "c.toml").write_text("[plans.Gold]\nrequests_per_s = 5\n")
    create("--config", "c.toml", plan="Gold")
    assert [key["plan"] for key in listed()] == ["Gold"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--plan", "Gold"], 'error: --plan: there is no plan "Gold" in the settings; there are Free, Pro, Unlimited'),
        (["--plan", "free"], 'error: --plan: there is no plan "free" in the settings'),
        (["--scope", "owner"], "error: --scope must be one of ingest, readonly, write, admin, not 'owner'"),
        (["--tenant", ""], 'error: --tenant: "" is empty'),
        (["--tenant", " acme"], 'error: --tenant: " acme" begins or ends with a space'),
        (["--tenant", "a\x1b[1mb"], 'error: --tenant: "a\\u001b[1mb" has a character that can\'t be printed: U+001B'),
        (["--tenant", "x" * 129], "has 129 characters; at most 128 are allowed"),
        (["--note", "x\ny"], 'error: --note: "x\\ny" has a character that can\'t be printed: U+000A'),
        (["--config", "nowhere.toml"], "error: cannot read the configuration file nowhere.toml"),
    ],
)
def test_what_is_asked_for_wrongly_is_status_2(tmp_path: Path, changed: list[str], said: str) -> None:
    """The mistake is named; nothing is made."""
    done = invoke("create", "--tenant", "acme", "--scope", "ingest", "--plan", "Pro", *changed)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["--tenant", "--scope", "--plan"])
def test_a_key_is_somebodys(missing: str) -> None:
    """Tenant, scope and plan have to be given: none of them has a default that would be right for all."""
    given = {"--tenant": "acme", "--scope": "ingest", "--plan": "Pro"}
    del given[missing]
    done = invoke("create", *(part for pair in given.items() for part in pair))
    assert done.exit_code == 2
    assert missing in done.stderr


def test_a_list_has_no_secrets() -> None:
    """Neither the table nor the JSON: no key, no hash; but all that tells keys apart."""
    made = [create("--note", "checkout"), create(tenant="日本", scope="admin", plan="Unlimited")]
    table = invoke("list")
    as_json = invoke("list", "--json")
    for text in (table.stdout, as_json.stdout):
        for key in made:
            assert key_format.id_of(key) in text
            assert key[14:30] not in text
            assert key_format.sha256_of(key)[:16] not in text
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["ID", "TENANT", "SCOPE", "PLAN", "CREATED", "STATE", "NOTE"]
    assert re.fullmatch(rf"{key_format.id_of(made[0])}  acme    ingest  Pro        {TIME}  active  checkout", lines[1])
    # Two columns of a terminal a character.
    assert re.fullmatch(rf"{key_format.id_of(made[1])}  日本    admin   Unlimited  {TIME}  active", lines[2])
    first = json.loads(as_json.stdout)[0]
    assert re.fullmatch(TIME, first.pop("created"))
    assert first == {
        "id": key_format.id_of(made[0]),
        "tenant": "acme",
        "scope": "ingest",
        "plan": "Pro",
        "ends": None,
        "state": "active",
        "note": "checkout",
        "origins": [],
    }


@pytest.mark.parametrize("by", ["id", "key", "standard input"])
def test_a_key_is_revoked(by: str) -> None:
    """It is revoked by its id or by the whole of it, which need not be on the command line, and has ended from then on."""
    key, other = create(), create()
    key_id = key_format.id_of(key)
    wanted = {"id": key_id, "key": key, "standard input": "-"}[by]
    done = invoke("revoke", wanted, typed=f"{key}\n")
    assert (done.exit_code, done.stdout) == (0, "")
    assert re.fullmatch(rf"key {key_id} of tenant acme has ended {TIME}\n", done.stderr)
    assert {entry["id"]: entry["state"] for entry in listed()} == {key_id: "ended", key_format.id_of(other): "active"}
    again = invoke("revoke", key_id)
    assert again.exit_code == 0
    assert re.fullmatch(rf"key {key_id} of tenant acme had ended {TIME} already\n", again.stderr)


def test_a_key_is_rotated() -> None:
    """The new one has the old one's tenant, scope, plan and note, and is alone on standard output; the old one has ended."""
    old = key_format.id_of(create("--note", "n", tenant="globex", scope="write"))
    done = invoke("rotate", old)
    assert done.exit_code == 0
    new = key_format.id_of(done.stdout.removesuffix("\n"))
    assert re.fullmatch(
        rf"key {new}: tenant globex, scope write, plan Pro; in data/keys.json\nIt can't be shown again\..*\n"
        rf"The old key, {old}, has ended {TIME}\.\n",
        done.stderr,
    )
    assert [(key["id"], key["state"]) for key in listed()] == [(old, "ended"), (new, "active")]
    kept = [{name: key[name] for name in ("tenant", "scope", "plan", "note")} for key in listed()]
    assert kept[0] == kept[1]
    again = invoke("rotate", old)
    assert (again.exit_code, again.stdout) == (1, "")
    assert re.match(rf"error: key {old} of tenant globex ended {TIME}: `keys create` makes another\n", again.stderr)


def test_an_old_key_may_be_kept_for_a_while(tmp_path: Path) -> None:
    """It is kept until senders have the new one; the output says until when."""
    old = key_format.id_of(create())
    before = datetime.now(UTC).replace(microsecond=0)
    done = invoke("rotate", old, "--keep-old-s", "3600")
    assert re.search(rf"The old key, {old}, is active until {TIME}\.", done.stderr)
    kept = keys.find(tmp_path / "data" / "keys.json", old)
    assert kept.ends is not None
    assert timedelta(hours=1) <= kept.ends - before < timedelta(hours=1, minutes=5)
    assert f"active until {kept.ends:%Y-%m-%dT%H:%M:%SZ}" in invoke("list").stdout
    assert invoke("rotate", old, "--keep-old-s", "-1").exit_code == 2


def test_a_key_on_a_plan_that_is_gone_is_not_rotated(tmp_path: Path) -> None:
    """The new one would make gateways refuse the file; but it can be revoked."""
    (tmp_path / "c.toml").write_text("[plans.Gold]\nrequests_per_s = 5\n")
    old = key_format.id_of(create("--config", "c.toml", plan="Gold"))
    done = invoke("rotate", old)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f'error: key {old} of tenant acme: there is no plan "Gold" in the settings' in done.stderr
    assert invoke("revoke", old).exit_code == 0


@pytest.mark.parametrize("command", ["revoke", "rotate"])
@pytest.mark.parametrize(
    ("wanted", "typed", "said"),
    [
        ("00000000", None, 'error: there is no key "00000000" in data/keys.json; `keys list` shows those that there are\n'),
        ("-", "", 'error: there is no key "" in'),
        ("-", "x" * 10_000, 'error: there is no key "xxx'),
        ("isage_short", None, "error: this is not a valid key; it may be mistyped or cut: it has 11 characters"),
    ],
)
def test_a_key_that_is_not_there_is_status_1(command: str, wanted: str, typed: str | None, said: str) -> None:
    """One line, and nothing has changed."""
    create()
    before = listed()
    done = invoke(command, wanted, typed=typed)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert listed() == before


def test_without_a_file_there_is_nothing_to_list(tmp_path: Path) -> None:
    """A wrong directory is not taken for one without keys, and nothing is made in it."""
    for arguments in (["list"], ["revoke", "00000000"], ["rotate", "00000000"]):
        done = invoke(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "error: there is no keys file data/keys.json: `keys create` makes it;"
            " choose another with --keys-file or --data-dir\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named() -> None:
    """Every command names the entry."""
    create()
    file = Path("data/keys.json")
    file.write_text(file.read_text().replace('"ingest"', '"owner"'))
    for arguments in (
        ["list"],
        ["revoke", "x"],
        ["rotate", "x"],
        ["create", "--tenant", "t", "--scope", "write", "--plan", "Pro"],
    ):
        done = invoke(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.match(r'error: the keys file \S+ is broken: keys\[0\] \(id "\w{8}"\): there is no scope "owner"', done.stderr)


@pytest.mark.parametrize("command", ["create", "rotate"])
def test_a_key_that_can_not_be_shown_is_not_left_in_force(tmp_path: Path, command: str) -> None:
    """Standard output is full: the new key was revoked, and the old one goes on."""
    old = key_format.id_of(create())
    arguments = {"create": ["--tenant", "t", "--scope", "write", "--plan", "Pro"], "rotate": [old]}[command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "collector", "keys", command, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "error: cannot write the new key to standard output: No space left on device;"
        " it was revoked again, and nothing else has changed\n"
    )
    assert [(key["id"] == old, key["state"]) for key in listed()] == [(True, "active"), (False, "ended")]


def test_standard_output_and_error_are_apart(tmp_path: Path) -> None:
    """A script sees them apart, with the real command. A key from standard input is in no process list."""

    def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "collector", "keys", *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            input=typed,
            text=True,
            check=True,
        )

    created = run("create", "--tenant", "acme", "--scope", "ingest", "--plan", "Free")
    key = created.stdout.removesuffix("\n")
    assert key_format.id_of(key) in created.stderr
    assert key not in created.stderr
    rotated = run("rotate", "-", typed=created.stdout)
    assert key_format.id_of(rotated.stdout.removesuffix("\n")) != key_format.id_of(key)


def test_a_key_for_pages_has_their_origins() -> None:
    """It is listed with them, a key that replaces it has them too, and what is no origin is refused in one line."""
    done = invoke(
        *("create", "--tenant", "acme", "--scope", "ingest", "--plan", "Pro"),
        *("--origin", "https://*.example.com", "--origin", "http://localhost:*"),
    )
    assert "plan Pro, only from pages of https://*.example.com, http://localhost:*; in" in done.stderr
    assert invoke("rotate", "-", typed=done.stdout).exit_code == 0
    assert [["https://*.example.com", "http://localhost:*"]] * 2 == [key["origins"] for key in listed()]
    for scope, origin, said in (
        ("ingest", "example.com", 'error: --origin: origins have "example.com", which is no origin: write https://'),
        ("write", "https://example.com", "error: --origin: origins are for keys of scope ingest"),
    ):
        refused = invoke("create", "--tenant", "a", "--scope", scope, "--plan", "Pro", "--origin", origin)
        assert (2, "") == (refused.exit_code, refused.stdout)
        assert refused.stderr.startswith(said)
        assert 1 == refused.stderr.count("\n")
