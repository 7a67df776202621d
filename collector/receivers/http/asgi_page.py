"""What pages over HTTP/1.1 and HTTP/2 share: the request that an ASGI application hears, and the order of its messages.

Invariants:
1. An application hears one request without a body, and then that its client is gone (test_a_page_hears_that_nobody_waits).
2. A message out of turn raises in the application, and is never sent (test_a_message_out_of_turn_is_not_sent).
"""

import asyncio
from typing import Any, Final

from starlette.types import Message, Scope


class AsgiPage:
    """One request without a body. `_receive` is the application's, and each message that it sends goes through `_body_of`."""

    def __init__(self, scope: Scope, is_head: bool) -> None:
        self._scope: Final = scope
        self._is_head: Final = is_head
        self._start: Message | None = None
        self._is_begun = False
        self._is_over = False
        self._has_asked = False
        self._gone: Final = asyncio.Event()

    def hang_up(self) -> None:
        """Tell the application that nobody waits for the page any more."""
        self._gone.set()

    async def _receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def _body_of(self, message: Message) -> tuple[Message, bytes, bool] | None:
        """Return the start of the answer, this part of its body, and whether it is the last part; None for the start itself.

        Raises RuntimeError where the application may not send that message now.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return None
        if self._start is None or self._is_over:
            raise RuntimeError(f"{message['type']} is out of turn")
        body: Any = b"" if self._is_head else message.get("body", b"")
        return self._start, body, not message.get("more_body", False)
