"""Lets large bodies of a tenant wait for each other when the budget has no room for all of them at once.

A body that is coming in is held back: over HTTP/2 by its stream's window, over HTTP/1.1 because its connection is not read. So
no honest client is refused. A body that is whole waits until there is probably room for the memory that it will need.

Invariants:
1. Above a quarter of a tenant's share, only one of its large bodies may come in, except for bytes that open windows of others
   still allow. The next one follows when that body is whole or gone (tests/unit/collector/ingest/test_room.py,
   test_beyond_a_quarter_one_body_goes_on). Above a half, no body begins to come in while whole bodies are at work (the same,
   test_beyond_a_half_whole_bodies_come_first).
2. A body without progress loses its place (the same, test_a_body_that_does_not_get_on_loses_its_place). If none becomes whole
   and none is at work, waiting bodies are released, so that bodies that no client ends do not delay others (the same,
   test_who_waits_for_nothing_but_clients_is_held_back_no_more).
3. If whole bodies wait, at least one is at work (the same, test_whole_bodies_wait_for_what_others_become).
4. Tenants wait for each other, in turns, only if the whole budget is nearly used, and one of them always goes on (the same,
   test_tenants_wait_for_each_other_where_the_budget_is_nearly_used, test_tenants_go_on_in_turns).
5. No body is held back for longer than _WAIT_FACTOR times its timeout in all; the client's timeout does not include that time
   (tests/unit/collector/receivers/test_http2_bodies.py and http/test_http1_bodies.py, test_no_body_waits_for_ever).
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from mypy_extensions import i64

# Eighths of a tenant's share, and of the whole budget, up to which no body waits.
_FREE: Final = 2
_FREE_OF_ALL: Final = 6
# Eighths up to which a tenant's first body comes in while its whole bodies, or many bytes of any tenant, are at work.
_BUSY: Final = 4
_BUSY_OF_ALL: Final = 6
# If whole bodies will need less than this part (1/32) of the whole budget, no body waits for them.
_BUSY_PART: Final = 32
# Eighths of the whole budget that may be held when the first bodies of several tenants are whole.
_FIRSTS_OF_ALL: Final = 7
# How much a body that may go on can send before the next check.
_STEP_BYTES: Final = 64 << 10
# The bytes that the first body must bring between two checks, 0.5 s apart. After _LOOKS_MAX failures it loses its place.
_PROGRESS_BYTES: Final = 64 << 10
_LOOKS_MAX: Final = 2
# If no body becomes whole and none is at work, no body waits for longer than this.
_STUCK_S: Final = 5.0
_OPEN_S: Final = 60.0
# A body waits in all for at most this many times its timeout.
_WAIT_FACTOR: Final = 4
# A body that needs no more than this passes larger bodies that wait, if there is room for it.
_PASSING_BYTES: Final = 1 << 20


class HeldBytes:
    """The bytes of requests that are in memory, and their limit."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max: Final = bytes_max
        self.bytes_held: int = 0

    def is_below(self, eighths: int, more_bytes: int) -> bool:
        """Return whether it would hold at most that part if `more_bytes` were added."""
        return 8 * (self.bytes_held + more_bytes) <= eighths * self.bytes_max

    def fits(self, more_bytes: int) -> bool:
        """Return whether `more_bytes` may be added."""
        return self.bytes_held + more_bytes <= self.bytes_max


