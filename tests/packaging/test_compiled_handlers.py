""".ci/checks/compiled_handlers.py, which keeps out of compiled modules what corrupts memory there (ADR 0021)."""

import asyncio
import runpy
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECK = runpy.run_path(str(ROOT / ".ci/checks/compiled_handlers.py"))
findings: Callable[[str], list[Any]] = CHECK["findings"]

SUSPENDING = {
    "await": "await work()",
    "await in an expression": "total = 1 + len(await work())",
    "await in a condition": "if x:\n    while not await work():\n        pass",
    "async for": "async for item in work():\n    pass",
    "async with": "async with asyncio.timeout(1):\n    pass",
    "async comprehension": "items = [item async for item in work()]",
    "yield": "yield 1",
    "yield from": "yield from work()",
    "a nested try": "try:\n    await work()\nexcept KeyError:\n    pass",
}


def lines(source: str) -> list[int]:
    return [finding.line for finding in findings(dedent(source))]


def within(block: str, statements: str) -> str:
    """A coroutine whose try statement ends with `block`."""
    keyword = "def" if "yield from" in statements else "async def"
    return f"{keyword} run():\n    try:\n        work()\n    {block}:\n{indent(statements, ' ' * 8)}\n"


@pytest.mark.parametrize("statements", SUSPENDING.values(), ids=SUSPENDING.keys())
@pytest.mark.parametrize("block", ["except BaseException", "except KeyError as error", "except* KeyError"])
def test_a_handler_that_suspends_is_found(block: str, statements: str) -> None:
    """Whatever suspends in a handler is found, however deep it is."""
    assert lines(within(block, statements))


@pytest.mark.parametrize("statements", SUSPENDING.values(), ids=SUSPENDING.keys())
def test_a_finally_that_suspends_is_found(statements: str) -> None:
    """Whatever suspends in a `finally` is found."""
    assert lines(within("finally", statements))


@pytest.mark.parametrize("manager", ["lock", "asyncio.Lock()", "asyncio.timeout(1), client.session()", "asyncio.TaskGroup()"])
def test_an_async_context_manager_whose_exit_may_suspend_is_found(manager: str) -> None:
    """An `async with` calls its exit while it handles the exception: only exits that are known not to suspend may be used."""
    assert [2] == lines(f"async def run():\n    async with {manager}:\n        pass\n")


def test_what_suspends_after_a_handler_is_not_found() -> None:
    """The way to write it: keep the exception, leave the handler, then await and raise."""
    assert [] == lines("""
        async def run():
            failure = None
            try:
                async with asyncio.timeout(1):
                    await work()
            except BaseException as error:
                failure = error
            finally:
                close()
            if failure is not None:
                await undo()
                raise failure
        """)


def test_a_function_that_a_handler_defines_has_a_frame_of_its_own() -> None:
    """It is not run where it is defined; but its own handlers are checked."""
    assert [9] == lines("""
        async def run():
            try:
                work()
            except KeyError:
                async def later():
                    await work()
                    try: pass
                    finally: await work()
        """)


def test_one_name_for_exceptions_of_different_types_is_found() -> None:
    """It is found in one try statement or in two; the same type under one name is fine."""
    assert [7, 11] == lines("""
        def run():
            try:
                work()
            except Refused as error:
                tell(error)
            except Exception as error:
                tell(error)
            try:
                work()
            except (KeyError, Refused) as error:
                tell(error)
            except Refused as refused:
                tell(refused)
            try:
                work()
            except Refused as refused:
                tell(refused)
        """)


async def test_the_exit_of_a_timeout_never_suspends() -> None:
    """What the check permits in `async with` returns from its exit at once, with an exception and without."""
    permitted = {"asyncio.timeout": asyncio.timeout(10), "asyncio.timeout_at": asyncio.timeout_at(10)}
    assert CHECK["EXITS_AT_ONCE"] == permitted.keys()
    for manager in permitted.values():
        await manager.__aenter__()
        leaving = manager.__aexit__(KeyError, KeyError("x"), None)
        with pytest.raises(StopIteration):
            leaving.send(None)


def test_every_compiled_module_is_checked() -> None:
    """What setup.py compiles is what is checked, and nothing is found there."""
    modules = CHECK["compiled_modules"]()
    assert {ROOT / "collector/ingest/pipeline.py", ROOT / "collector/broker/kafka/producer.py"} <= set(modules)
    assert 0 == CHECK["main"]()
