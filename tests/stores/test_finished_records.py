"""What Valkey keeps of a finished order: the same bytes whoever wrote them, and enough for whatever still comes."""

from __future__ import annotations

from pathlib import Path

import msgspec
from shop import LONG_MS, PRICE, Shop, a_shop, run

from core.backends.valkey import ROOT
from core.local.stores import LocalStores
from core.sale.orders.finished import close_finished, open_finished
from core.sale.orders.store import PlaceItem


async def _four_ends(shop: Shop) -> dict[str, PlaceItem]:
    """End four orders, each in another way; return them by how they stand."""
    items = [shop.item(buyer, quantity=2) for buyer in ("ann", "bob", "买家", "dan")]
    cancelled, expired, delivered, due = await shop.sell(*items)
    await shop.pay(delivered, quantity=2)
    await shop.drain()
    await shop.cancel(cancelled)
    await shop.expire(expired, due)
    await shop.client.hset(f"{ROOT}:sku:HOT", "free", "0")  # so that a late charge finds nothing
    await shop.pay(due, quantity=2)
    return dict(zip(("cancelled", "expired", "delivered", "refund_due"), items, strict=True))


def test_lua_and_python_write_the_same_record(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a fence that finishes orders in bytes that the scripts read as something else."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=8) as shop:
            ends = await _four_ends(shop)
            found = await shop.client.hgetall(f"{ROOT}:done:1")
            assert {order_id: open_finished(stored)[0] for order_id, stored in found.items()} == {
                item.order_id: state for state, item in ends.items()
            }
            assert {order_id: close_finished(open_finished(stored)) for order_id, stored in found.items()} == found
            assert len(found[ends["delivered"].order_id]) == 24

    run(test)


def test_a_retry_of_a_finished_order_gets_its_terms_and_another_body_is_a_conflict(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: a record that shrank too far to answer the retry for which alone it is kept."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=8) as shop:
            ends = await _four_ends(shop)
            for state, item in ends.items():
                (again,) = await shop.place(item)
                assert (again.outcome, again.state, again.amount, again.currency) == (
                    "replayed",
                    state,
                    2 * PRICE,
                    "CNY",
                )
                assert again.pay_by_ms == 1_000 or again.pay_by_ms > LONG_MS  # where the test let its time be over
                (other,) = await shop.place(msgspec.structs.replace(item, kind=shop.item("ann", quantity=1).kind))
                assert other.outcome == "conflict"

    run(test)


def test_the_same_event_is_known_again_whatever_its_length(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: an event remembered in full, at ten times the memory, or so short that another order's passes for it."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=8) as shop:
            first, second = await shop.sell(shop.item("ann"), shop.item("bob"))
            name = "e" * 128
            assert [one.outcome for one in await shop.pay(first, event=name)] == ["paid"]
            assert [one.outcome for one in await shop.pay(first, second, event=name)] == ["repeated", "event_reused"]
            assert [one.outcome for one in await shop.pay(second, event=name[:-1])] == ["paid"]
            events = await shop.client.hgetall(f"{ROOT}:events:1")
            assert [(len(event), len(order)) for event, order in events.items()] == [(9, 9), (9, 9)]

    run(test)
