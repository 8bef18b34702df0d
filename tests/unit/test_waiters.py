"""Waiting buyers: called when their order may have moved, never forgotten, never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.backends.batches import Sink
from core.clock import SystemClock
from core.errors import Overloaded, StoreUnavailable
from core.ids import Names
from core.sale.orders import track
from core.sale.orders import waiters as waiters_room
from core.sale.orders.answers import TrackAnswer
from core.sale.orders.record import OrderRecord
from core.sale.orders.track import Tracking
from core.sale.orders.waiters import Waiters

WAIT_S = 5.0
LONG_S = 60.0
ANN, BOB, CID = (bytes([n]) * 16 for n in (1, 2, 3))


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(bounded())


class One:
    """Someone who waits; counts the calls heard."""

    def __init__(self, waiters: Waiters, order_id: bytes) -> None:
        self.heard = 0
        waiters.add(order_id, self)

    def wake(self) -> None:
        self.heard += 1


# --- who waits for what -------------------------------------------------------------------------------------


def test_a_call_wakes_all_who_wait_for_its_orders_and_nobody_else() -> None:
    """Stops: the second tab of a buyer left waiting, or every buyer woken by every batch."""

    async def test() -> None:
        waiters = Waiters()
        ann, again, bob, cid = (One(waiters, order_id) for order_id in (ANN, ANN, BOB, CID))
        waiters.wake(ANN + CID)
        assert [one.heard for one in (ann, again, bob, cid)] == [1, 1, 0, 1]

    run(test)


def test_ids_are_cut_at_every_sixteenth_byte_and_nowhere_else() -> None:
    """Stops: the tail of one id and the head of the next taken for an order."""

    async def test() -> None:
        waiters = Waiters()
        between = One(waiters, ANN[8:] + BOB[:8])
        waiters.wake(ANN + BOB)
        waiters.wake(b"")
        assert not between.heard

    run(test)


def test_one_who_leaves_when_woken_does_not_stop_the_round() -> None:
    """Stops: a set that changes while it is walked through, after which no buyer of this worker is ever called."""

    class Leaver(One):
        def wake(self) -> None:
            super().wake()
            waiters.remove(ANN, self)

    waiters = Waiters()
    leavers = [Leaver(waiters, ANN) for _ in range(3)]
    stays = One(waiters, ANN)
    waiters.wake(ANN)
    waiters.wake(ANN)
    assert [one.heard for one in (*leavers, stays)] == [1, 1, 1, 2]


def test_one_who_is_forgotten_is_forgotten_once_and_leaves_nothing_behind() -> None:
    """Stops: a count that drifts until nobody may wait, and a worker that keeps every order it ever saw."""

    async def test() -> None:
        waiters = Waiters()
        ann, again, bob = One(waiters, ANN), One(waiters, ANN), One(waiters, BOB)
        waiters.remove(BOB, ann)  # not hers
        waiters.remove(CID, ann)  # nobody's
        assert waiters.count == 3
        waiters.remove(ANN, ann)
        waiters.remove(ANN, ann)
        assert waiters.count == 2
        waiters.wake(ANN + BOB)
        assert [one.heard for one in (ann, again, bob)] == [0, 1, 1]
        waiters.remove(ANN, again)
        waiters.remove(BOB, bob)
        assert waiters.count == 0
        assert not waiters._waiting

    run(test)


def test_beyond_the_limit_nobody_waits_until_someone_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: long polls that eat a worker's memory, and a refused one that counts as waiting."""
    monkeypatch.setattr(waiters_room, "WAITERS_MOST", 2)

    async def test() -> None:
        waiters = Waiters()
        ann = One(waiters, ANN)
        One(waiters, ANN)
        for _ in range(3):
            with pytest.raises(Overloaded, match="without wait"):
                One(waiters, BOB)
        assert waiters.count == 2
        waiters.remove(ANN, ann)
        One(waiters, BOB)

    run(test)


def test_when_messages_may_be_lost_everyone_looks_again() -> None:
    """Stops: a buyer who sleeps through a broken subscription to the end of the wait."""

    async def test() -> None:
        waiters = Waiters()
        waiters.wake_all()  # nobody is there
        all_of_them = [One(waiters, order_id) for order_id in (ANN, ANN, BOB, CID)]
        waiters.wake_all()
        assert all(one.heard == 1 for one in all_of_them)
        assert not waiters.closing

    run(test)


# --- the verb with wait -------------------------------------------------------------------------------------


