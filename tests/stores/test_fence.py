"""The fence: on a Valkey that restarted, lost its tail or was restored, nothing is sold until the stores agree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, a_shop, run, until

from core.backends.valkey import ROOT, SHARD
from core.errors import Fenced, FlashproofError, StoreUnavailable, StoreUnknown
from core.local.stores import LocalStores
from core.sale.orders import journal
from core.sale.orders.store import PLACE, pack_places
from core.sale.stock.raise_units import raise_units
from core.workers import fence
from core.workers.fence import JournalGap


async def refusal(call: Callable[[], Awaitable[Any]]) -> type[Exception] | None:
    """Return the kind of error a call ends in; the first after a death only tells that the connection is gone."""
    for _ in range(2):
        try:
            await call()
        except (StoreUnknown, StoreUnavailable) as error:
            found: type[Exception] | None = type(error)
        except FlashproofError as error:
            return type(error)
        else:
            return None
    return found


async def check_closed(shop: Shop) -> None:
    """Check that every verb that changes anything is refused because selling is closed."""
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: shop.place(shop.item("eve", "while closed")),
        lambda: shop.pay(b"x" * 16),
        lambda: shop.cancel(b"x" * 16),
        lambda: shop.expiry.release_due(10, 1_000, []),
        lambda: raise_units(shop.shard, 99, "HOT", 1),
    ]
    assert {await refusal(call) for call in calls} == {Fenced}


def test_a_killed_valkey_sells_nothing_until_a_projector_opened_a_new_epoch(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: selling on counters that nobody compared with what buyers were told."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            paid, unpaid = await shop.sell(shop.item("ann"), shop.item("bob", quantity=2))
            first = await shop.place(shop.item("bob", quantity=2))
            await shop.pay(paid)
            await shop.kill_valkey()
            await check_closed(shop)
            async with shop.projector():
                await shop.projected()
                assert await shop.connection.fetchval("SELECT epoch FROM cursors") == 2
                assert await shop.place(shop.item("bob", quantity=2)) == first
                assert (await shop.place(shop.item("ann")))[0].state == "delivered"
                assert (await shop.place(shop.item("cid", quantity=3)))[0].outcome == "sold_out"
                await shop.sell(shop.item("cid", quantity=2))
                await shop.projected()
            assert await shop.live() == {unpaid: "reserved", shop.item("cid").order_id: "reserved"}
            await shop.check()

    run(test)


def test_a_script_called_under_another_epoch_changes_nothing(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a call on its way while the fence falls, or of a worker that slept through it."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            item = shop.item("ann")
            for meta, said in (("1", "2"), ("2", "1"), ("0", "0"), ("0", "1"), ("1", "0")):
                await shop.client.hset(f"{ROOT}:meta", "epoch", meta)
                shop.shard._epoch = said.encode()
                with pytest.raises(Fenced):
                    await shop.shard._evaluate(
                        await shop.shard._connected(), PLACE, said.encode(), (pack_places([item]),)
                    )
            assert (await shop.live(), await shop.free()) == ({}, 5)
            await shop.client.hset(f"{ROOT}:meta", "epoch", "7")
            assert (await shop.place(item))[0].outcome == "accepted", "a new epoch is learned within the call"

    run(test)


def test_a_projector_alone_that_restarts_closes_nothing(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a rolling update of `flashproof work` that interrupts the sale."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=9) as shop:
            for n in range(3):
                async with shop.projector(ready=False) as projector:
                    await shop.sell(shop.item(f"b{n}"))
                    await shop.stands(projector, "open")
                    await shop.projected()
            assert await shop.connection.fetchval("SELECT epoch FROM cursors") == 1

    run(test)


async def a_long_day(shop: Shop) -> Path:
    """Sell and deliver, copy Valkey's disk, and go on; return the copy."""
    await shop.add("COLD", limit=2)
    await shop.stock(4, "COLD")
    a, b, c, f = await shop.sell(*[shop.item(buyer) for buyer in ("ann", "bob", "cid", "fay")])
    await shop.pay(b)
    await shop.drain()
    copy = shop.copy_valkey("older")
    await shop.pay(a)
    assert await shop.cancel(c) == "cancelled"
    assert await shop.expire(f) == 1
    await shop.sell(shop.item("dan", quantity=2))
    (e, g) = await shop.sell(shop.item("eve"), shop.item("gil", sku="COLD"))
    await shop.pay(e)
    await shop.expire(g)
    assert [one.outcome for one in await shop.pay(g)] == ["late"]
    await shop.stock(3)
    await shop.drain()
    await shop.check()
    return copy


