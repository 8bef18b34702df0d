"""Refusing from memory: only while the store's word is good, and only what is certainly new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from core.errors import Refusal, SaleNotOpen, SoldOut, StoreUnavailable
from core.sale.orders import memory as room
from core.sale.orders.answers import Lasting
from core.sale.orders.memory import Memory

GOOD_MS = 40
ANN, BOB, NEW = (bytes([n]) * 16 for n in (1, 2, 3))
LIKE_ANN = ANN[:8] + bytes(8)


class Shop:
    """A store's words, a clock that stands until it is moved, and one worker's memory of them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.names: dict[tuple[str, int], bytes] = {("hot", 7): ANN[:8], ("hot", 6): BOB[:8]}
        self.reads: list[tuple[str, int, int]] = []
        self.error: Exception | None = None
        self.memory = Memory(self.read, lambda: self.now)

    async def read(self, sku: str, gen: int, begin: int) -> bytes:
        self.reads.append((sku, gen, begin))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.names.get((sku, gen), b"")[begin:]

    def say(self, outcome: str = "sold_out", gen: int = 7, asked_at: float | None = None) -> None:
        """Tell the worker that the SKU is refused, as place.lua does."""
        sizes = [len(self.names.get(("hot", g), b"")) for g in (gen, gen - 1)]
        word = Lasting("hot", outcome, GOOD_MS, gen, sizes[0], sizes[1])
        self.memory.learn([word], self.now if asked_at is None else asked_at)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def known(self) -> None:
        """Say it twice: once to have the names read, once to have it remembered."""
        self.say()
        await self.settle()
        self.say()

    def refuses(self, order_id: bytes = NEW) -> type[Refusal] | None:
        return self.memory.refuses("hot", order_id)


def run(test: Callable[[Shop], Awaitable[None]]) -> None:
    """Run a test on a shop of its own, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(5):
            await test(Shop())

    asyncio.run(bounded())


def test_nothing_is_refused_before_the_names_of_all_orders_are_known() -> None:
    """Stops: a retry of an accepted order told *sold out*, because this worker has not heard of it yet."""

    async def test(shop: Shop) -> None:
        assert shop.refuses() is None
        shop.say()
        assert shop.refuses() is None
        await shop.settle()
        assert shop.refuses() is None, "what was said before the names were read is not taken for good"
        shop.say()
        assert shop.refuses() is SoldOut

    run(test)


def test_who_has_an_order_is_sent_to_the_store_whichever_generation_names_it() -> None:
    """Stops: *sold out* for a buyer who retries, and whose order is there."""

    async def test(shop: Shop) -> None:
        await shop.known()
        assert [shop.refuses(order_id) for order_id in (ANN, BOB, LIKE_ANN, NEW)] == [None, None, None, SoldOut]

    run(test)


def test_a_word_is_good_from_when_it_was_asked_for_and_no_longer() -> None:
    """Stops: an answer that took long on its way, remembered beyond the time the store keeps its word."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.say(asked_at=shop.now - 0.010)
        shop.now += 0.019
        assert shop.refuses() is None, "one asks the store again"
        shop.now += 0.010
        assert shop.refuses() is SoldOut
        shop.now += 0.002
        assert shop.refuses() is None

    run(test)


def test_towards_the_end_one_request_asks_the_store_and_the_others_are_still_refused() -> None:
    """Stops: a whole flood let through to the store every forty milliseconds."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.now += 0.030
        assert [shop.refuses() for _ in range(4)] == [None, SoldOut, SoldOut, SoldOut]

    run(test)


def test_an_order_accepted_since_is_read_before_anything_is_refused_again() -> None:
    """Stops: the buyer of a unit that came back, told *sold out* on a retry."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.names["hot", 7] += NEW[:8]
        shop.now += 1.0
        shop.say()
        assert shop.refuses(bytes(16)) is None
        await shop.settle()
        shop.say()
        assert (shop.refuses(NEW), shop.refuses(bytes(16))) == (None, SoldOut)
        assert shop.reads[-2:] == [("hot", 7, 8), ("hot", 6, 8)]

    run(test)


def test_a_new_generation_is_read_from_its_beginning() -> None:
    """Stops: offsets of yesterday's names applied to today's."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.names["hot", 8] = NEW[:8]
        shop.say(gen=8)
        assert shop.refuses(bytes(16)) is None
        await shop.settle()
        shop.say(gen=8)
        assert [shop.refuses(order_id) for order_id in (NEW, ANN, bytes(16))] == [None, None, SoldOut]

    run(test)


def test_after_an_error_of_the_store_nothing_is_remembered() -> None:
    """Stops: the word of a store that was since restored, kept for another one."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.memory.forget()
        assert shop.refuses() is None
        shop.names["hot", 7] += NEW[:8]
        shop.error = StoreUnavailable()
        shop.say()
        await shop.settle()
        shop.say()
        assert shop.refuses(bytes(16)) is None, "the names could not be read"

    run(test)


def test_a_sale_that_is_not_open_is_refused_in_its_own_words() -> None:
    """Stops: *sold out* for what is not yet on sale."""

    async def test(shop: Shop) -> None:
        await shop.known()
        shop.say("not_open")
        assert shop.refuses() is SaleNotOpen

    run(test)


def test_a_sku_with_more_orders_than_a_worker_keeps_is_left_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a worker that fills its memory with names."""
    monkeypatch.setattr(room, "KNOWN_ORDERS_MOST", 1)

    async def test(shop: Shop) -> None:
        await shop.known()
        assert shop.refuses() is None
        assert not shop.reads

    run(test)


def test_only_so_many_skus_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: an entry for every SKU that was ever sold out."""
    monkeypatch.setattr(room, "SKUS_REMEMBERED_MOST", 3)

    async def test(shop: Shop) -> None:
        for number in range(10):
            shop.memory.learn([Lasting(f"sku-{number}", "sold_out", GOOD_MS, 7, 0, 0)], shop.now)
            assert len(shop.memory.skus) <= 3
            assert shop.memory.refuses(f"sku-{number}", NEW) is SoldOut

    run(test)
