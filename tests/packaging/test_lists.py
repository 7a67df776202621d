"""Every list is written once: its members are in one module, which the others import.

A member alone is no copy: a message may name it. Two members in one literal collection, or a member as a name's value, are.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from pydantic import BaseModel

from adapters.errors import REASON
from collector.broker.contract import SIGNAL_TOPICS, TOPICS
from collector.config.settings import Settings
from collector.ingest import endpoints
from collector.receivers import encodings, rpc_codes
from collector.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]


class List(NamedTuple):
    """A list, the module that has it, and the modules that may have some of its words, each with the reason."""

    members: frozenset[str]
    home: str
    others: dict[str, str]
    """Modules whose collections have other things that are called the same."""
    is_bound_to_home: bool = False
    """Whether not even one member may be written elsewhere."""


_ROUTES = frozenset(value for name, value in vars(endpoints).items() if name.isupper())
_ENCODINGS = frozenset(name.decode() for name in {**encodings.HTTP, **encodings.GRPC}) | set(encodings.HTTP.values())
_METRICS = frozenset(described.name for described in Metrics().described)

LISTS: Final = {
    "google.rpc codes": List(frozenset(rpc_codes.NAMES), "collector/receivers/rpc_codes.py", {}),
    "content encodings": List(
        _ENCODINGS - {""},
        "collector/receivers/encodings.py",
        {
            "collector/api/clickhouse/frames.py": "the encodings of answers, and the order in which they are preferred",
            "collector/broker/kafka/options.py": "compression in Kafka, which has other methods: a type",
            "collector/broker/kafka/protocol/produce.py": "compression in Kafka, which has other methods: their numbers",
            "collector/config/broker.py": "compression in Kafka, which has other methods: a type",
        },
    ),
    "signals": List(
        frozenset(SIGNAL_TOPICS),
        "collector/broker/contract.py",
        {
            "collector/app/generate.py": "a type, and a statement for each",
            "collector/app/top.py": "the signals in the words of the screen",
            "collector/ingest/request_fingerprints.py": "names of settings: each signal has one",
        },
    ),
    "topics": List(frozenset(TOPICS), "collector/broker/contract.py", {}, is_bound_to_home=True),
    "routes": List(
        _ROUTES,
        "collector/ingest/endpoints.py",
        {
            "adapters/native/members.py": "what answers name: adapters import nothing of the collector",
            "collector/api/batch_pages.py": "an example in the documentation of an answer",
        },
        is_bound_to_home=True,
    ),
    "reasons": List(
        frozenset(reason.name for reason in REASON.values()) - {"internal", "overloaded", "not_found"},
        "adapters/errors.py",
        {
            "collector/api/app.py": "examples in the documentation of answers",
            "collector/api/batch_pages.py": "an example in the documentation of an answer",
            "collector/api/dead_letter_pages.py": "an example in the documentation of an answer",
            "collector/app/top.py": "the metric repaired",
            "collector/telemetry/metrics.py": "the metric store_refused",
        },
        is_bound_to_home=True,
    ),
    "metrics": List(
        _METRICS | {name.removesuffix("_total") for name in _METRICS},
        "collector/telemetry/metrics.py",
        {
            "collector/api/web/overview.py": "the metrics that the overview page shows",
            "collector/app/page_client.py": "the metric by which a collector is recognized",
            "collector/app/top.py": "the metrics that the screen shows",
            "collector/telemetry/aggregate.py": "the metrics of several processes that are not added up",
            "collector/telemetry/tenant_ranking.py": "the metrics that have a tenant",
            "collector/telemetry/tenant_usage.py": "the metrics that a usage report has",
        },
        is_bound_to_home=True,
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_written_once(name: str) -> None:
    """No other module has two members of a list in one collection; of some lists, not even one member as a whole string."""
    list_ = LISTS[name]
    assert len(list_.members) > 2
    copies = {where for where in _copies(list_) if where.partition(":")[0] not in {list_.home, *list_.others}}
    assert set() == copies, f"{name} are in {list_.home}: import them from there"


@pytest.mark.parametrize("name", LISTS)
def test_a_copy_is_found(name: str) -> None:
    """The home has the list, and each exception has some of it: else it is none any more."""
    list_ = LISTS[name]
    found = {where.partition(":")[0] for where in _copies(list_)}
    home = set() if name == "metrics" else {list_.home}  # which puts the prefix before its names
    assert home | set(list_.others) <= found


def test_every_setting_that_a_text_names_exists() -> None:
    """A message or a docstring that names a setting of a section names one that is there."""
    sections: dict[str, set[str]] = {
        name: set(field.annotation.model_fields)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    named = re.compile(rf"\b({'|'.join(sections)})\.([a-z]+_[a-z_]*[a-z])\b(?![(.])")
    found, wrong = 0, set()
    for path, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for section, key in named.findall(node.value):
                    found += 1
                    if key not in sections[section]:
                        wrong.add(f"{path}:{node.lineno} {section}.{key}")
    assert set() == wrong
    assert found > 50


def _copies(list_: List) -> Iterator[str]:
    for path, tree in _modules():
        for node in ast.walk(tree):
            if list_.is_bound_to_home and isinstance(node, ast.Constant) and _text(node) in list_.members:
                yield f"{path}:{node.lineno}"
            if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
                elements = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
                if len({_text(element) for element in elements} & list_.members) > 1:
                    yield f"{path}:{node.lineno}"


def _text(node: ast.AST | None) -> str:
    if not isinstance(node, ast.Constant):
        return ""
    return node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)


@cache
def _modules() -> list[tuple[str, ast.Module]]:
    paths = [path for folder in ("adapters", "collector") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))) for path in paths]
