"""The real command, but it kills itself (SIGKILL) at a chosen step of the writer or the log: `crashing.py STEP CALL serve …`.

What random kills hit once in a long while, the moment between an insert and its commit above all, this hits each time.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from collector.broker.contract import Message, Range
from collector.broker.local_log import LocalLog
from collector.cli.main import main

STEPS = ("durable", "intended", "inserted", "committed")


class CrashingLog(LocalLog):
    """Dies at the given call of a step: `durable` is after an append, `inserted` before a commit."""

    step = ""
    calls_left = 0

    async def append(self, messages: Sequence[Message]) -> None:
        await super().append(messages)
        self._reach("durable")

    async def intend(self, messages: Range) -> None:
        await super().intend(messages)
        self._reach("intended")

    async def commit(self, messages: Range) -> None:
        self._reach("inserted")
        await super().commit(messages)
        self._reach("committed")

    @classmethod
    def _reach(cls, step: str) -> None:
        if step == cls.step:
            cls.calls_left -= 1
            if cls.calls_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    CrashingLog.step, CrashingLog.calls_left = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    # One part for another: what the composition root is for.
    setattr(importlib.import_module("collector.app.storage"), "LocalLog", CrashingLog)  # noqa: B010  # it exports no such name
    main()
