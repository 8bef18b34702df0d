"""A lane that is full is full for those who filled it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from core.backends.batches import Batches
from core.backends.limit import TARGET_S, Limit
from core.backends.shares import Shares, reserve
from core.errors import Overloaded, StoreUnknown

Item = tuple[str, int]  # (key, number)


class Fixed(Limit):
    """A limit that learns nothing."""

    def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
        """Hear nothing."""


class Store:
    """Answers a call when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.calls: list[list[Item]] = []

    async def send(self, items: list[Item]) -> Sequence[int]:
        self.calls.append(list(items))
        await self.open.wait()
        return [number for _, number in items]


def lane_of(store: Store, most: int, waiting_most: int = 4_000) -> Batches[Item, int]:
    return Batches(
        store.send, limit=Fixed(most, most), waiting_most=waiting_most, spacing_s=0.0, key=lambda item: item[0]
    )


def put(lane: Batches[Item, int], item: Item) -> bool:
    try:
        lane.put(item)
    except Overloaded:
        return False
    return True


def test_one_things_flood_leaves_room_for_the_buyers_of_all_others() -> None:
    """Stops: a quiet product that cannot be bought while another is on sale."""

    async def test() -> None:
        store = Store()
        lane = lane_of(store, 100)
        hot = [put(lane, ("hot", number)) for number in range(500)]
        await asyncio.sleep(0)
        assert hot == [True] * 100 + [False] * 400
        cold = [put(lane, (f"cold-{number % 20}", number)) for number in range(40)]
        assert cold == [True] * reserve(100) + [False] * (40 - reserve(100)), "the reserve has an end too"
        assert not put(lane, ("hot", 0))
        store.open.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert sum(map(len, store.calls)) == 125
        assert not lane._shares.under_way and lane.room() == 100

    asyncio.run(test())


def test_the_reserve_is_for_the_small_alone() -> None:
    """Stops: two floods of which one lives on what is kept for others."""

    async def test() -> None:
        lane = lane_of(Store(), 100)
        for number in range(100):
            assert put(lane, ("one" if number % 2 else "two", number))
        assert not put(lane, ("one", 0)) and not put(lane, ("two", 0))
        assert put(lane, ("three", 0))

    asyncio.run(test())


def test_without_keys_a_full_lane_is_full_for_all() -> None:
    async def test() -> None:
        store = Store()
        lane: Batches[Item, int] = Batches(store.send, limit=Fixed(3, 3), spacing_s=0.0)
        assert [put(lane, (str(number), number)) for number in range(5)] == [True] * 3 + [False] * 2
        assert not lane.lets_in("other")

    asyncio.run(test())


@settings(max_examples=150)
@given(
    most=st.integers(1, 40),
    waiting_most=st.integers(1, 60),
    steps=st.lists(st.one_of(st.sampled_from("aaaaabcde"), st.just("answer")), max_size=150),
)
def test_what_is_under_way_is_bounded_and_counted_by_key_whatever_comes(
    most: int, waiting_most: int, steps: list[str]
) -> None:
    """Stops: counts that drift, so that a product is shut out for ever; a reserve that grows without end."""

    async def test() -> None:
        store, lane, taken = Store(), None, Counter[str]()
        lane = lane_of(store, most, waiting_most)
        for number, step in enumerate(steps):
            if step == "answer":
                store.open.set()
                for _ in range(4):
                    await asyncio.sleep(0)
                store.open.clear()
                taken.clear()
                taken.update(lane._shares.under_way)
                continue
            room, little = lane.room(), lane._shares.has_little(step, most)
            came = put(lane, (step, number))
            taken[step] += came
            assert came >= (room > 0), "who finds room comes in"
            assert not (came and room <= 0 and not little), "beyond it only who has little"
            assert lane.waiting <= waiting_most
            assert sum(lane._shares.under_way.values()) <= most + reserve(most)
            assert lane._shares.under_way == +taken
        store.open.set()
        for _ in range(8):
            await asyncio.sleep(0)
        assert not lane._shares.under_way

    asyncio.run(test())


def test_an_even_share_is_of_those_who_have_something() -> None:
    shares = Shares()
    assert shares.has_little("a", 1)
    shares.came(["a"] * 5 + ["b"])
    assert shares.has_little("b", 10) and not shares.has_little("a", 10) and shares.has_little("c", 10)
    shares.went(["a", "a", "b"])
    assert shares.under_way == {"a": 3}


def test_a_call_that_failed_late_is_a_slow_one_and_one_that_failed_at_once_says_nothing() -> None:
    """Stops: a store that hangs and a limit that goes on letting everybody in; a refused connection that opens it."""

    async def test() -> None:
        now_s, took_s, told = [0.0], [0.0], list[float]()

        class Telling(Limit):
            def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
                told.append(call_s)

        async def send(items: list[int]) -> Sequence[int]:
            now_s[0] += took_s[0]
            raise StoreUnknown

        lane = Batches(send, limit=Telling(1, 10), now_s=lambda: now_s[0], spacing_s=0.0)
        for seconds in (0.0, TARGET_S / 2, 1.0):
            took_s[0] = seconds
            assert isinstance((await asyncio.gather(lane.put(1), return_exceptions=True))[0], StoreUnknown)
        assert told == [1.0]

    asyncio.run(test())