class Shop:
    """Both stores in memory, of one order; ``meanwhile`` happens between a look and its answer."""

    def __init__(self, state: str = "reserved") -> None:
        self.state, self.recorded = state, state
        self.looks = self.finds = 0
        self.meanwhile: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        store, records = SimpleNamespace(tracks=self), self
        self.tracking = Tracking(Names(bytes(32)), cast("Any", store), cast("Any", records), SystemClock())

    def put_for(self, _order_id: bytes, sink: Sink) -> None:
        self.looks += 1
        seen = self.state
        asyncio.get_running_loop().call_soon(self._say, seen, sink)

    def _say(self, seen: str, sink: Sink) -> None:
        if sink.done():
            return
        if self.error is not None:
            sink.set_exception(self.error)
            return
        self.meanwhile()
        sink.set_result(TrackAnswer(seen, "hot", 1, 1999, "CNY", 0))

    def find_for(self, _order_id: bytes, sink: Sink) -> None:
        self.finds += 1
        record = OrderRecord("hot", "ann", 1, 1999, "CNY", self.recorded, 0)
        asyncio.get_running_loop().call_soon(lambda: sink.done() or sink.set_result(record))

    def move(self, state: str) -> None:
        """Commit a move and call those who wait for it, like the projector."""
        self.state = self.recorded = state
        self.tracking.waiters.wake(ANN)


async def waiting(shop: Shop, seconds: float = LONG_S) -> asyncio.Task[track.TrackView]:
    """Return the task of a buyer who has looked and now waits."""
    task = asyncio.create_task(shop.tracking.wait(ANN, seconds))
    while not shop.looks:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_a_waiting_buyer_is_answered_as_soon_as_the_order_moved() -> None:
    """Stops: a wait that always lasts to its end."""

    async def test() -> None:
        shop = Shop()
        buyer = await waiting(shop)
        shop.move("delivered")
        assert (await buyer).state == "delivered"
        assert shop.tracking.waiters.count == 0

    run(test)


def test_a_move_between_the_look_and_the_wait_is_not_slept_through() -> None:
    """Stops: looking first and waiting afterwards, which loses the call that comes between."""

    async def test() -> None:
        shop = Shop()
        shop.meanwhile = lambda: shop.move("delivered")
        assert (await shop.tracking.wait(ANN, LONG_S)).state == "delivered"

    run(test)


def test_a_call_without_a_move_lets_the_buyer_wait_on_and_hear_the_next() -> None:
    """Stops: the old state given as news, or a buyer deaf after the first call."""

    async def test() -> None:
        shop = Shop()
        buyer = await waiting(shop)
        for _ in range(2):
            shop.tracking.waiters.wake_all()
            await asyncio.sleep(0.01)
            assert not buyer.done()
            assert shop.tracking.waiters.count == 1
        shop.move("expired")
        assert (await buyer).state == "expired"

    run(test)


def test_when_the_time_is_over_the_buyer_hears_where_the_order_still_stands() -> None:
    """Stops: a wait without an end, or one that looks over and over meanwhile."""

    async def test() -> None:
        shop = Shop()
        began = asyncio.get_running_loop().time()
        assert (await shop.tracking.wait(ANN, 0.05)).state == "reserved"
        assert asyncio.get_running_loop().time() - began >= 0.049
        assert shop.looks <= 2
        assert shop.tracking.waiters.count == 0

    run(test)


@pytest.mark.parametrize("state", ["expired", "cancelled", "delivered", "refund_due", "refunded"])
def test_nobody_waits_for_an_order_that_is_settled(state: str) -> None:
    """Stops: a buyer who waits thirty seconds for what can no longer come."""

    async def test() -> None:
        assert (await Shop(state).tracking.wait(ANN, LONG_S)).state == state

    run(test)


def test_a_worker_that_stops_answers_those_who_wait_and_holds_no_new_ones() -> None:
    """Stops: a restart that hangs for as long as the longest poll, or cuts the buyers off."""

    async def test() -> None:
        shop = Shop()
        buyer = await waiting(shop)
        shop.tracking.waiters.close()
        assert (await buyer).state == "reserved"
        assert (await shop.tracking.wait(ANN, LONG_S)).state == "reserved"
        assert shop.tracking.waiters.count == 0

    run(test)


def test_a_buyer_who_hangs_up_or_meets_an_error_leaves_no_entry() -> None:
    """Stops: places among those who wait that are never given back."""

    async def test() -> None:
        shop = Shop()
        buyer = await waiting(shop)
        buyer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await buyer
        assert shop.tracking.waiters.count == 0
        shop.error = StoreUnavailable()
        with pytest.raises(StoreUnavailable):
            await shop.tracking.wait(ANN, LONG_S)
        assert shop.tracking.waiters.count == 0

    run(test)


def test_nothing_more_is_asked_for_a_buyer_who_has_gone() -> None:
    """Stops: clients who ask and hang up, each of whom costs PostgreSQL a look."""

    async def test() -> None:
        shop, heard = Shop("delivered"), list[object]()
        gone = SimpleNamespace(done=lambda: True, set_result=heard.append, set_exception=heard.append)
        question = shop.tracking.ask(ANN, 0.0, cast("Any", gone))
        question.set_result(False)  # Valkey does not know it: only the record can say
        assert (shop.finds, heard) == (0, [])

    run(test)
