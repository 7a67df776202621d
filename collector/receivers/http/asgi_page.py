"""The part that pages over HTTP/1.1 and HTTP/2 share: an ASGI application's request, and the order of its messages.

Invariants:
1. An application receives one request, and then that its client has disconnected (test_a_page_hears_that_nobody_waits).
2. An application that takes no bodies receives none. If another does not read a body, at most BODY_BYTES_MAX and one piece of
   it are kept (test_a_body_that_the_application_does_not_read_is_held_back).
3. A message out of turn raises in the application, and is never sent (test_a_message_out_of_turn_is_not_sent).
"""

import asyncio
from collections import deque
from typing import Any, Final

from starlette.types import Message, Scope

BODY_BYTES_MAX: Final = 64 * 1024


class AsgiPage:
    """A request for a page. The application calls `_receive`, and each message that it sends goes through `_body_of`.

    The connection calls `feed` with each piece of the body, and then `end_body`, or `disconnected`.
    """

    def __init__(self, scope: Scope, *, is_head: bool, takes_body: bool) -> None:
        """If `takes_body`, the application receives the body; otherwise it receives an empty body at once."""
        self._scope: Final = scope
        self._is_head: Final = is_head
        self._start: Message | None = None
        self._is_begun = False
        self._is_over = False
        self._pieces: Final[deque[bytes]] = deque()
        self._body_bytes = 0  # of the pieces
        self._is_body_whole = not takes_body
        self._has_heard_all = False
        self._is_gone = False
        self._happened: Final = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Return whether more of the body should wait until the application has read some."""
        return self._body_bytes > BODY_BYTES_MAX

    @property
    def takes_more(self) -> bool:
        """Return whether the application may read more of the body."""
        return not (self._is_body_whole or self._is_over)

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if self.takes_more:
            self._pieces.append(piece)
            self._body_bytes += len(piece)
            self._happened.set()

    def end_body(self) -> None:
        """Note that the body is whole."""
        self._is_body_whole = True
        self._happened.set()

    def disconnected(self) -> None:
        """Report to the application that no client waits for the page any more."""
        self._is_gone = True
        self._happened.set()

    def _on_read(self, size_bytes: int) -> None:
        """Handle that the application has read `size_bytes` of the body."""

    async def _receive(self) -> Message:
        while not self._is_gone:
            if self._pieces or (self._is_body_whole and not self._has_heard_all):
                body = b"".join(self._pieces)
                self._pieces.clear()
                self._body_bytes = 0
                self._has_heard_all = self._is_body_whole
                if body:
                    self._on_read(len(body))
                return {"type": "http.request", "body": body, "more_body": not self._has_heard_all}
            self._happened.clear()
            await self._happened.wait()
        return {"type": "http.disconnect"}

    def _end(self) -> None:
        """End the page, since the application has returned: drop the pieces that it did not read."""
        self._is_over = True
        self._pieces.clear()
        self._body_bytes = 0

    def _body_of(self, message: Message) -> tuple[Message, bytes, bool] | None:
        """Return the start of the answer, this part of its body, and whether it is the last part; None for the start itself.

        Raises RuntimeError if the application may not send that message now.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return None
        if self._start is None or self._is_over:
            raise RuntimeError(f"{message['type']} is out of turn")
        body: Any = b"" if self._is_head else message.get("body", b"")
        return self._start, body, not message.get("more_body", False)
