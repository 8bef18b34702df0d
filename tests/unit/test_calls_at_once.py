"""Several calls under way: every item in one of them, another only for a full one, and each judged by its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import Store, run

from core.backends.batches import BESIDE, Batches
from core.backends.limit import Limit
from core.errors import StoreUnknown


@settings(max_examples=60)
@given(
    turns=st.lists(st.tuples(st.integers(1, 2 * BESIDE), st.integers(0, 3)), min_size=1, max_size=12),
    at_once=st.integers(1, 3),
    breaks=st.booleans(),
)
def test_calls_at_once_carry_every_item_once_in_its_order(
    turns: list[tuple[int, int]], at_once: int, breaks: bool
) -> None:
    """Stops: an item in two calls or in none, a call too many, one for next to nothing, a caller forgotten."""

    async def test() -> None:
        store, lane = Store(), None
        under_way = list[int]()

        async def send(items: list[int]) -> Sequence[int]:
            assert not under_way or len(items) >= max(BESIDE, sum(under_way) / len(under_way))
            under_way.append(len(items))
            assert len(under_way) <= at_once
            try:
                return await store.send(items)
            finally:
                await asyncio.sleep(0.0005)
                under_way.remove(len(items))

        lane, futures = Batches(send, at_once=at_once, spacing_s=0.0), []
        store.error = StoreUnknown() if breaks else None
        for count, pause in turns:
            for _ in range(count):
                futures.append(lane.put(len(futures)))
            for _ in range(pause):
                await asyncio.sleep(0.0003)
        said = await asyncio.gather(*futures, return_exceptions=True)
        assert (
            all(isinstance(one, StoreUnknown) for one in said) if breaks else said == [2 * n for n in range(len(said))]
        )
        assert [item for call in store.calls for item in call] == list(range(len(futures)))
        assert lane.waiting == 0 and not lane._runs and lane.room() > 0

    run(test)


def test_a_second_call_goes_while_the_first_is_not_answered() -> None:
    """Stops: a store that waits for the worker between two calls."""

    async def test() -> None:
        store = Store()
        store.open.clear()
        lane = Batches(store.send, at_once=2)
        callers = [lane.put(n) for n in range(BESIDE)]
        await asyncio.sleep(0)
        callers += [lane.put(n) for n in range(BESIDE, 2 * BESIDE - 1)]
        await asyncio.sleep(0.005)
        assert len(store.calls) == 1  # too little for a second
        callers.append(lane.put(2 * BESIDE - 1))
        await asyncio.sleep(0)
        assert [len(call) for call in store.calls] == [BESIDE, BESIDE]
        store.open.set()
        assert await asyncio.gather(*callers) == [2 * n for n in range(2 * BESIDE)]

    run(test)


def test_the_limit_hears_what_a_call_took_alone_and_not_behind_another() -> None:
    """Stops: a target that doubles because two calls are under way, and buyers who wait twice as long for it."""

    async def test() -> None:
        now_s, told, gates = [0.0], list[tuple[float, float]](), [asyncio.Event(), asyncio.Event()]

        class Telling(Limit):
            def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
                told.append((waited_s, call_s))

        calls = 0

        async def send(items: list[int]) -> Sequence[int]:
            nonlocal calls
            calls += 1
            await gates[calls - 1].wait()
            return items

        lane = Batches(send, at_once=2, limit=Telling(1, 1_000), now_s=lambda: now_s[0])
        callers = [lane.put(n) for n in range(BESIDE)]
        await asyncio.sleep(0)
        callers += [lane.put(n) for n in range(BESIDE)]
        await asyncio.sleep(0)
        for gate, at_s in zip(gates, (0.01, 0.03), strict=True):
            now_s[0] = at_s
            gate.set()
            await asyncio.sleep(0.001)
        await asyncio.gather(*callers)
        assert [round(call_s, 6) for _, call_s in told] == [0.01, 0.02]
        assert [round(waited_s, 6) for waited_s, _ in told] == [0.01, 0.03]

    run(test)


def test_a_store_that_is_slow_by_itself_is_given_one_call_at_a_time() -> None:
    """Stops: a queue moved from where it is judged and refused into a store that cannot keep up."""

    async def test() -> None:
        store = Store()
        store.open.clear()
        limit = Limit(1_000, 2_000)
        limit.answered(0.2, 0.2, 10)
        assert limit.is_slow
        lane = Batches(store.send, at_once=2, limit=limit)
        callers = [lane.put(n) for n in range(BESIDE)]
        await asyncio.sleep(0)
        callers += [lane.put(n) for n in range(2 * BESIDE)]
        await asyncio.sleep(0.005)
        assert len(store.calls) == 1
        store.open.set()
        await asyncio.gather(*callers)
        assert [len(call) for call in store.calls] == [BESIDE, 2 * BESIDE]

    run(test)
