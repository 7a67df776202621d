"""Checks the handlers of exceptions in compiled modules. ADR 0021 has the reasons and the minimal example.

A coroutine or generator that mypyc compiles keeps the exception that it handles in the state of the thread, not in its own.
When it suspends there, other tasks see that exception and replace it. A later `raise` then raises another task's exception or
`None`, which corrupts memory.

A name that handlers of one function share has the type of the first. If a handler binds an exception of another type to it,
TypeError is raised instead.

Usage: `python .ci/checks/compiled_handlers.py`, from the project's root. Exit status 1: something was found.

Invariants, each held by tests/packaging/test_compiled_handlers.py:
1. No handler (`except`) and no `finally` awaits, yields or iterates asynchronously.
   test_a_handler_that_suspends_is_found, test_a_finally_that_suspends_is_found
2. `async with` enters only context managers whose exit never suspends.
   test_an_async_context_manager_whose_exit_may_suspend_is_found, test_the_exit_of_a_timeout_never_suspends
3. Handlers of one function that bind exceptions of different types use different names.
   test_one_name_for_exceptions_of_different_types_is_found
4. Every module of setup.py's `COMPILED` is checked. test_every_compiled_module_is_checked
"""

import ast
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

# Context managers whose `__aexit__` returns without a suspension.
EXITS_AT_ONCE = frozenset({"asyncio.timeout", "asyncio.timeout_at"})

_SUSPENDS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
_OTHER_FRAMES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class Finding(NamedTuple):
    """A place in the code that has to change."""

    line: int
    reason: str


def findings(source: str) -> list[Finding]:
    """Return the findings in the source of one module, by line."""
    found: set[Finding] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try | ast.TryStar):
            for handler in node.handlers:
                found.update(Finding(line, "suspends in an except block") for line in _suspensions(handler.body))
            found.update(Finding(line, "suspends in a finally block") for line in _suspensions(node.finalbody))
        elif isinstance(node, ast.AsyncWith):
            for item in node.items:
                name = ast.unparse(item.context_expr.func) if isinstance(item.context_expr, ast.Call) else ""
                if name not in EXITS_AT_ONCE:
                    found.add(Finding(node.lineno, f"async with {ast.unparse(item.context_expr)}: its exit may suspend"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(_shared_names(node))
    return sorted(found)


def compiled_modules() -> list[Path]:
    """Return the source files that setup.py compiles."""
    names: list[str] = runpy.run_path(str(ROOT / "setup.py"))["COMPILED"]
    return [ROOT / name for name in names]


def _shared_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Finding]:
    """Yield the handlers that bind an exception to a name that an earlier handler binds to another type."""
    types: dict[str, str] = {}
    handlers = [node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler) and node.name and node.type]
    for handler in sorted(handlers, key=lambda each: each.lineno):
        assert handler.name is not None
        assert handler.type is not None
        type_ = ast.unparse(handler.type)
        if types.setdefault(handler.name, type_) != type_:
            yield Finding(handler.lineno, f"binds {type_} to {handler.name}, which has type {types[handler.name]}")


def _suspensions(statements: Iterable[ast.stmt]) -> Iterator[int]:
    """Yield the lines that suspend this frame. A function that is defined here has its own frame, and is left out."""
    pending: list[ast.AST] = list(statements)
    while pending:
        node = pending.pop()
        if isinstance(node, _OTHER_FRAMES):
            continue
        if isinstance(node, _SUSPENDS):
            yield node.lineno
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield node.iter.lineno
        pending.extend(ast.iter_child_nodes(node))


def main() -> int:
    """Print what was found, one finding a line. Return the exit status."""
    found = 0
    for path in compiled_modules():
        for finding in findings(path.read_text()):
            found += 1
            print(f"{path.relative_to(ROOT)}:{finding.line}: {finding.reason} (ADR 0021)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
