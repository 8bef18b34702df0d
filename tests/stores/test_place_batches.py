"""A batch of orders is one call: whatever is in it, each buyer gets the answer of their own order, and only theirs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import PRICE, Shop, a_shop, run

from core.backends.valkey import ROOT
from core.facts import Placed, open_record
from core.local.stores import LocalStores
from core.sale.orders.answers import PlaceAnswer
from core.sale.orders.store import PlaceItem, kind_of, read_places

# One byte to 512: msgpack writes the head of a text in three ways.
BUYERS = ("a", "b" * 31, "c" * 32, "d" * 128, "é" * 127, "é" * 128, "家" * 86, "💳" * 128, "\x7fx", "0")


async def left_behind(shop: Shop) -> tuple[dict[bytes, str], dict[bytes, str], dict[str, int]]:
    """Return who has the live orders, who the placed ones of the journal, and what buyers hold."""
    live = {
        order_id: msgspec.msgpack.decode(record)
        for order_id, record in (await shop.client.hgetall(f"{ROOT}:live")).items()
    }
    facts = [open_record(record) for entry in await shop.entries() for record in entry.records]
    placed = {order_id: fact.buyer for order_id, fact in facts if isinstance(fact, Placed)}
    held = {buyer.decode(): int(units) for buyer, units in (await shop.client.hgetall(f"{ROOT}:bought:HOT")).items()}
    assert all(record[0] == "reserved" and record[5] == PRICE * record[4] for record in live.values())
    return {order_id: record[3] for order_id, record in live.items()}, placed, held


@pytest.mark.parametrize("units", [len(BUYERS), 6, 1, 0])
def test_buyers_of_any_length_get_their_own_order_whether_all_or_some_are_accepted(
    stores: LocalStores, tmp_path: Path, units: int
) -> None:
    """Stops: a piece cut one byte off from what the worker joined, and one buyer's order written as another's."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=max(units, 1)) as shop:
            if not units:
                await shop.sell(shop.item("first"))
            items = [shop.item(buyer) for buyer in BUYERS]
            answers = await shop.place(*items)
            assert [one.outcome for one in answers] == ["accepted"] * units + ["sold_out"] * (len(BUYERS) - units)
            accepted = {item.order_id: item.buyer for item in items[:units]}
            if not units:
                accepted = {shop.item("first").order_id: "first"}
            live, placed, held = await left_behind(shop)
            assert live == accepted
            assert placed == accepted
            assert held == dict.fromkeys(accepted.values(), 1)
            assert await shop.ends() == set(accepted)
            await shop.drain()
            await shop.check()

    run(test)


@settings(max_examples=12)
@given(
    asked=st.lists(st.tuples(st.sampled_from(BUYERS), st.integers(1, 2), st.sampled_from(["k1", "k2"])), max_size=12),
    units=st.integers(1, 9),
)
def test_in_a_batch_of_several_kinds_each_gets_the_answer_of_their_own(
    stores: LocalStores,
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[str, int, str]],
    units: int,
) -> None:
    """Stops: answers of one kind that go to the orders of another when the worker puts them back in turn."""

    async def test() -> None:
        async with a_shop(stores, tmp_path_factory.mktemp("kinds"), units=units) as shop:
            await shop.add("WARM", limit=1)
            await shop.stock(2, "WARM")
            items: list[PlaceItem] = []
            for buyer, quantity, key in asked:
                items.append(shop.item(buyer, key, quantity))
                items.append(shop.item(buyer, f"other-{key}", 1, "WARM"))
            answers = await shop.place(*items) if items else []
            live, placed, _ = await left_behind(shop)
            assert live == placed
            for item, answer in zip(items, answers, strict=True):
                if answer.outcome in ("accepted", "replayed"):
                    assert live[item.order_id] == item.buyer
                    assert answer.amount == PRICE * item.kind[2]
            accepted = [item.order_id for item, one in zip(items, answers, strict=True) if one.outcome == "accepted"]
            assert sorted(accepted) == sorted(live)
            await shop.drain()
            await shop.check()

    run(test)


@pytest.mark.parametrize(("kinds", "said"), [(2, 1), (1, 2)])
def test_a_script_that_answers_for_other_kinds_than_were_asked_about_is_not_believed(kinds: int, said: int) -> None:
    """Stops: the first kind's answer told to the buyers of every other."""
    items = [PlaceItem(bytes([number]) * 16, "b", kind_of(f"sku-{number % kinds}", 1)) for number in range(3)]
    reply = msgspec.msgpack.encode(([PlaceAnswer("sold_out")], [1] * said, []))
    with pytest.raises(ValueError, match="zip"):
        read_places(items, reply)
