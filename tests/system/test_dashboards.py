"""Dashboards and alerts ask for what there is: metrics and labels of the running program, tables and columns of its store."""

import importlib.util
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from support.processes.program import Program, require_peer
from support.processes.prometheus import FEATURES, prometheus
from support.waiting import until

from collector.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

# What Prometheus itself adds to each series, or a rule makes.
TARGET_LABELS = {"job", "instance", "signal"}
# Of Prometheus' own.
OF_PROMETHEUS = {"up"}
VARIABLES = (("$__rate_interval", "5m"), ("$job", ".*"))


def generator() -> Any:
    """deploy/grafana/generate.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("generate_dashboards", DEPLOY / "grafana" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query of each dashboard, and where it is."""
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target


def test_the_files_are_what_the_generator_makes() -> None:
    """Each panel has a title, a description, a unit or a table, and a query."""
    for path, text in generator().made().items():
        assert text == path.read_text(), f"run {DEPLOY / 'grafana' / 'generate.py'}"
        for panel in json.loads(text)["panels"]:
            assert panel["title"]
            assert panel["description"]
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "table"


def test_every_promql_names_only_metrics_and_labels_that_exist(program: Program, tmp_path: Path) -> None:
    """Dashboards and alerts are parsed as by Prometheus: the program shows each metric, with each label."""
    shown = {
        name: family.type
        for family in text_string_to_metric_families(httpx.get(f"{program.http}/metrics").text)
        for name in _names(family.name, family.type)
    }
    labels = {
        name: set(each.labels) for each in Metrics().described for name in _names(each.name.removesuffix("_total"), each.type)
    }
    asked = {where: target["expr"] for where, target in ((f"{w} {t['refId']}", t) for w, t in targets() if "expr" in t)}
    rules = YAML(typ="safe", pure=True).load((DEPLOY / "prometheus" / "rules.yaml").read_text())
    asked |= {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    assert len(asked) > 60
    command = require_peer("prometheus", knows=FEATURES)
    with prometheus(command, tmp_path, "global: {scrape_interval: 1h}\n"):
        found = until(lambda: re.search(r"Listening on.*address=(127[\d.:]+)", (tmp_path / "prometheus.log").read_text()))
        for where, expr in asked.items():
            query = reduce(lambda text, variable: text.replace(*variable), VARIABLES, expr)
            answer = httpx.post(f"http://{found[1]}/api/v1/parse_query", data={"query": query}).json()
            assert answer["status"] == "success", (where, expr, answer)
            selected = list(_selected(answer["data"]))
            assert selected, f"{where}: it asks for no metric"
            for name, used in selected:
                assert name in shown or name in OF_PROMETHEUS, f"{where}: there is no {name}"
                has = labels.get(name, set()) | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())
                assert used <= has, f"{where}: {name} has no label {used - has}"


def all_value(variable: str) -> str:
    """What "All" is in a query of the dashboard Store: its own value, which Grafana inserts as it is."""
    templating = json.loads((DEPLOY / "grafana" / "dashboards" / "store.json").read_text())["templating"]["list"]
    (value,) = [each["allValue"] for each in templating if each["name"] == variable]
    return str(value)


def test_all_tenants_are_more_than_the_list_has(program: Program) -> None:
    """Grafana would make "All" of the names that the variable's query answers with, which has a limit."""
    assert re.search(r"LIMIT \d+$", generator().TENANTS)
    asked = 0
    for where, target in targets():
        for condition in re.findall(r"\(TenantId IN [^)]*\)[^)]*\)\)", target.get("rawSql", "")):
            asked += 1
            for tenants, expected in ((all_value("tenant"), [0, 1, 2]), ("'1'", [1]), ("'2','x'", [2])):
                filled = condition.replace("${tenant:singlequote}", tenants)
                rows = program.query(
                    f"SELECT number FROM (SELECT number, toString(number) AS TenantId FROM numbers(3)) WHERE {filled}"
                )
                assert [int(row["number"]) for row in rows] == expected, where
    assert asked > 8
    every = [target["rawSql"] for _, target in targets() if "tenant" in target.get("rawSql", "")]
    assert all("${tenant" not in re.sub(r"\(TenantId IN [^)]*\)[^)]*\)\)", "", sql) for sql in every)


def _names(name: str, type_: str) -> list[str]:
    """Of a metric's samples."""
    if type_ == "histogram":
        return [f"{name}_bucket", f"{name}_count", f"{name}_sum"]
    return [f"{name}_total"] if type_ == "counter" else [name]


def _selected(node: Any, grouped: frozenset[str] = frozenset()) -> Iterator[tuple[str, set[str]]]:
    """Each selector of a parsed query: its metric, and the labels that it selects, those that it is grouped by too."""
    if isinstance(node, list):
        for each in node:
            yield from _selected(each, grouped)
    elif isinstance(node, dict):
        if node.get("type") in ("vectorSelector", "matrixSelector"):
            matched = {matcher["name"] for matcher in node["matchers"]} - {"__name__"}
            yield node["name"], matched | grouped
        elif node.get("type") == "aggregation":
            yield from _selected(node["expr"], grouped | frozenset(node["grouping"]))
        else:
            for value in node.values():
                yield from _selected(value, grouped)


def test_every_sql_runs_on_the_schema(program: Program) -> None:
    """Macros and variables are filled in as by Grafana's plugin, for one tenant, for some, for all, and with text that has a
    quote."""
    sqls = {where: target["rawSql"] for where, target in targets() if "rawSql" in target}
    sqls["store: variable tenant"] = generator().TENANTS
    assert len(sqls) > 8
    record = {"service_id": "dash", "type": "log", "body": "it's a line", "timestamp": datetime.now(UTC).isoformat()}
    assert httpx.post(f"{program.http}/api/v1/telemetry", json=record).status_code == 200
    for tenants, text in (("'anonymous'", "'it''s'"), ("'a','anonymous'", "''"), (all_value("tenant"), "''")):
        for where, sql in sqls.items():
            filled = re.sub(
                r"\$__timeFilter\((\w+)\)",
                r"\1 >= toDateTime64(now() - 3600, 3) AND \1 <= toDateTime64(now() + 60, 3)",
                sql.replace("${tenant:singlequote}", tenants).replace("${text:sqlstring}", text),
            )
            assert "$" not in filled, where
            rows = program.query(filled)
            if where == "store: Recent logs":
                assert "it's a line" in [row["Body"] for row in rows]
