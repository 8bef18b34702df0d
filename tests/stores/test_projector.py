"""The projector: facts become rows and keys exactly once, whatever dies, is repeated, or is done by two."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError
from shop import PRICE, a_shop, run

from core.backends.valkey import ROOT, SHARD
from core.errors import StoreUnknown
from core.facts import Released, close_record, parts
from core.local.stores import LocalStores
from core.sale.delivery.deliver import TornClaim
from core.sale.orders import journal
from core.sale.orders.journal import CursorMoved
from core.sale.orders.project import project
from core.sale.orders.store import SettleStore
from core.workers import projector as projector_module


def test_every_kind_of_fact_becomes_rows_and_events_by_legal_moves(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a kind of fact that is dropped, applied twice, or applied in an order the law forbids."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            buyers = ("ann", "bob", "cid", "dan", "eve")
            bought, gone, back, late, poor = await shop.sell(*[shop.item(buyer) for buyer in buyers])
            assert [one.outcome for one in await shop.pay(bought)] == ["paid"]
            assert await shop.cancel(back) == "cancelled"
            assert await shop.expire(gone, late, poor) == 3
            assert [one.outcome for one in await shop.pay(late)] == ["late"]
            await shop.sell(shop.item("fay", quantity=3))
            assert [one.outcome for one in await shop.pay(poor, bought)] == ["refund_due", "refund_due"]
            await shop.drain()

            lives = {"bought": bought, "gone": gone, "back": back, "late": late, "poor": poor}
            assert {name: await shop.life(order_id) for name, order_id in lives.items()} == {
                "bought": ["reserved", "paid", "delivered"],
                "gone": ["reserved", "expired"],
                "back": ["reserved", "cancelled"],
                "late": ["reserved", "expired", "paid", "delivered"],
                "poor": ["reserved", "expired", "refund_due"],
            }
            assert await shop.rows(
                "SELECT order_id, amount, currency, applied, refusal FROM payments ORDER BY event_id"
            ) == [
                (UUID(bytes=bought), PRICE, "CNY", "first", ""),
                (UUID(bytes=late), PRICE, "CNY", "late", ""),
                (UUID(bytes=poor), PRICE, "CNY", "refund_due", "sold_out"),
                (UUID(bytes=bought), PRICE, "CNY", "refund_due", "charged_twice"),
            ]
            assert len({*await shop.keys_of(bought), *await shop.keys_of(late)}) == 2
            await shop.check()

    run(test)


@settings(max_examples=9)
@given(st.data())
def test_however_the_journal_is_cut_into_turns_the_record_is_the_same(
    stores: LocalStores, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Stops: facts applied kind by kind that only come out right when a batch holds all, or one, of an order's."""
    cuts = data.draw(st.lists(st.integers(1, 3), min_size=8, max_size=8))

    async def test() -> None:
        async with a_shop(stores, tmp_path_factory.mktemp("cut"), units=4) as shop:
            ids = await shop.sell(*[shop.item(buyer, quantity=n) for buyer, n in (("ann", 2), ("bob", 1), ("cid", 1))])
            await shop.pay(ids[0], quantity=2)
            await shop.expire(ids[1], ids[2])
            await shop.pay(ids[1])
            await shop.pay(ids[1])
            await shop.sell(shop.item("dan"))
            await shop.pay(ids[2])
            for most in cuts:
                if await shop.entries():
                    outcome = await shop.project(most)
                    await shop.settle.settle(outcome.settled, "")
            assert not await shop.entries()
            assert [await shop.state(order_id) for order_id in ids] == ["delivered", "delivered", "refund_due"]
            assert sorted(await shop.rows("SELECT applied, refusal FROM payments")) == [
                ("first", ""), ("late", ""), ("refund_due", "charged_twice"), ("refund_due", "sold_out")
            ]  # fmt: skip
            await shop.check()

    run(test)


