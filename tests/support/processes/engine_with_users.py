"""The embedded engine with users that a file defines, in a process of its own: what each of them reads.

Its users can't be made by statements, since it keeps none (error 514), and nobody can log in to it. But a file of the server's
form can define them, with policies and grants, and a view with a definer reads as that user. `Reader` prepares and asks.

    python engine_with_users.py STORE CONFIG < statements in JSON > their answers in JSON
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from support.processes.commands import environment

ERROR = "error: "
_POLICY = re.compile(
    r"CREATE ROW POLICY OR REPLACE `.*` ON (?P<tables>.+) AS (?P<kind>\w+) FOR SELECT USING (?P<condition>.+) TO `"
)
_GRANT = re.compile(r"(?P<grant>GRANT SELECT .+) TO `")
_PROFILE = re.compile(r"ALTER SETTINGS PROFILE `\w+` SETTINGS (?P<settings>.+)")
_SETTING = re.compile(
    r"(?P<name>\w+) = (?P<value>'?[\w.]+'?)(?: MIN (?P<min>[\d.]+) MAX (?P<max>[\d.]+))?(?P<is_const> CONST)?(?:, |$)"
)


class Reader:
    """Asks the engine over one store, as users that have what statements of ours give them."""

    def __init__(
        self, store: Path, directory: Path, shared: Iterable[str], users: Mapping[str, Sequence[str]], profile: str = "default"
    ) -> None:
        """`shared`: the statements for all users; `users`: those of each, by a name that an XML element may have. `profile`: of
        who asks, `tenants` or `default`."""
        self._store = store
        self._config = directory / "config.xml"
        made = "".join(_user(name, statements) for name, statements in users.items())
        users_file = directory / "users.xml"
        users_file.write_text(
            f"<clickhouse><profiles><default/><tenants>{_profile(shared)}</tenants></profiles><quotas><default/></quotas><users>"
            f"<default><password/><networks><ip>::/0</ip></networks><profile>{profile}</profile><quota>default</quota>"
            f"<access_management>1</access_management></default>{made}</users></clickhouse>"
        )
        self._config.write_text(f"<clickhouse><users_config>{users_file}</users_config></clickhouse>")

    def ask(self, statements: Sequence[str]) -> list[str]:
        """Return the answers, tab-separated; of a statement that fails, ERROR and its message."""
        done = subprocess.run(
            [sys.executable, __file__, str(self._store), str(self._config)],
            env=environment(),
            input=json.dumps(statements),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: list[str] = json.loads(done.stdout)
        return answers


def _user(name: str, statements: Sequence[str]) -> str:
    grants = "".join(f"<query>{escape(found['grant'])}</query>" for found in filter(None, map(_GRANT.match, statements)))
    policies = [found for found in map(_POLICY.match, statements) if found is not None]
    by_kind = {
        kind: [found["tables"] + found["condition"] for found in policies if found["kind"] == kind]
        for kind in ("RESTRICTIVE", "PERMISSIVE")
    }
    # The file has permissive ones only.
    assert by_kind["RESTRICTIVE"] == by_kind["PERMISSIVE"] != []
    filters = {
        table.removeprefix("`default`."): found["condition"] for found in policies for table in found["tables"].split(", ")
    }
    made = "".join(f"<{table}><filter>{escape(condition)}</filter></{table}>" for table, condition in filters.items())
    return (
        f"<{name}><password/><networks><ip>::/0</ip></networks><profile>tenants</profile><quota>default</quota>"
        f"<grants>{grants}</grants><databases><default>{made}</default></databases></{name}>"
    )


def _profile(shared: Iterable[str]) -> str:
    (settings,) = (found["settings"] for found in map(_PROFILE.match, shared) if found is not None)
    found = list(_SETTING.finditer(settings))
    assert ", ".join(one[0].removesuffix(", ") for one in found) == settings
    values = "".join(f"<{one['name']}>{one['value'].strip(chr(39))}</{one['name']}>" for one in found)
    constraints = "".join(f"<{one['name']}>{_constraint(one)}</{one['name']}>" for one in found)
    return f"{values}<constraints>{constraints}</constraints>"


def _constraint(setting: re.Match[str]) -> str:
    if setting["is_const"]:
        return "<readonly/>"
    return f"<min>{setting['min']}</min><max>{setting['max']}</max>" if setting["min"] else ""


def main(store: str, config: str) -> None:
    import chdb  # in this process alone: an engine has its users from its first connection on

    engine = chdb.connect(f"{store}?config-file={config}")
    answers = []
    for statement in json.load(sys.stdin):
        try:
            answers.append(engine.query(statement, "TabSeparated").bytes().decode())
        except Exception as error:
            answers.append(f"{ERROR}{error}")
    engine.close()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
