"""Batches: many callers, one call; bounded, fair, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.backends.batches import _LOOK_S, FEW, Batches
from core.backends.limit import Limit
from core.errors import Overloaded, StoreUnavailable, StoreUnknown
from core.settings import REQUEST_DEADLINE_S

WAIT_S = 5.0


class Store:
    """Answers each number with its double, when let; remembers every call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None
        self.at_once = self.at_once_most = 0

    async def send(self, items: list[int]) -> Sequence[int]:
        self.calls.append(list(items))
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            await self.open.wait()
            if self.error is not None:
                raise self.error
            return [item * 2 for item in items]
        finally:
            self.at_once -= 1


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(bounded())


def test_those_who_ask_in_one_turn_share_one_call_and_get_their_own_answer() -> None:
    """Stops: one call and one fsync a caller; answers that change hands."""

    async def test() -> None:
        store, sizes = Store(), list[int]()
        lane = Batches(store.send, sent=sizes.append)
        assert await asyncio.gather(*[lane.put(n) for n in range(50)]) == [n * 2 for n in range(50)]
        assert store.calls == [list(range(50))]
        assert sizes == [50]

    run(test)


def test_those_who_come_during_a_call_go_with_the_next_one_call_at_a_time() -> None:
    """Stops: calls that overtake each other, and a late caller forgotten when the task ends."""

    async def test() -> None:
        store = Store()
        lane = Batches(store.send)
        store.open.clear()
        first = [lane.put(1)]
        await asyncio.sleep(0)
        later = [lane.put(2), lane.put(3)]
        await asyncio.sleep(0.01)
        assert store.calls == [[1]]
        assert lane.waiting == 2
        store.open.set()
        assert await asyncio.gather(*first, *later) == [2, 4, 6]
        assert store.calls == [[1], [2, 3]]
        assert store.at_once_most == 1
        assert await lane.put(4) == 8

    run(test)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 7))
def test_every_item_is_in_exactly_one_call_in_the_order_it_came(pauses: list[int], most: int) -> None:
    """Stops: an item sent twice (two orders), or never, or a call longer than Lua's unpack can take."""

    async def test() -> None:
        store = Store()
        lane = Batches(store.send, most=most)
        futures = []
        for item, pause in enumerate(pauses):
            futures.append(lane.put(item))
            for _ in range(pause):
                await asyncio.sleep(0)
        assert await asyncio.gather(*futures) == [item * 2 for item in range(len(pauses))]
        assert [item for call in store.calls for item in call] == list(range(len(pauses)))
        assert all(1 <= len(call) <= most for call in store.calls)

    run(test)


def test_an_answer_that_cannot_be_given_leaves_its_neighbours_theirs() -> None:
    """Stops: the rest of a batch that waits for ever behind one fault."""

    async def test() -> None:
        store, heard = Store(), list[int]()

        class Sink:
            def __init__(self, breaks: bool) -> None:
                self.breaks = breaks

            def done(self) -> bool:
                return False

            def set_result(self, answer: int, /) -> None:
                if self.breaks:
                    raise RuntimeError("a fault of ours")
                heard.append(answer)

            def set_exception(self, error: Exception, /) -> None:
                raise AssertionError(error)

        lane = Batches(store.send)
        lane.put_all([1, 2, 3], [Sink(True), Sink(False), Sink(False)])
        await asyncio.sleep(0.01)
        assert heard == [4, 6]

    run(test)


def test_beyond_the_limit_a_caller_is_turned_away_at_once_and_the_others_are_not_hurt() -> None:
    """Stops: a queue without an end, which turns a slow store into a dead server."""

    async def test() -> None:
        store = Store()
        store.open.clear()
        lane = Batches(store.send, most=2, waiting_most=3)
        taken = [lane.put(0), lane.put(1)]
        await asyncio.sleep(0)
        taken += [lane.put(n) for n in (2, 3, 4)]
        with pytest.raises(Overloaded):
            lane.put(5)
        store.open.set()
        assert await asyncio.gather(*taken) == [0, 2, 4, 6, 8]
        assert 5 not in [item for call in store.calls for item in call]
        assert await lane.put(6) == 12

    run(test)