@pytest.mark.parametrize("lost", ["the hours since the copy", "everything"])
def test_a_valkey_put_back_to_an_older_state_agrees_with_postgres_before_it_sells(
    stores: LocalStores, tmp_path: Path, lost: str
) -> None:
    """Stops: oversell by an old counter, a limit forgotten, a sold order sold again, a live order nobody expires."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=9) as shop:
            copy = await a_long_day(shop)
            (dan,) = await shop.place(shop.item("dan", quantity=2))
            record, keys = await shop.record(), await shop.keys_of(shop.item("eve").order_id)
            empty = tmp_path / "empty"
            empty.mkdir()
            await shop.kill_valkey(copy if lost != "everything" else empty)
            await check_closed(shop)
            async with shop.projector():
                await shop.check()
                assert {**(await shop.record()), "cursors": []} == {**record, "cursors": []}
                assert (await shop.place(shop.item("dan", quantity=2))) == [dan]

                again = await shop.place(*[shop.item(buyer) for buyer in ("ann", "bob", "cid", "fay", "eve")])
                assert all(one.outcome in ("replayed", "accepted") for one in again)
                await shop.projected()
                await shop.check()
                assert await shop.keys_of(shop.item("eve").order_id) == keys
                assert (await shop.place(shop.item("gil", "new", 2, "COLD")))[0].outcome == "limit_reached"

                free = await shop.free()
                answers = await shop.place(*[shop.item(f"late-{n}") for n in range(12)])
                assert [one.outcome for one in answers] == ["accepted"] * free + ["sold_out"] * (12 - free)
                await shop.pay(*[shop.item(f"late-{n}").order_id for n in range(free)])
                await shop.projected()
            assert await shop.rows("SELECT count(*) FROM owed") == [(0,)]
            await shop.check()

    run(test)


def test_a_payment_told_again_after_valkey_lost_everything_is_still_one_payment(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: a gateway's repetition taken for a second charge, or refused, because Valkey forgot order and event."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            first, second = await shop.sell(shop.item("ann"), shop.item("bob"))
            await shop.pay(first, event="e-1")
            await shop.drain()
            (tmp_path / "empty").mkdir()
            await shop.kill_valkey(tmp_path / "empty")
            await shop.open()
            await shop.pay(second, event="e-2")
            assert [one.outcome for one in await shop.pay(first, event="e-1")] == ["unknown_order"]
            known = ["delivered", "", "HOT", "ann", 1, 1999, "CNY", 1, 1, 0]
            await shop.pay(first, event="e-1", known=known)
            await shop.drain()
            assert await shop.rows("SELECT event_id, applied FROM payments ORDER BY 1") == [
                ("e-1", "first"), ("e-2", "first")
            ]  # fmt: skip
            assert [await shop.state(order_id) for order_id in (first, second)] == ["delivered", "delivered"]
            await shop.check()

    run(test)


@pytest.mark.parametrize("valkey_restarted", [True, False])
def test_a_postgres_older_than_the_trimmed_journal_keeps_selling_closed(
    stores: LocalStores, tmp_path: Path, valkey_restarted: bool
) -> None:
    """Stops: a database restored from a backup that silently lacks the orders between backup and now."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=9) as shop:
            await shop.sell(shop.item("ann"))
            await shop.drain()
            backup = await journal.cursor(shop.connection, SHARD)
            await shop.sell(shop.item("bob"))
            await shop.drain()
            newest = await journal.cursor(shop.connection, SHARD)
            await shop.sell(shop.item("cid"))
            put_back = "UPDATE cursors SET entry_ms = $1, entry_seq = $2"
            await shop.connection.execute(put_back, *backup)
            if valkey_restarted:
                await shop.kill_valkey()
            with pytest.raises(JournalGap, match="Trimmed below"):
                await shop.open()
            await check_closed(shop)
            async with shop.projector(ready=False) as projector:
                await asyncio.sleep(0.5)
                assert projector.standing != "open"
                await check_closed(shop)
                assert await journal.cursor(shop.connection, SHARD) == backup, "nothing is projected over a gap"
                await shop.connection.execute(put_back, *newest)
                await shop.stands(projector, "open")
                await shop.projected()
            await shop.check()

    run(test)


