"""Waiting for what a task, a thread or another process does in its own time: never for a time that it should have taken."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

TIMEOUT_S = 120


async def eventually(what: Callable[[], object] | Callable[[], Awaitable[object]], timeout_s: float = TIMEOUT_S) -> None:
    """Until what it says, or what its coroutine does, is true."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                said = what()
                if await said if inspect.isawaitable(said) else said:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {timeout_s} s")


def until(what: Callable[[], object], timeout_s: float = TIMEOUT_S) -> Any:
    """What it says, once that is true; it may raise httpx errors before."""
    deadline = time.monotonic() + timeout_s
    said: object = None
    while time.monotonic() < deadline:
        try:
            said = what()
        except httpx.HTTPError as error:
            said = error
        if said and not isinstance(said, Exception):
            return said
        time.sleep(0.1)
    pytest.fail(f"not within {timeout_s} s: {said!r}")