def test_a_limit_counts_those_in_the_call_too_and_is_told_the_whole_time_of_a_batch() -> None:
    """Stops: a limit that is kept in the list and broken in the call, or that judges by half of what a buyer waits."""

    async def test() -> None:
        store, now_s, told = Store(), [0.0], list[tuple[float, float, int]]()

        class Telling(Limit):
            def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
                told.append((waited_s, call_s, under_way))

        limit = Telling(1, 3)
        store.open.clear()
        lane = Batches(store.send, limit=limit, now_s=lambda: now_s[0])
        taken = [lane.put(0), lane.put(1)]
        assert lane.room() > 0
        now_s[0] = 0.25
        await asyncio.sleep(0)
        taken.append(lane.put(2))
        assert lane.room() <= 0
        with pytest.raises(Overloaded):
            lane.put(3)
        now_s[0] = 0.75
        store.open.set()
        assert await asyncio.gather(*taken) == [0, 2, 4]
        assert told == [(0.75, 0.5, 3), (0.5, 0.0, 1)]
        assert lane.room() > 0
        assert lane.called == 3

    run(test)


def test_who_waited_beyond_the_deadline_is_refused_and_never_sent() -> None:
    """Stops: a store that, back from a stall, works for buyers who are gone; a refusal of what was done."""

    async def test() -> None:
        store, now_s = Store(), [0.0]
        store.open.clear()
        lane = Batches(store.send, most=2, now_s=lambda: now_s[0])
        in_call = [lane.put(0), lane.put(1)]
        await asyncio.sleep(0)
        late = [lane.put(n) for n in (2, 3, 4)]
        now_s[0] = REQUEST_DEADLINE_S / 2
        in_time = [lane.put(5), lane.put(6), lane.put(7)]
        now_s[0] = REQUEST_DEADLINE_S * 1.25
        store.open.set()
        assert await asyncio.gather(*in_call) == [0, 2], "what was sent is answered, however long it took"
        refused = await asyncio.gather(*late, return_exceptions=True)
        assert [type(error) for error in refused] == [Overloaded] * 3
        assert await asyncio.gather(*in_time) == [10, 12, 14]
        assert store.calls == [[0, 1], [5, 6], [7]]
        assert await lane.put(8) == 16

    run(test)


def test_who_waits_behind_a_call_that_hangs_is_refused_at_the_deadline() -> None:
    """Stops: a buyer who hears for two seconds nothing of an order that was never sent."""

    async def test() -> None:
        store, now_s = Store(), [0.0]
        lane = Batches(store.send, now_s=lambda: now_s[0])
        for _ in range(2):  # the second time after a rest
            store.open.clear()
            hanging = lane.put(1)
            await asyncio.sleep(0.01)
            waiting = lane.put(2)
            now_s[0] += REQUEST_DEADLINE_S * 1.01
            with pytest.raises(Overloaded):
                await waiting
            assert not hanging.done() and lane.waiting == 0
            store.open.set()
            assert await hanging == 2
        assert store.calls == [[1], [1]]
        await asyncio.sleep(2 * _LOOK_S)
        assert lane._look is None  # nothing under way, nothing to look after

    run(test)


def test_a_lane_in_which_all_are_late_goes_on_with_who_comes_next() -> None:
    """Stops: a lane that ends its task for want of work while it holds its place."""

    async def test() -> None:
        store, now_s = Store(), [0.0]
        lane = Batches(store.send, now_s=lambda: now_s[0])
        late = lane.put(1)
        now_s[0] = 2 * REQUEST_DEADLINE_S
        with pytest.raises(Overloaded):
            await late
        assert store.calls == []
        assert await lane.put(2) == 4

    run(test)


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    """Stops: callers that hang when the store is down, and a lane that stays broken after it."""

    async def test() -> None:
        store = Store()
        lane = Batches(store.send, most=3)
        store.error = StoreUnavailable("down")
        found = await asyncio.gather(*[lane.put(n) for n in range(3)], return_exceptions=True)
        assert [str(error) for error in found] == ["down"] * 3
        store.error = None
        assert await asyncio.gather(*[lane.put(n) for n in (7, 8)]) == [14, 16]

    run(test)


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
def test_a_reply_of_the_wrong_length_is_an_error_for_all_of_its_callers(answers: list[int]) -> None:
    """Stops: callers without an answer for ever, and answers given to the wrong ones."""

    async def test() -> None:
        async def send(items: list[int]) -> Sequence[int]:
            return answers

        lane = Batches(send)
        found = await asyncio.gather(lane.put(1), lane.put(2), return_exceptions=True)
        assert [isinstance(error, StoreUnknown) for error in found] == [True, True]

    run(test)