@pytest.mark.parametrize("step", ["_check_journal", "_write_all_rules", "agree", "epoch", "raise_left_behind"])
def test_a_fence_that_dies_half_way_stays_shut_and_is_done_again(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Stops: a shop left open, or for ever closed, by a projector that died while it compared the stores."""

    async def die(*_: object, **__: object) -> None:
        raise ConnectionResetError("killed")

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            await shop.kill_valkey()
            await shop.connection.execute("INSERT INTO imports (sku, units, digest) VALUES ('HOT', 4, 'x')")
            with monkeypatch.context() as patch:
                if step == "epoch":
                    patch.setattr(shop.client, "hsetnx", die)  # PostgreSQL has noted the epoch, Valkey not yet
                else:
                    patch.setattr(fence, step, die)
                with pytest.raises(ConnectionResetError):
                    await shop.open()
            if step != "raise_left_behind":
                await check_closed(shop)
            async with shop.projector():
                await until(lambda: raised(shop, 9), "what was left behind is raised")
                await shop.projected()
            assert await shop.state(order_id) == "delivered"
            await shop.check()

    async def raised(shop: Shop, units: int) -> bool:
        return await shop.free() + sum([n for (n,) in await shop.rows("SELECT quantity FROM orders")]) == units

    run(test)


def test_the_tail_that_was_not_projected_is_projected_before_the_shop_opens(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: counters and orders "mended" to a database that has not yet heard of the last sales, payments, ends."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=200) as shop:
            early = await shop.sell(*[shop.item(f"e{n}", quantity=2) for n in range(5)])
            await shop.drain()
            assert await shop.cancel(early[0]) == "cancelled"
            await shop.expire(early[1], early[2])
            assert [one.outcome for one in await shop.pay(early[1], early[3], quantity=2)] == ["late", "paid"]
            ids = []
            for n in range(80):  # more entries than one turn of the projector takes
                ids += await shop.sell(shop.item(f"b{n}", quantity=2))
            await shop.pay(*ids[:40], quantity=2)
            free = await shop.free()
            await shop.kill_valkey()
            async with shop.projector():
                await shop.check()
                assert await shop.free() == free == 200 - 3 * 2 - 80 * 2
                assert (await shop.place(shop.item("b79", quantity=2)))[0].outcome == "replayed"
            assert not await shop.rows("SELECT FROM quarantine")

    run(test)


def test_an_import_that_died_before_its_raise_is_raised_exactly_once(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: keys that are in the database and never on sale; or on sale twice, by fence, chore and command."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            add = "INSERT INTO imports (sku, units, digest) VALUES ('HOT', $1, $2) RETURNING id"
            early = await shop.connection.fetchval(add, 5, b"early")
            async with shop.projector():
                await until(lambda: has_free(shop, 7), "the chore has raised the first")
                await shop.projected()
                late = await shop.connection.fetchval(add, 10, b"late")
                found = [await raise_units(shop.shard, late, "HOT", 10), await raise_units(shop.shard, early, "HOT", 5)]
                assert {outcome for outcome, _ in found} <= {"raised", "repeated"}
                assert found[1] == ("repeated", 17)
                await shop.projected()
            await shop.connection.execute(add, 100, b"last")
            await shop.kill_valkey()
            async with shop.projector():
                await until(lambda: has_free(shop, 117), "the fence has raised the last")
                await shop.projected()
            await shop.check()

    async def has_free(shop: Shop, units: int) -> bool:
        return await shop.free() == units

    run(test)