def test_the_same_entries_again_change_nothing(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a second run over the same entries that delivers again: the cursor says they are done."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            (order_id,) = await shop.sell(shop.item("ann", quantity=2))
            await shop.pay(order_id, quantity=2)
            entries, cursor = await shop.entries(), await journal.cursor(shop.connection, SHARD)
            outcome = await project(shop.connection, SHARD, entries, cursor)
            assert (outcome.facts, outcome.keys, outcome.poisoned) == (2, 2, 0)
            before = await shop.record()
            for again in (entries, entries[1:]):
                with pytest.raises(CursorMoved):
                    await project(shop.connection, SHARD, again, cursor)
            assert await shop.record() == before

            # Even a cursor that was set back (which nothing does) gives no second key and no second payment.
            await shop.connection.execute("UPDATE cursors SET entry_ms = $1, entry_seq = $2", *cursor)
            await project(shop.connection, SHARD, entries, cursor)
            after = await shop.record()
            assert {name: rows for name, rows in after.items() if before[name] != rows} == {}

    run(test)


@pytest.mark.parametrize("where", ["placed", "stocked", "advance"])
def test_a_death_before_the_commit_leaves_no_trace(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stops: rows or keys outside the transaction that moves the cursor."""
    step = getattr(journal, where)

    async def die(*arguments: Any) -> None:
        await step(*arguments)
        raise ConnectionResetError("killed")

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            before = await shop.record()
            with monkeypatch.context() as patch:
                patch.setattr(journal, where, die)
                with pytest.raises(ConnectionResetError):
                    await shop.project()
            assert await shop.record() == before
            async with shop.projector():
                await shop.projected()
            assert await shop.life(order_id) == ["reserved", "paid", "delivered"]
            await shop.check()

    run(test)


def test_a_death_between_commit_and_settle_is_made_good_by_the_next_projector(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: delivered orders that stay live in Valkey for ever, and a journal that is never trimmed."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            paid, owed = await shop.sell(shop.item("ann", quantity=2), shop.item("bob"))
            await shop.pay(paid, quantity=2)
            assert (await shop.project()).keys == 2
            assert await shop.live() == {paid: "paid", owed: "reserved"}
            keys = await shop.keys_of(paid)
            async with shop.projector():
                await shop.projected()
                assert await shop.live() == {owed: "reserved"}
            assert await shop.keys_of(paid) == keys
            assert (await shop.place(shop.item("ann", quantity=2)))[0].state == "delivered"
            await shop.check()

    run(test)


def test_a_release_told_late_does_not_end_an_order_that_was_paid_meanwhile(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: expired → projected → paid late → "expired" settled: the paid order ended with its units held for ever."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.expire(order_id)
            outcome = await shop.project()
            assert [one.outcome for one in await shop.pay(order_id)] == ["late"]
            await shop.settle.settle(outcome.settled, "")
            assert await shop.live() == {order_id: "paid"}
            assert [one.outcome for one in await shop.pay(order_id)] == ["refund_due"]
            async with shop.projector():  # its recovery tells the same old news once more
                await shop.projected()
            assert await shop.life(order_id) == ["reserved", "expired", "paid", "delivered"]
            await shop.check()

    run(test)


def test_of_two_projectors_one_stands_by_and_takes_over_when_the_other_is_gone(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: `flashproof work` started twice by mistake, and everything projected or delivered twice."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=60) as shop:
            ids = [f"buyer-{n}" for n in range(30)]
            async with shop.projector() as first, shop.projector(ready=False) as second:
                await shop.stands(second, "standby")
                orders = await shop.sell(*[shop.item(buyer, quantity=2) for buyer in ids[:15]])
                await shop.pay(*orders, quantity=2)
                await shop.projected()
                assert (first.standing, second.standing) == ("open", "standby")
                first.stop()
                orders += await shop.sell(*[shop.item(buyer, quantity=2) for buyer in ids[15:]])
                await shop.pay(*orders[15:], quantity=2)
                await shop.stands(second, "open")
                await shop.projected()
            assert [await shop.state(order_id) for order_id in orders] == ["delivered"] * 30
            assert await shop.rows("SELECT count(*), count(DISTINCT key_id) FROM deliveries") == [(60, 60)]
            await shop.check()

    run(test)


def test_a_projector_that_lost_its_lock_cannot_commit(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: an old projector that was frozen, lost the shard, woke up and applied its turn on top of the new one's."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=2) as shop:
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            entries, cursor = await shop.entries(), await journal.cursor(shop.connection, SHARD)
            async with shop.projector():
                await shop.projected()
            before = await shop.record()
            with pytest.raises(CursorMoved):
                await project(shop.connection, SHARD, entries, cursor)
            assert await shop.record() == before

    run(test)


def test_a_record_with_a_flipped_byte_is_set_aside_and_its_neighbours_go_on(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: one damaged record that stops the shop, drops its batch, or becomes a wrong order."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=5) as shop:
            ids = await shop.sell(*[shop.item(buyer) for buyer in ("ann", "bob", "cid")])
            ((entry_id, (record, _)),) = await shop.shard.command("XRANGE", f"{ROOT}:facts", "-", "+")
            damaged = record.replace(b"bob", b"bod")
            await shop.client.delete(f"{ROOT}:facts")
            stranger = close_record(b"x" * 16, Released("expired", 1))[:-1]
            await shop.client.execute_command("XADD", f"{ROOT}:facts", entry_id, damaged, stranger)
            (later,) = await shop.sell(shop.item("dan"))
            await shop.pay(ids[0], later)
            async with shop.projector():
                await shop.projected()
            assert [await shop.state(order_id) for order_id in (*ids, later)] == [
                "delivered", "None", "reserved", "delivered"
            ]  # fmt: skip
            assert await shop.rows("SELECT record, reason, raw FROM quarantine ORDER BY record") == [
                (1, "digest does not match", parts(damaged)[1]),
                (3, "digest does not match", stranger),
            ]
            assert (await shop.live())[ids[1]] == "reserved", "its units stay with it until an operator has looked"
            assert await shop.cancel(ids[1]) == "cancelled"
            async with shop.projector():
                await shop.projected()
            assert ("no reservation to release",) in await shop.rows("SELECT reason FROM quarantine")
            await shop.check()

    run(test)


def test_postgres_killed_in_the_middle_of_a_sale_loses_and_doubles_nothing(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a turn applied twice or not at all around a death of the database; a projector that never comes back."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=40) as shop:
            orders: list[bytes] = []
            async with shop.projector() as projector:
                for death in range(2):
                    for part in range(5):
                        batch = [shop.item(f"b{death}-{part}-{n}", quantity=2) for n in range(2)]
                        placed = await shop.sell(*batch)
                        await shop.pay(*placed, quantity=2)
                        orders += placed
                        if part == 2:
                            await shop.kill_postgres()
                await shop.projected()
                await shop.stands(projector, "open")
            assert [await shop.state(order_id) for order_id in orders] == ["delivered"] * 20
            assert await shop.rows("SELECT count(*), count(DISTINCT key_id) FROM deliveries") == [(40, 40)]
            await shop.check()

    run(test)


def test_a_large_turn_that_dies_between_its_settlings_is_settled_whole(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a journal trimmed after the first part of what must be settled; the rest would stay live for ever."""
    monkeypatch.setattr(projector_module, "BATCH_MOST", 3)

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=10) as shop:
            ids = await shop.sell(*[shop.item(f"b{n}") for n in range(10)])
            await shop.pay(*ids)
            calls = 0
            settle = SettleStore.settle

            async def die(self: SettleStore, orders: Any, keep_from: str) -> int:
                nonlocal calls
                calls += 1
                if calls == 3:
                    raise StoreUnknown("killed")
                return await settle(self, orders, keep_from)

            monkeypatch.setattr(SettleStore, "settle", die)
            async with shop.projector() as projector:
                await shop.projected()
                await shop.stands(projector, "open")
            assert calls > 3
            assert await shop.live() == {}
            await shop.check()

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("another operation is in progress"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.DeadlockDetectedError("deadlock"),
        RedisError("odd"),
        TimeoutError(),
        OSError(104, "reset"),
        StoreUnknown(),
        TornClaim(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_projector_outlives_every_error_a_store_can_give(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Stops: a loop ended by an error nobody had named: no delivery until somebody looks."""
    failed = 0

    async def fail_once(*arguments: Any) -> Any:
        nonlocal failed
        failed += 1
        if failed == 1:
            raise error
        return await project(*arguments)

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop, shop.projector():
            monkeypatch.setattr(projector_module, "project", fail_once)
            (order_id,) = await shop.sell(shop.item("ann"))
            await shop.pay(order_id)
            await shop.projected()
            assert failed > 1
            assert await shop.state(order_id) == "delivered"

    run(test)
