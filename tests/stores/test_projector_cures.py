"""What the projector makes good: orders without keys, retries older than memory, claims that would be torn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest
from shop import Shop, a_shop, run, until

from core.backends import postgres
from core.backends.texts import text
from core.backends.valkey import ROOT
from core.local.stores import LocalStores
from core.sale.delivery import deliver as delivery
from core.sale.delivery.deliver import TornClaim, deliver
from core.workers import projector as projector_module


@pytest.mark.parametrize("before", ["delivered", "expired"])
def test_a_retry_older_than_every_record_of_it_gives_its_unit_back_and_keeps_the_old_order(
    stores: LocalStores, tmp_path: Path, before: str
) -> None:
    """Stops: one key, two orders; or a unit that is reserved for ever because the order was over long ago."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await (shop.pay(order_id) if before == "delivered" else shop.expire(order_id))
            await shop.drain()
            keys = await shop.keys_of(order_id)
            old = await shop.record()
            gen = int(await shop.client.hget(f"{ROOT}:meta", "gen"))
            await shop.client.delete(f"{ROOT}:done:{gen}", f"{ROOT}:done:{gen - 1}")

            assert [one.outcome for one in await shop.place(shop.item("ann"))] == ["accepted"]
            free = await shop.free()
            async with shop.projector():
                await shop.projected()
            assert await shop.free() == free + 1
            assert await shop.live() == {}
            assert await shop.keys_of(order_id) == keys
            assert {table: rows for table, rows in (await shop.record()).items() if table != "cursors"} == {
                table: rows for table, rows in old.items() if table != "cursors"
            }
            (again,) = await shop.place(shop.item("ann"))
            assert (again.outcome, again.state) == ("replayed", before)
            await shop.check()

    run(test)


@pytest.mark.parametrize("then", ["paid", "cancelled", "expired"])
def test_what_happens_to_such_a_retry_before_the_projector_sees_it_never_touches_the_old_order(
    stores: LocalStores, tmp_path: Path, then: str
) -> None:
    """Stops: a delivered order that expires a second time, or a second charge for it that nobody gives back."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            await shop.drain()
            keys = await shop.keys_of(order_id)
            await shop.client.delete(f"{ROOT}:done:1")
            await asyncio.sleep(0.002)
            await shop.sell(shop.item("ann"))
            if then == "paid":
                assert [one.outcome for one in await shop.pay(order_id)] == ["paid"]
            elif then == "cancelled":
                assert await shop.cancel(order_id) == "cancelled"
            else:
                assert await shop.expire(order_id) == 1
            async with shop.projector():
                await shop.projected()
            assert await shop.life(order_id) == ["reserved", "paid", "delivered"]
            assert await shop.keys_of(order_id) == keys
            assert await shop.rows("SELECT applied, refusal FROM payments ORDER BY event_id") == [
                ("first", ""), *[("refund_due", "order_not_payable")][: then == "paid"]
            ]  # fmt: skip
            await shop.check()
            (again,) = await shop.place(shop.item("ann"))
            assert (again.outcome, again.state) == ("replayed", "delivered")
            assert [one.outcome for one in await shop.pay(order_id)] == ["refund_due"]
            await shop.drain()
            await shop.check()

    run(test)


def test_a_death_before_such_a_retry_was_settled_gives_its_unit_back_once(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a recovery that forgets the unit of the old retry, or gives it back a second time."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            await shop.drain()
            await shop.client.delete(f"{ROOT}:done:1")
            await asyncio.sleep(0.002)  # the instant of the second placing tells the two apart
            await shop.sell(shop.item("ann"))
            outcome = await shop.project()
            assert outcome.settled == [(order_id, "delivered", True)]
            for _ in range(2):
                async with shop.projector():
                    await shop.projected()
                await shop.check()
            await shop.settle.settle(outcome.settled, "")
            await shop.check()

    run(test)


def test_a_paid_order_without_a_free_key_is_delivered_after_an_import(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: paid, no key, for ever; and one order's want that stands before the orders of other products."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            await shop.add("COLD")
            await shop.stock(1, "COLD")
            await shop.connection.execute("UPDATE card_keys SET state = 'void' WHERE sku = 'HOT' AND id % 3 > 0")
            poor, cold = await shop.sell(shop.item("ann", quantity=2), shop.item("bob", sku="COLD"))
            await shop.pay(poor, quantity=2)
            await shop.pay(cold)
            async with shop.projector():
                await shop.projected()
                assert await shop.state(cold) == "delivered"
                assert await shop.state(poor) == "paid"
                assert await shop.live() == {poor: "paid"}
                await shop.stock(2)

                async def cured() -> bool:
                    return await shop.state(poor) == "delivered" and not await shop.live()

                await until(cured, "the paid order has its keys")
                await shop.projected()
            assert len(await shop.keys_of(poor)) == 2
            await shop._check_orders()

    run(test)


def test_one_product_without_keys_does_not_starve_the_cure_of_another(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a look at the first thousand orders that wait, all of one product, while keys of another are there."""
    monkeypatch.setattr(projector_module, "BATCH_MOST", 2)

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            await shop.add("LAST")
            await shop.stock(1, "LAST")
            await shop.connection.execute("UPDATE card_keys SET state = 'void'")
            ids = await shop.sell(*[shop.item(buyer) for buyer in ("ann", "bob", "cid")], shop.item("dan", sku="LAST"))
            await shop.pay(*ids)
            await shop.drain()
            await shop.stock(1, "LAST")

            async def cured() -> bool:
                return await shop.state(ids[3]) == "delivered"

            async with shop.projector():
                await until(cured, "the order of the product that has keys is delivered", 5)

    run(test)


