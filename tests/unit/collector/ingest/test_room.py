"""collector/ingest/room.py: who of a tenant's large requests waits for whom."""

import asyncio
from functools import partial

from collector.ingest.produce import InFlight, InFlightShare
from collector.ingest.room import ComingBody, Room, WholeBody

SHARE_BYTES = 400_000
TIMEOUT_S = 30.0


class Bodies:
    """Some that come, and how often each was let go on."""

    def __init__(self, number: int, size_bytes: int = 0) -> None:
        """`size_bytes`: as it was announced."""
        self.resumed = [0] * number
        self.all = [ComingBody(partial(self._resumed, n), size_bytes) for n in range(number)]

    def _resumed(self, number: int) -> None:
        self.resumed[number] += 1

    def admitted_by(self, room: Room) -> list[bool]:
        return [room.admits(body) for body in self.all]


def share_of(held_bytes: int, all_bytes_max: int = 2 * SHARE_BYTES) -> InFlightShare:
    share = InFlight(all_bytes_max, SHARE_BYTES).share("acme")
    share.reserve(held_bytes)
    return share


def look(room: Room, body: ComingBody, seconds: float = 0.0) -> float:
    """By when it is that many seconds later."""
    return room.check(body, asyncio.get_running_loop().time() + seconds, TIMEOUT_S)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_up_to_a_quarter_nobody_waits() -> None:
    room = share_of(SHARE_BYTES // 4).room
    assert all(Bodies(10).admitted_by(room))


async def test_beyond_a_quarter_one_body_goes_on() -> None:
    """The oldest; the next one when that is whole, and all once there is room."""
    share = share_of(SHARE_BYTES // 4 + 1)
    room = share.room
    bodies = Bodies(7)
    body = bodies.all
    assert bodies.admitted_by(room) == [True] + 6 * [False]
    assert room.admits(body[0])
    room.remove(body[0])
    await turns()
    assert bodies.resumed == [0, 1, 0, 0, 0, 0, 0]
    room.remove(body[2])  # gone, and none that was first
    room.remove(body[1])
    await turns()
    assert bodies.resumed == [0, 1, 1, 1, 0, 0, 0]
    share.release(SHARE_BYTES // 4 + 1)
    await turns()
    assert bodies.resumed == [0, 1, 1, 1, 1, 1, 0]  # 64 KiB are expected of each
    room.remove(body[3])
    await turns()
    assert bodies.resumed == [0, 1, 1, 1, 1, 1, 1]
    assert not room.is_waited_for


async def test_what_others_hold_counts_too() -> None:
    """It counts beyond three quarters of what there is for all."""
    in_flight = InFlight(2 * SHARE_BYTES, SHARE_BYTES)
    in_flight.share("one").reserve(SHARE_BYTES)
    in_flight.share("two").reserve(SHARE_BYTES // 2 + 1)
    room = in_flight.share("acme").room
    assert Bodies(3).admitted_by(room) == [True, False, False]


async def test_tenants_wait_for_each_other_where_the_budget_is_nearly_used() -> None:
    """With what those that go on still bring, seven eighths of it are full."""
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    hogs = [in_flight.share(f"hog {n}") for n in range(4)]
    for hog in hogs:
        hog.reserve(SHARE_BYTES * 13 // 16)
    size = SHARE_BYTES // 12  # up to there a quarter of a share is left
    rooms = [in_flight.share(f"tenant {n}").room for n in range(4)]
    bodies = [Bodies(2, size) for _ in rooms]
    admitted = [some.admitted_by(room) for room, some in zip(rooms, bodies, strict=True)]
    assert admitted == 3 * [[True, False]] + [[False, False]]
    bodies[0].all[0].received_bytes = size
    hogs[0].reserve(size)
    await turns()
    assert bodies[3].resumed == [0, 0]
    hogs[0].release(size)
    await turns()
    assert bodies[3].resumed == [1, 0]
    hogs[1].release(SHARE_BYTES * 13 // 16)
    await turns()
    assert [some.resumed for some in bodies] == [[0, 1], [0, 1], [0, 1], [1, 1]]
    assert not in_flight.rooms.is_waited_for
    for room, some in zip(rooms, bodies, strict=True):
        for body in some.all:
            room.remove(body)
    hogs[2].reserve(SHARE_BYTES // 8)
    hogs[1].reserve(SHARE_BYTES)  # however little is left, one goes on
    assert [Bodies(2).admitted_by(room) for room in rooms] == [[True, False], *3 * [[False, False]]]


async def test_where_the_budget_is_nearly_used_whole_bodies_of_others_come_first() -> None:
    """They come first beyond three quarters of it."""
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    for hog in range(4):
        in_flight.share(f"hog {hog}").reserve(SHARE_BYTES * 3 // 4)
    one, two = in_flight.share("one").room, in_flight.share("two").room
    small, large = WholeBody(SHARE_BYTES // 8), WholeBody(1)
    await one.begin(small, 60)
    bodies = Bodies(2)
    two.grant(bodies.all[0], 1)
    assert bodies.admitted_by(two) == [True, False]  # little is worth no waiting
    await one.begin(large, 60)
    two.remove(bodies.all[0])
    two.grant(bodies.all[1], 1)
    await turns()
    assert bodies.resumed == [0, 0]
    one.end(large)
    await turns()
    assert bodies.resumed == [0, 1]


async def test_whole_bodies_that_begin_are_waited_for_at_once() -> None:
    """Bodies of tenants that have waited for longer wait for them."""
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    hogs = [in_flight.share(f"hog {hog}") for hog in range(4)]
    for hog in hogs:
        hog.reserve(SHARE_BYTES * 3 // 4)
    one, two = in_flight.share("one").room, in_flight.share("two").room
    at_work, waits = WholeBody(3 * SHARE_BYTES), WholeBody(2 * SHARE_BYTES)
    await one.begin(at_work, 60)
    bodies = Bodies(1)
    two.grant(bodies.all[0], 1)
    assert bodies.admitted_by(two) == [False]
    waiting = asyncio.create_task(one.begin(waits, 60))
    await turns()
    one.end(at_work)
    await turns()
    assert waiting.done()
    assert bodies.resumed == [0]
    one.end(waits)
    await turns()
    assert bodies.resumed == [1]


async def test_a_body_of_unknown_size_may_bring_as_much_again() -> None:
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    for hog in range(4):
        in_flight.share(f"hog {hog}").reserve(SHARE_BYTES * 13 // 16)
    one, two = in_flight.share("one").room, in_flight.share("two").room
    (going,), (other,) = Bodies(1).all, Bodies(1).all
    assert one.admits(going)
    going.received_bytes = SHARE_BYTES // 4 + 1
    assert not two.admits(other)
    two.remove(other)
    going.received_bytes -= 1
    assert two.admits(other)


async def test_tenants_go_on_in_turns() -> None:
    """One body of each, whatever the others have."""
    in_flight = InFlight(4 * SHARE_BYTES, 2 * SHARE_BYTES)
    for hog in range(2):
        in_flight.share(f"hog {hog}").reserve(2 * SHARE_BYTES - 10)
    rooms = [in_flight.share(f"tenant {n}").room for n in range(3)]
    bodies = [Bodies(3) for _ in rooms]
    order: list[tuple[int, int]] = []
    for room, some in zip(rooms, bodies, strict=True):
        some.admitted_by(room)
    going = (0, 0)
    for _ in range(8):
        tenant, number = going
        rooms[tenant].remove(bodies[tenant].all[number])
        await turns()
        (going,) = [(t, n) for t in range(3) for n in range(3) if bodies[t].resumed[n] and (t, n) not in [*order, (0, 0)]]
        order.append(going)
    assert [tenant for tenant, _ in order] == [0, 1, 2, 0, 1, 2, 1, 2]


async def test_whole_bodies_wait_for_what_those_of_others_become() -> None:
    """Small ones do not wait, and one is always at work."""
    in_flight = InFlight(32 << 20, 32 << 20)
    one, two = in_flight.share("one").room, in_flight.share("two").room
    huge = WholeBody(40 << 20)
    await asyncio.wait_for(one.begin(huge, 60), 10)
    waiting = asyncio.create_task(two.begin(WholeBody(2 << 20), 60))
    await asyncio.wait_for(two.begin(small := WholeBody(1 << 20), 60), 10)
    two.end(small)
    await turns()
    assert not waiting.done()
    one.expect(huge, 20 << 20)
    await asyncio.wait_for(waiting, 10)
    one.end(huge)


async def test_beyond_a_half_whole_bodies_come_first() -> None:
    """A body that has begun to go on still does."""
    share = share_of(SHARE_BYTES // 2)
    room = share.room
    at_work = WholeBody(10)
    await room.begin(at_work, 60)
    bodies = Bodies(3)
    assert bodies.admitted_by(room) == [True, False, False]
    share.reserve(1)
    assert room.admits(bodies.all[0])
    room.remove(bodies.all[0])
    await turns()
    assert bodies.resumed == [0, 0, 0]
    room.end(at_work)
    await turns()
    assert bodies.resumed == [0, 1, 0]


async def test_a_body_that_does_not_get_on_loses_its_place() -> None:
    """It loses it only if others wait, and not before the second look."""
    room = share_of(SHARE_BYTES // 2).room
    bodies = Bodies(2)
    slow, other = bodies.all
    assert room.admits(slow)
    for _ in range(5):
        look(room, slow)
    assert room.admits(slow)
    assert not room.admits(other)
    slow.begin_checks()
    for _ in range(5):
        slow.received_bytes += 65_536
        look(room, slow)
        look(room, other)
    await turns()
    assert bodies.resumed[1] == 0
    look(room, slow)
    await turns()
    assert bodies.resumed[1] == 0
    look(room, slow)
    await turns()
    assert bodies.resumed[1] == 1
    assert not room.admits(slow)
    room.remove(other)
    await turns()
    assert bodies.resumed[0] == 1


async def test_what_clients_may_send_counts() -> None:
    """They count as long as they come: what is granted to a body that makes no progress holds back no others."""
    room = share_of(0).room
    slow, other = Bodies(2).all
    assert room.admits(slow)
    assert room.may_widen(slow, SHARE_BYTES // 4)
    assert not room.may_widen(slow, SHARE_BYTES // 4 + 1)
    room.grant(slow, SHARE_BYTES // 4)
    room.grant(slow, SHARE_BYTES // 4 + 1)
    assert room.admits(slow)  # as the first
    assert room.may_widen(slow, SHARE_BYTES)
    assert not room.admits(other)
    look(room, slow)
    assert not room.admits(other)
    look(room, slow)
    assert room.admits(other)
    room.grant(slow, 100)
    room.remove(slow)
    assert room.may_widen(other, SHARE_BYTES // 4)


async def test_who_waits_for_nothing_but_clients_is_held_back_no_more() -> None:
    """Nobody else is, either, for a minute."""
    room = share_of(SHARE_BYTES // 2).room
    bodies = Bodies(3)
    assert bodies.admitted_by(room) == [True, False, False]
    other = bodies.all[1]
    assert 4 <= look(room, other, 4) < 5
    assert bodies.resumed == [0, 0, 0]
    at_work = WholeBody(1)
    await room.begin(at_work, 60)
    look(room, other, 100)
    room.end(at_work)
    assert bodies.resumed == [0, 0, 0]
    look(room, other, 4)  # something has just become whole
    assert bodies.resumed == [0, 0, 0]
    look(room, other, 6)
    assert bodies.resumed == [0, 1, 1]
    assert bodies.admitted_by(room) == [True, True, True]


async def test_who_waits_for_other_tenants_is_held_back_while_they_get_on() -> None:
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    for hog in range(4):
        in_flight.share(f"hog {hog}").reserve(SHARE_BYTES * 7 // 8 + 1)
    one, two = in_flight.share("one").room, in_flight.share("two").room
    own, others = Bodies(2), Bodies(1)
    assert others.admitted_by(two) == [True]
    assert own.admitted_by(one) == [False, False]
    now = asyncio.get_running_loop().time()
    for body in own.all:
        body.held_since = now - 100
    two.remove(others.all[0])
    one.check(own.all[0], now + 4, TIMEOUT_S)
    assert own.resumed == [0, 0]
    await turns()
    assert own.resumed == [1, 0]
    one.check(own.all[1], now + 4, TIMEOUT_S)
    assert own.resumed == [1, 0]
    one.check(own.all[1], now + 6, TIMEOUT_S)
    assert own.resumed == [1, 1]


async def test_others_that_get_on_keep_no_room_shut_whose_own_bodies_do_not() -> None:
    """Each of these loses its place, while another tenant's bodies become whole."""
    in_flight = InFlight(4 * SHARE_BYTES, SHARE_BYTES)
    share = in_flight.share("one")
    share.reserve(SHARE_BYTES // 2)
    one, two = share.room, in_flight.share("two").room
    bodies = Bodies(4)
    assert bodies.admitted_by(one) == [True, False, False, False]
    now = asyncio.get_running_loop().time()
    for going in bodies.all[:2]:
        for _ in range(2):
            one.check(going, now, TIMEOUT_S)
        await turns()
        (other,) = Bodies(1).all
        two.grant(other, SHARE_BYTES // 4 + 1)
        assert two.admits(other)
        two.remove(other)
    assert bodies.resumed == [0, 1, 1, 0]
    bodies.all[3].held_since = now - 100
    one.check(bodies.all[3], now + 4, TIMEOUT_S)
    assert bodies.resumed == [0, 1, 1, 1]


async def test_a_room_is_open_for_a_minute() -> None:
    room = share_of(SHARE_BYTES // 2).room
    bodies = Bodies(3)
    bodies.admitted_by(room)
    now = asyncio.get_running_loop().time()
    room.check(bodies.all[1], now + 10, TIMEOUT_S)
    assert bodies.admitted_by(room) == [True, True, True]
    bodies = Bodies(2)
    room = share_of(SHARE_BYTES // 2).room
    bodies.admitted_by(room)
    bodies.all[1].held_since -= 100
    room.check(bodies.all[1], now - 60, TIMEOUT_S)
    assert bodies.resumed == [0, 1]
    assert bodies.admitted_by(room) == [True, False]


async def test_a_body_that_has_waited_long_enough_waits_no_more() -> None:
    """Four times its timeout, all in all."""
    room = share_of(SHARE_BYTES // 2).room
    bodies = Bodies(2)
    first, other = bodies.all
    assert room.admits(first)
    assert not room.admits(other)
    await room.begin(WholeBody(1), 60)  # somebody is at work all the time
    look(room, other, 4 * TIMEOUT_S - 1)
    assert bodies.resumed[1] == 0
    look(room, other, 4 * TIMEOUT_S + 1)
    assert bodies.resumed[1] == 1
    assert room.admits(other)
    look(room, first, 4 * TIMEOUT_S + 1)
    assert bodies.resumed[0] == 0  # it did not wait
    room.remove(first)
    room.remove(other)
    await turns()
    assert bodies.resumed[1] == 1


async def test_a_body_that_leaves_may_go_on() -> None:
    """The rest of it may pass."""
    room = share_of(SHARE_BYTES // 2).room
    bodies = Bodies(2)
    assert bodies.admitted_by(room) == [True, False]
    other = bodies.all[1]
    assert other.is_held_back
    room.remove(other)
    assert bodies.resumed == [0, 1]
    assert not other.is_held_back
    room.remove(other)
    assert bodies.resumed == [0, 1]


async def test_whole_bodies_wait_for_what_others_become() -> None:
    """They wait in their order. If none is at work, one that does not fit begins all the same."""
    share = share_of(SHARE_BYTES // 2)
    room = share.room
    huge = WholeBody(SHARE_BYTES)
    await asyncio.wait_for(room.begin(huge, 60), 10)
    others = [WholeBody(SHARE_BYTES // 4) for _ in range(3)]
    waiting = [asyncio.create_task(room.begin(other, 60)) for other in others]
    await turns()
    assert not any(task.done() for task in waiting)
    room.expect(huge, SHARE_BYTES // 2)
    await turns()
    assert not any(task.done() for task in waiting)
    room.end(huge)
    await turns()
    assert [task.done() for task in waiting] == [True, True, False]
    share.release(SHARE_BYTES // 4)
    await turns()
    assert waiting[2].done()
    for other in others:
        room.end(other)
        room.end(other)  # once
    assert not room.is_waited_for


async def test_a_small_body_passes_large_ones_that_wait() -> None:
    """It passes them if it fits."""
    share = InFlight(64 << 20, 32 << 20).share("acme")
    room = share.room
    huge, large, next_large, small = WholeBody(31 << 20), WholeBody(8 << 20), WholeBody((1 << 20) + 1), WholeBody(1 << 20)
    await room.begin(huge, 60)
    waiting = [asyncio.create_task(room.begin(body, 60)) for body in (large, next_large)]
    await turns()
    await asyncio.wait_for(room.begin(small, 60), 10)
    late = asyncio.create_task(room.begin(WholeBody(1), 60))
    await turns()
    assert not any(task.done() for task in [*waiting, late])
    room.end(huge)
    await turns()
    assert all(task.done() for task in [*waiting, late])


async def test_what_a_body_has_become_makes_room() -> None:
    room = share_of(SHARE_BYTES // 2).room
    packed, other = WholeBody(SHARE_BYTES), WholeBody(SHARE_BYTES // 4)
    await room.begin(packed, 60)
    waiting = asyncio.create_task(room.begin(other, 60))
    await turns()
    assert not waiting.done()
    room.expect(packed, SHARE_BYTES // 4)
    await asyncio.wait_for(waiting, 10)
    room.end(packed)
    room.expect(packed, 1)
    room.end(other)
    await room.begin(packed, 60)


async def test_who_is_cancelled_or_waits_too_long_holds_up_nobody() -> None:
    """A body that has waited too long begins all the same."""
    room = share_of(SHARE_BYTES).room
    at_work = WholeBody(1)
    await room.begin(at_work, 60)
    cancelled, late, last = (WholeBody(1) for _ in range(3))
    cancelling = asyncio.create_task(room.begin(cancelled, 60))
    await turns()
    waiting = asyncio.create_task(room.begin(last, 60))
    await room.begin(late, 0.01)
    assert late.is_at_work
    cancelling.cancel()
    await turns()
    assert not cancelled.is_at_work
    room.end(cancelled)
    room.end(at_work)
    await turns()
    assert not waiting.done()
    room.end(late)
    await asyncio.wait_for(waiting, 10)
    room.end(last)
