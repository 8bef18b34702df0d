"""Orders first: what no order waits for is done when none is under way, and never waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest

from core.backends.batches import Batches
from core.web.leisure import PATIENCE_S, Leisure
from core.web.share import LEAST_S, Share

WAIT_S = 5.0
LONG_S = 100 * PATIENCE_S


class Store:
    """Answers when let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def send(self, items: list[str]) -> Sequence[str]:
        await self.open.wait()
        return items


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(bounded())


def test_where_no_order_is_under_way_nothing_waits() -> None:
    """Stops: a turn of the loop more for every request of a quiet shop."""

    async def test() -> None:
        done: list[str] = []
        for leisure in (Leisure(), Leisure(Batches(Store().send))):
            leisure.do(partial(done.append, "done"))
        assert done == ["done", "done"]

    run(test)


def test_what_waits_is_done_in_turn_when_the_last_order_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a visitor in front of an order's answer; one who waits on though nobody orders any more."""
    monkeypatch.setattr("core.web.leisure.PATIENCE_S", 100 * WAIT_S)

    async def test() -> None:
        store, done = Store(), list[str]()
        lane: Batches[str, str] = Batches(store.send, at_once=2)
        leisure = Leisure(lane)
        first = lane.put("first")
        first.add_done_callback(lambda _: done.append("order"))
        for name in ("a", "b", "c"):
            leisure.do(partial(done.append, name))
        await asyncio.sleep(0)
        assert done == []
        store.open.set()
        while len(done) < 4:
            await asyncio.sleep(0)
        assert done == ["order", "a", "b", "c"]

    run(test)


def test_while_another_order_is_under_way_the_end_of_one_gives_no_leisure() -> None:
    """Stops: work between the calls of two orders, which the second waits behind."""

    async def test() -> None:
        ends = [asyncio.Event(), asyncio.Event()]
        sent: list[list[str]] = []

        async def send(items: list[str]) -> Sequence[str]:
            sent.append(items)
            await ends[len(sent) - 1].wait()
            return items

        rests: list[float] = []
        lane: Batches[str, str] = Batches(send, most=1, spacing_s=0)
        lane.when_rested = lambda: rests.append(time.monotonic())
        orders = [lane.put("one"), lane.put("other")]
        ends[0].set()
        await orders[0]
        assert lane.is_under_way
        assert not rests
        ends[1].set()
        await orders[1]
        assert not lane.is_under_way
        assert len(rests) == 1

    run(test)


def test_where_orders_leave_no_rest_nothing_waits_longer_than_patience() -> None:
    """Stops: a page that is never shown, a hostile client never cut off, as long as the shop sells."""

    async def test() -> None:
        lane: Batches[str, str] = Batches(Store().send)
        leisure = Leisure(lane)
        order = lane.put("order")
        began, done = time.monotonic(), asyncio.Event()
        leisure.do(done.set)
        async with asyncio.timeout(LONG_S):
            await done.wait()
        assert time.monotonic() - began >= PATIENCE_S * 0.9  # the loop's clock is a millisecond coarse
        assert not order.done()
        order.cancel()

    run(test)


def test_a_crowd_is_worked_off_in_parts_and_an_order_between_them_comes_first() -> None:
    """Stops: five hundred visitors looked after in one turn, in which nobody's order is read."""

    async def test() -> None:
        store, done, clock = Store(), list[float](), [0.0]
        lane: Batches[str, str] = Batches(store.send)
        leisure = Leisure(lane, Share(lambda: clock[0]))
        order = lane.put("first")

        def visit() -> None:
            clock[0] += 2 * LEAST_S
            done.append(clock[0])

        for _ in range(20):
            leisure.do(visit)
        store.open.set()
        await order
        store.open.clear()
        while not done:
            await asyncio.sleep(0)
        assert len(done) == 1
        second = lane.put("second")  # came while they were worked off
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(done) == 1
        store.open.set()
        await second
        while len(done) < 20:
            await asyncio.sleep(0)

    run(test)


def test_what_fails_or_brings_more_work_holds_nobody_up() -> None:
    """Stops: one broken connection that leaves all behind it waiting."""

    async def test() -> None:
        store, done = Store(), list[str]()
        lane: Batches[str, str] = Batches(store.send)
        leisure = Leisure(lane)
        order = lane.put("order")

        def broken() -> None:
            raise ValueError("the client's fault")

        leisure.do(broken)
        leisure.do(lambda: leisure.do(partial(done.append, "brought")))
        leisure.do(partial(done.append, "last"))
        store.open.set()
        await order
        while len(done) < 2:
            await asyncio.sleep(0)
        assert done == ["last", "brought"]

    run(test)


def test_at_the_end_all_that_waits_is_done_at_once() -> None:
    """Stops: a connection that was let in by nobody when the worker left."""

    async def test() -> None:
        done: list[int] = []
        lane: Batches[str, str] = Batches(Store().send)
        leisure = Leisure(lane)
        order = lane.put("order")
        for number in range(100):
            leisure.do(partial(done.append, number))
        leisure.finish()
        assert done == list(range(100))
        order.cancel()

    run(test)