@pytest.mark.parametrize("guard", ["AND m.found = m.quantity ", "AND k.state = 'free'\n    RETURNING"])
def test_without_one_of_its_guards_a_claim_is_rolled_back_whole(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """Stops: an order left with some of its keys, or with somebody else's, when one of the claim's guards is lost."""
    claim = text("sale/delivery/claim.sql")
    broken = claim.replace(guard, "RETURNING" if "RETURNING" in guard else "", 1)
    assert broken != claim
    if "RETURNING" in guard:
        broken = broken.replace("sku = w.sku AND state = 'free'", "sku = w.sku", 1)
    monkeypatch.setattr(delivery, "text", lambda path: broken)

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=4) as shop:
            (first,) = await shop.sell(shop.item("ann"))
            await shop.pay(first)
            await shop.drain()
            await shop.connection.execute("UPDATE card_keys SET state = 'void' WHERE id % 2 = 0 AND state = 'free'")
            (order_id,) = await shop.sell(shop.item("bob", quantity=3))
            await shop.pay(order_id, quantity=3)
            before = await shop.record()
            with pytest.raises((TornClaim, asyncpg.UniqueViolationError)):
                await shop.project()
            assert await shop.record() == before
            monkeypatch.undo()
            await shop.drain()
            assert (await shop.state(order_id), await shop.keys_of(order_id)) == ("paid", [])
            await shop._check_orders()

    run(test)


def test_orders_of_many_sizes_and_too_few_keys_get_all_or_none_oldest_first(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: a claim that is torn at the last keys, or that serves the later buyer before the earlier."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=20) as shop:
            sizes = [1, 3, 2, 4, 1, 2, 3, 1]
            ids = [await shop.sell(shop.item(f"b{n}", quantity=size)) for n, size in enumerate(sizes)]
            for (order_id,), size in zip(ids, sizes, strict=True):
                await shop.pay(order_id, quantity=size)
            await shop.connection.execute("UPDATE card_keys SET state = 'void' WHERE id % (1 << 20) > 12")
            assert (await shop.project(64)).keys == 11
            had = [await shop.keys_of(order_id) for (order_id,) in ids]
            assert [len(keys) for keys in had] == [1, 3, 2, 4, 1, 0, 0, 0]
            assert [key for keys in had for key in keys] == [f"HOT-0-{n:06d}" for n in range(11)]
            await shop._check_orders()

    run(test)


def test_two_claims_at_the_same_instant_never_give_one_key_or_one_line_twice(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: check, then take: two deliveries that both saw the same free key, or the same order still owed."""

    async def claim(shop: Shop) -> int:
        connection = await postgres.connect(shop.settings.postgres_dsn)
        try:
            async with connection.transaction():
                rows = await connection.fetch("SELECT id FROM orders WHERE state = 'paid' ORDER BY random()")
                return sum((await deliver(connection, [row["id"] for row in rows])).values())
        except (TornClaim, asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            return 0
        finally:
            connection.terminate()

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=60) as shop:
            ids = await shop.sell(*[shop.item(f"b{n}", quantity=2) for n in range(30)])
            await shop.connection.execute("UPDATE card_keys SET state = 'void'")
            await shop.pay(*ids, quantity=2)
            await shop.drain()
            await shop.connection.execute("UPDATE card_keys SET state = 'free' WHERE id % 2 = 0")
            given = 0
            for _ in range(10):
                given += sum(await asyncio.gather(*[claim(shop) for _ in range(4)]))
            assert given == 30
            assert await shop.rows("SELECT count(*), count(DISTINCT key_id) FROM deliveries") == [(30, 30)]
            assert await shop.rows("SELECT state, count(*) FROM card_keys GROUP BY 1 ORDER BY 1") == [
                ("sold", 30), ("void", 30)
            ]  # fmt: skip
            await shop._check_orders()

    run(test)


def test_a_death_between_the_cure_and_its_settling_is_made_good(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: an order cured and delivered that stays live in Valkey because the projector died before it told so."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            await shop.connection.execute("UPDATE card_keys SET state = 'void'")
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            await shop.drain()
            await shop.stock(1)
            states, keys = await delivery.cure(shop.connection, 10)
            assert (list(states.values()), keys) == (["delivered"], 1)
            assert await shop.live() == {order_id: "paid"}

            async def gone() -> bool:
                return not await shop.live() and not await shop.rows("SELECT FROM owed")

            async with shop.projector():
                await until(gone, "the cured order is settled and no longer owed")
            assert len(await shop.keys_of(order_id)) == 1
            await shop._check_orders()

    run(test)