class ComingBody:
    """A large body that is not yet whole. It knows for how long it was held back."""

    def __init__(self, resume: Callable[[], None], announced_bytes: int = 0) -> None:
        """`resume` is called when the body may go on after it was held back. `announced_bytes` is its size; 0 if unknown."""
        self.is_held_back: bool = False
        self.is_free: bool = False
        """Whether it has waited long enough, and is not held back any more."""
        self.received_bytes: i64 = 0
        self.granted_bytes: i64 = 0  # that its client may send without being held back
        self._resume: Final = resume
        self._announced_bytes: Final = announced_bytes
        self.held_since: float = 0.0
        """The loop's time."""
        self._waited_s: float = 0.0  # before `held_since`
        self._seen_bytes: i64 = 0
        self._idle_looks: i64 = 0

    def rest_bytes(self) -> int:
        """Return the number of bytes still to come; if the size is unknown, the number that has come."""
        received_bytes = int(self.received_bytes)
        return max(0, self._announced_bytes - received_bytes) if self._announced_bytes else received_bytes

    def hold_back(self, now: float) -> None:
        """Hold the body back. `now` is the loop's time."""
        if not self.is_held_back:
            self.is_held_back = True
            self.held_since = now

    def resume(self) -> None:
        """Let the body go on, if it was held back."""
        if self.is_held_back:
            self.is_held_back = False
            self._waited_s += asyncio.get_running_loop().time() - self.held_since
            self._resume()

    def waited_s(self, now: float) -> float:
        """Return for how long it was held back in all. `now` is the loop's time."""
        return self._waited_s + now - self.held_since if self.is_held_back else self._waited_s

    def is_progressing(self) -> bool:
        """Return whether enough of it has come in the last checks. Call it at each check."""
        if self.received_bytes - self._seen_bytes >= _PROGRESS_BYTES:
            self._idle_looks = 0
        else:
            self._idle_looks += 1
        self._seen_bytes = self.received_bytes
        return self._idle_looks < _LOOKS_MAX

    def begin_checks(self) -> None:
        """Check its progress from now on."""
        self._seen_bytes = self.received_bytes
        self._idle_looks = 0


class WholeBody:
    """A large body that is whole. `growth_bytes` is the memory that it may need in addition to its own size."""

    def __init__(self, growth_bytes: int) -> None:
        self.growth_bytes: int = growth_bytes
        self.is_at_work: bool = False
        self.waiting: asyncio.Future[None] | None = None


class Rooms:
    """The state that the rooms of all tenants share. Used by one event loop, so it has no locks."""

    def __init__(self, held: HeldBytes) -> None:
        """`held` has the bytes of all tenants."""
        self.held: Final = held
        self.granted_bytes: i64 = 0
        self.growth_bytes: i64 = 0
        self.at_work: i64 = 0
        self.firsts: Final[dict[ComingBody, None]] = {}  # the bodies that go on beyond the part up to which all may
        self.progressed_at: float = 0.0  # the loop's time when one of `firsts` was whole or gone, or a large body was answered
        self.is_waited_for: bool = False
        """Whether to call `wake_soon` when bytes are released."""
        self._waiting: Final[dict[Room, None]] = {}  # the room whose turn is next comes first
        self._is_wake_due: bool = False

    def is_busy(self) -> bool:
        """Return whether the whole bodies at work are large enough to wait for. Small bodies are at work all the time."""
        return _BUSY_PART * int(self.growth_bytes) > self.held.bytes_max

    def wait(self, room: "Room") -> None:
        """Note that a body of that room waits."""
        self._waiting[room] = None
        self.is_waited_for = True

    def wake_soon(self) -> None:
        """Check soon which bodies may go on, since bytes were released."""
        if not self._is_wake_due and self.is_waited_for:
            self._is_wake_due = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_wake_due = False
        rooms = list(self._waiting)
        begun = [room.wake_whole() for room in rooms]  # first of all rooms, since bodies that come in wait for whole ones
        for room, has_begun in zip(rooms, begun, strict=True):
            has_gone_on = room.wake_coming()
            if has_begun or has_gone_on or not room.is_waited_for:
                del self._waiting[room]
                if room.is_waited_for:
                    self._waiting[room] = None  # behind the others
        self.is_waited_for = bool(self._waiting)


