"""What this package knows of aiokafka's private parts is listed, and is as it was when the package was written."""

import ast
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from collector.broker.kafka.aiokafka_names import PRIVATE_NAMES

PACKAGE = Path(__file__).parents[5] / "collector/broker/kafka"
CLIENT = "aiokafka.client.AIOKafkaClient"
# Of NamedTuples, and of this package's own classes in their own modules.
OWN = {"_replace", "_owned"}


def test_the_names_mean_what_they_meant() -> None:
    """A name that is gone, or whose code has changed, has to be looked at."""
    found = {owner: {name: digest(owner, name) for name in names} for owner, names in PRIVATE_NAMES.items()}
    assert PRIVATE_NAMES == found


def test_every_private_name_that_is_used_is_listed() -> None:
    """Those of other objects, and those that Client has from AIOKafkaClient."""
    of_objects = {
        node.attr
        for tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) not in ("self", "super()")
    }
    client = next(
        node for tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Client"
    )
    of_client = {node.attr for node in ast.walk(client) if isinstance(node, ast.Attribute) and is_private(node.attr)}
    of_client |= {node.name for node in ast.walk(client) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    inherited = {name for name in of_client if is_private(name) and code(CLIENT, name)}
    assert {name for names in PRIVATE_NAMES.values() for name in names} == (of_objects - OWN) | inherited


def digest(owner: str, name: str) -> str:
    source = "\n".join(line.strip() for part in code(owner, name) for line in part.splitlines() if line.strip())
    return hashlib.sha256(source.encode()).hexdigest()[:12] if source else "gone"


def code(owner: str, name: str) -> list[str]:
    """The method of that name, or each statement that sets the attribute."""
    module, _, class_ = owner.rpartition(".")
    source = textwrap.dedent(inspect.getsource(getattr(importlib.import_module(module), class_)))
    parts: list[str | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            parts.append(ast.get_source_segment(source, node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr == name for each in targets for target in ast.walk(each)):
                parts.append(ast.get_source_segment(source, node))
    return [part for part in parts if part is not None]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def modules() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(path.read_text("utf-8"))
