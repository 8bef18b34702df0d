"""What the fence mends when the stores disagree, what it leaves alone, and that it finds nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop import Shop, a_shop, run

from core.backends.valkey import ROOT
from core.local.stores import LocalStores
from core.workers.agree import Repairs, agree


def test_after_an_ordinary_death_there_is_nothing_to_mend(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a comparison that finds differences where there are none, and "mends" what was right."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=9) as shop:
            ids = await shop.sell(*[shop.item(buyer, quantity=2) for buyer in ("ann", "bob", "买家", "dan")])
            await shop.pay(ids[0], ids[1], quantity=2)
            await shop.expire(ids[1], ids[2])
            await shop.kill_valkey()
            await shop.drain()
            held = await shop.client.hgetall(f"{ROOT}:live")
            assert await agree(shop.connection, shop.client) == Repairs()
            assert await shop.client.hgetall(f"{ROOT}:live") == held
            await shop.check()

    run(test)


@pytest.mark.parametrize("wrong", ["free", "bought", "live", "paid", "due", "stranger"])
def test_whatever_valkey_holds_that_postgres_does_not_say_is_mended(
    stores: LocalStores, tmp_path: Path, wrong: str
) -> None:
    """Stops: a damaged counter, count, order or stray buyer that a restart leaves as it is."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=9) as shop:
            first, second = await shop.sell(shop.item("ann", quantity=2), shop.item("bob"))
            await shop.pay(second)
            await shop.drain()
            await shop.connection.execute("UPDATE card_keys SET state = 'sold' WHERE state = 'free'")
            (owed,) = await shop.sell(shop.item("cid"))
            await shop.pay(owed)
            await shop.drain()
            unsold = "NOT EXISTS (SELECT FROM deliveries WHERE key_id = id)"
            await shop.connection.execute(f"UPDATE card_keys SET state = 'free' WHERE {unsold}")
            if wrong == "free":
                await shop.client.hset(f"{ROOT}:sku:HOT", "free", 500)
            elif wrong == "bought":
                await shop.client.hset(f"{ROOT}:bought:HOT", "ann", 1)
            elif wrong == "stranger":
                await shop.client.hset(f"{ROOT}:bought:HOT", "nobody", 5)
            elif wrong == "paid":
                await shop.client.hdel(f"{ROOT}:live", owed)
            elif wrong == "live":
                await shop.client.hdel(f"{ROOT}:live", first)
                await shop.client.zrem(f"{ROOT}:due", first)
            else:
                await shop.client.zrem(f"{ROOT}:due", first)
            await shop.kill_valkey()
            await shop.open()
            await shop.check()
            assert first in await shop.ends()
            assert (await shop.place(shop.item("ann", quantity=2)))[0].outcome == "replayed"
            assert await shop.expire(first) == 1
            await shop.drain()
            await shop.check()

    run(test)


def test_an_import_whose_fact_was_damaged_keeps_its_units_through_the_fence(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: units raised and then "mended" away for ever, because the fact that tells of them was set aside."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            await shop.stock(5)
            await damage(shop)
            await shop.drain()
            assert (await shop.rows("SELECT reason FROM quarantine"), await shop.free()) == (
                [("digest does not match",)], 7
            )  # fmt: skip
            await shop.kill_valkey()
            await shop.open()
            assert await shop.free() == 7
            await shop.check()

    run(test)


@pytest.mark.parametrize("late", [False, True])
def test_a_payment_whose_fact_was_damaged_is_not_taken_back_by_the_fence(
    stores: LocalStores, tmp_path: Path, late: bool
) -> None:
    """Stops: an order that Valkey knows as paid "mended" to unpaid or expired: charged, and its units sold again."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            if late:
                await shop.expire(order_id)
            await shop.drain()
            await shop.pay(order_id)
            await damage(shop)
            await shop.drain()
            await shop.kill_valkey()
            await shop.open()
            assert await shop.live() == {order_id: "paid"}
            assert (await shop.expiry.release_due(500, 1_000, []))[0] == 0
            assert (await shop.free(), await shop.bought("ann")) == (1, 1)
            assert await shop.cancel(order_id) == "not_cancellable"

    run(test)


async def damage(shop: Shop) -> None:
    """Flip a bit in the one record the journal has: in an order's own bytes, or in a fact's."""
    ((entry_id, (record, _)),) = await shop.shard.command("XRANGE", f"{ROOT}:facts", "-", "+")
    await shop.client.delete(f"{ROOT}:facts")
    at = len(record) // 2
    flipped = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
    await shop.client.execute_command("XADD", f"{ROOT}:facts", entry_id, flipped, "")