class Room:
    """Decides which large bodies of one tenant go on, and which wait."""

    def __init__(self, share: HeldBytes, rooms: Rooms) -> None:
        """`share` has the bytes that the tenant holds. `rooms` is the state of all tenants."""
        self._share: Final = share
        self._rooms: Final = rooms
        self._first: ComingBody | None = None
        self._granted_bytes: i64 = 0  # to all bodies that go on
        self._open_until: float = 0.0  # the loop's time until which no body is held back
        self._coming: Final[dict[ComingBody, None]] = {}  # the bodies that are held back, the oldest first
        self._whole: Final[dict[WholeBody, None]] = {}  # the whole bodies that wait, the oldest first
        self._at_work: i64 = 0
        self._progressed_at: float = 0.0  # the loop's time when the first body was whole or gone, or a whole one was answered
        self._has_lost: bool = False  # whether a body has lost its place since then
        self._growth_bytes: i64 = 0  # of the bodies at work

    @property
    def is_waited_for(self) -> bool:
        """Return whether a body waits."""
        return bool(self._coming or self._whole)

    # Bodies that come in.

    def admits(self, body: ComingBody) -> bool:
        """Return whether more of a body may come in. If not, it is held back until it may go on."""
        if body.is_free or body is self._first or self._is_below(0, _FREE, _FREE_OF_ALL):
            return True
        now = asyncio.get_running_loop().time()
        if self._open_until > now:
            return True
        if not self._coming and self._may_be_first(body):
            self._set_first(body)
            return True
        self._coming[body] = None
        self._rooms.wait(self)
        body.hold_back(now)
        return False

    def grant(self, body: ComingBody, size_bytes: i64) -> None:
        """Note that the body's client may send `size_bytes` now."""
        self._granted_bytes += size_bytes - body.granted_bytes
        self._rooms.granted_bytes += size_bytes - body.granted_bytes
        body.granted_bytes = size_bytes

    def may_widen(self, body: ComingBody, window_bytes: int) -> bool:
        """Return whether the body's client may be granted `window_bytes` at once."""
        return body is self._first or self._is_below(window_bytes, _FREE, _FREE_OF_ALL)

    def remove(self, body: ComingBody) -> None:
        """Note that a body is whole, or gone, or that no more of it is needed. Any further bytes of it may pass."""
        self.grant(body, 0)
        self._coming.pop(body, None)
        if body is self._first:
            self._clear_first()
            self._note_progress()
            self._rooms.progressed_at = self._progressed_at
            self._rooms.wake_soon()
        body.resume()

    def check(self, body: ComingBody, now: float, timeout_s: float) -> float:
        """Let others pass a body without progress, and end a wait that is too long. Called twice a second. Return for how long
        the body was held back. `now` is the loop's time; `timeout_s` is the client's timeout, which excludes that wait."""
        waited_s = body.waited_s(now)
        if not body.is_held_back:
            self._check_progress(body)
        elif waited_s > _WAIT_FACTOR * timeout_s:
            self._free(body)
        elif now - max(body.held_since, self._stalled_since()) > _STUCK_S:
            self._open(now)
        return waited_s

    # Bodies that are whole.

    async def begin(self, body: WholeBody, timeout_s: float) -> None:
        """Wait until the memory that the body may need fits, but no longer than `timeout_s`."""
        if (self._whole and body.growth_bytes > _PASSING_BYTES) or not self._fits(body):
            waiting = asyncio.get_running_loop().create_future()
            body.waiting = waiting
            self._whole[body] = None
            self._rooms.wait(self)
            try:
                await asyncio.wait([waiting], timeout=timeout_s)
            finally:
                self._whole.pop(body, None)
        if not body.is_at_work:
            self._work(body)

    def expect(self, body: WholeBody, growth_bytes: int) -> None:
        """Note that a body at work may still need `growth_bytes`."""
        if body.is_at_work:
            self._growth_bytes += growth_bytes - body.growth_bytes
            self._rooms.growth_bytes += growth_bytes - body.growth_bytes
            body.growth_bytes = growth_bytes
            self._rooms.wake_soon()

    def end(self, body: WholeBody) -> None:
        """Note that the body's request is answered."""
        if body.is_at_work:
            body.is_at_work = False
            self._at_work -= 1
            self._growth_bytes -= body.growth_bytes
            self._rooms.at_work -= 1
            self._rooms.growth_bytes -= body.growth_bytes
            self._note_progress()
            if body.growth_bytes > _PASSING_BYTES:
                self._rooms.progressed_at = self._progressed_at
            self._rooms.wake_soon()

    # Both.

    def wake_whole(self) -> bool:
        """Begin the whole bodies that fit. Return whether any did."""
        has_begun = False
        for whole in list(self._whole):
            if not self._fits(whole):
                break
            del self._whole[whole]
            self._work(whole)
            has_begun = True
            waiting = whole.waiting
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        return has_begun

    def wake_coming(self) -> bool:
        """Let the held back bodies go on that may. Return whether any did."""
        has_gone_on = False
        given_bytes = 0
        for body in list(self._coming):
            if self._is_below(given_bytes, _FREE, _FREE_OF_ALL):
                given_bytes += _STEP_BYTES
            elif self._may_be_first(body):
                self._set_first(body)
            else:
                break
            self._coming.pop(body, None)
            body.resume()
            has_gone_on = True
        return has_gone_on

    def _check_progress(self, body: ComingBody) -> None:
        if not body.is_progressing():
            self.grant(body, 0)  # the client may never use its grant
            if self._rooms.is_waited_for:
                if body is self._first:
                    self._clear_first()
                    self._has_lost = True
                self._rooms.wake_soon()

    def _note_progress(self) -> None:
        self._has_lost = False
        self._progressed_at = asyncio.get_running_loop().time()

    def _stalled_since(self) -> float:
        """Return since when waiting bodies wait only for clients, by the loop's time; infinity if they wait for work. If none
        of the tenant's own bodies goes on, they wait for those of others."""
        if self._first is None:
            return inf if self._rooms.is_busy() else self._rooms.progressed_at
        return inf if self._at_work else self._progressed_at

    def _free(self, body: ComingBody) -> None:
        """Hold the body back no more."""
        body.is_free = True
        self._coming.pop(body, None)
        body.resume()

    def _open(self, now: float) -> None:
        """Hold no body back for a while: waiting bodies block those that may go on, or no client means to end its body.

        A proxy that reads a client's streams in one order, with small buffers, causes the former."""
        self._open_until = now + _OPEN_S
        coming = list(self._coming)
        self._coming.clear()
        for body in coming:
            body.resume()

    def _may_be_first(self, body: ComingBody) -> bool:
        """Return whether a body may go on beyond the part up to which all may: not if whole bodies already use enough."""
        rooms = self._rooms
        granted_bytes = int(rooms.granted_bytes)
        if (
            self._first is not None
            or (self._at_work and not self._share.is_below(_BUSY, int(self._granted_bytes)))
            or (rooms.is_busy() and not rooms.held.is_below(_BUSY_OF_ALL, granted_bytes))
        ):
            return False
        if not rooms.firsts:
            return True
        rest_bytes = body.rest_bytes() + sum([first.rest_bytes() for first in rooms.firsts])
        return rooms.held.is_below(_FIRSTS_OF_ALL, granted_bytes + rest_bytes)

    def _set_first(self, body: ComingBody) -> None:
        self._first = body
        self._rooms.firsts[body] = None
        if not self._has_lost:
            self._progressed_at = max(self._progressed_at, self._rooms.progressed_at)  # it waited for other tenants until now
        body.begin_checks()

    def _clear_first(self) -> None:
        if self._first is not None:
            del self._rooms.firsts[self._first]
            self._first = None

    def _work(self, body: WholeBody) -> None:
        body.is_at_work = True
        self._at_work += 1
        self._growth_bytes += body.growth_bytes
        self._rooms.at_work += 1
        self._rooms.growth_bytes += body.growth_bytes

    def _is_below(self, more_bytes: int, eighths: int, eighths_of_all: int) -> bool:
        rooms = self._rooms
        return self._share.is_below(eighths, more_bytes + int(self._granted_bytes)) and rooms.held.is_below(
            eighths_of_all, more_bytes + int(rooms.granted_bytes)
        )

    def _fits(self, body: WholeBody) -> bool:
        if self._at_work and not self._share.fits(int(self._growth_bytes) + body.growth_bytes):
            return False
        rooms = self._rooms
        # The memory that others may need does not delay a small body.
        is_small = not self._at_work and body.growth_bytes <= _PASSING_BYTES
        others_bytes = 0 if is_small else int(rooms.growth_bytes)
        return not rooms.at_work or rooms.held.fits(others_bytes + body.growth_bytes)