def test_a_caller_who_goes_away_does_not_hurt_those_who_share_the_call() -> None:
    """Stops: a buyer who closes the connection and takes the answers of a whole batch along."""

    async def test() -> None:
        store = Store()
        store.open.clear()
        lane = Batches(store.send)

        async def ask(item: int) -> int:
            return await lane.put(item)

        callers = [asyncio.create_task(ask(n)) for n in range(4)]
        await asyncio.sleep(0.01)
        callers[1].cancel()
        waiting = asyncio.create_task(ask(9))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        store.open.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        assert [found[0], found[2], found[3]] == [0, 4, 6]
        assert await lane.put(5) == 10
        assert store.calls[0] == [0, 1, 2, 3]

    run(test)


def test_a_caller_who_left_before_an_error_makes_no_noise() -> None:
    """Stops: "exception was never retrieved" in the log for every buyer who gave up."""

    async def test() -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        store = Store()
        store.error = StoreUnavailable("down")
        lane = Batches(store.send)
        gone = lane.put(1)
        gone.cancel()
        forgotten = lane.put(2)
        await asyncio.sleep(0.01)
        assert isinstance(forgotten.exception(), StoreUnavailable)
        del gone, forgotten
        lane.put(3)
        await asyncio.sleep(0.01)
        assert complaints == []

    run(test)


def test_a_cancelled_lane_leaves_nobody_waiting_for_ever() -> None:
    """Stops: a worker that cannot stop, because callers wait for a task that was cancelled."""

    async def test() -> None:
        store = Store()
        store.open.clear()
        lane = Batches(store.send, most=1)
        callers = [lane.put(1), lane.put(2)]
        await asyncio.sleep(0)
        assert len(lane._runs) == 1
        next(iter(lane._runs)).cancel()
        await asyncio.sleep(0)
        assert callers[0].cancelled() or isinstance(callers[0].exception(), BaseException)
        store.open.set()
        assert await lane.put(3) == 6
        assert await callers[1] == 4

    run(test)


def test_calls_with_little_in_them_keep_a_distance() -> None:
    """Stops: thousands of calls and fsyncs a second for one item each, on cores that others need."""

    async def test() -> None:
        store, began = Store(), list[float]()
        lane = Batches(store.send, sent=lambda size: began.append(time.monotonic()), spacing_s=0.05)
        for number in range(4):
            assert await lane.put(number) == number * 2
        assert all(after - before >= 0.049 for before, after in pairwise(began))

    run(test)


def test_the_first_call_and_a_full_one_wait_for_nothing() -> None:
    """Stops: a pause that buyers wait for although nothing is saved by it."""

    async def test() -> None:
        store = Store()
        lane = Batches(store.send, spacing_s=10 * WAIT_S)  # longer than the test may take
        assert await lane.put(1) == 2
        assert await asyncio.gather(*[lane.put(n) for n in range(FEW)]) == [n * 2 for n in range(FEW)]
        assert len(store.calls) == 2

    run(test)


def test_a_long_rest_ends_when_enough_has_come_meanwhile() -> None:
    """Stops: a crowd that waits out the distance which was meant for a few."""

    async def test() -> None:
        store = Store()
        lane = Batches(store.send, spacing_s=10 * WAIT_S)
        assert await lane.put(0) == 0
        early = lane.put(1)
        await asyncio.sleep(0.01)
        assert not early.done(), "one alone keeps the distance"
        rest = [lane.put(n) for n in range(2, 2 + FEW)]
        assert await asyncio.gather(early, *rest) == [n * 2 for n in range(1, 2 + FEW)]
        assert len(store.calls) == 2

    run(test)
