"""Agree: make Valkey say what PostgreSQL says, while selling is closed and the journal is drained.

Used by the fence after Valkey restarted, lost its tail or was restored. In the ordinary case every comparison holds and
nothing is written. Orders that Valkey has and PostgreSQL lacks even after the journal is drained, or that Valkey has as
paid and PostgreSQL not (their fact was quarantined), are kept with their units: an operator decides.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
import redis.asyncio as redis

from core.backends.postgres import Connection
from core.backends.texts import text
from core.backends.valkey import ROOT
from core.ids import ORDER_NAME_BYTES, fingerprint, split_ids
from core.sale.orders.finished import close_finished
from core.sale.orders.order import HOLDING

_PAGE = 5_000
_SCAN_MOST_S = 300.0  # one pass over all orders of a large shop
_HOLDING = sorted(state.value for state in HOLDING)
_UNPAID = ("expired", "cancelled")
_pack = msgspec.msgpack.Encoder().encode


class Repairs(msgspec.Struct):
    """What had to be mended: counters, per-buyer counts, orders given back to Valkey, orders settled there."""

    counters: int = 0
    buyers: int = 0
    restored: int = 0
    settled: int = 0
    strays: int = 0

    @property
    def any(self) -> bool:
        """Whether the stores disagreed at all."""
        return bool(self.counters or self.buyers or self.restored or self.settled or self.strays)


async def agree(connection: Connection, store: redis.Redis) -> Repairs:
    """Compare and mend; return what was mended.

    Raises:
        RedisError, asyncpg errors: selling stays closed; the fence begins again.
    """
    repairs = Repairs()
    await _agree_imports(connection, store, repairs)
    strays = await _agree_live(connection, store, repairs)
    bought = await _wanted_bought(connection)
    for row in await connection.fetch(text("sale/stock/wanted_stock.sql"), _HOLDING, timeout=_SCAN_MOST_S):
        sku = row["sku"]
        stray = strays.get(sku, {})
        free = row["raised"] - row["void"] - row["held"] - sum(stray.values())
        if int(await store.hget(f"{ROOT}:sku:{sku}", "free") or 0) != free:
            await store.hset(f"{ROOT}:sku:{sku}", "free", str(free))
            repairs.counters += 1
        of = bought.get(sku, {})
        for buyer, units in stray.items():
            of[buyer] = of.get(buyer, 0) + units
        await _agree_bought(store, sku, of, repairs)
    for row in await connection.fetch("SELECT id, units FROM imports WHERE raised_at IS NOT NULL"):
        await store.hsetnx(f"{ROOT}:imports", row["id"].to_bytes(16, "big"), row["units"])
    return repairs


async def _wanted_bought(connection: Connection) -> dict[str, dict[str, int]]:
    """Return what the record says: SKU, then buyer, to units."""
    wanted: dict[str, dict[str, int]] = {}
    rows = await connection.fetch(text("sale/stock/wanted_bought.sql"), _HOLDING, timeout=_SCAN_MOST_S)
    for row in rows:
        wanted.setdefault(row["sku"], {})[row["buyer"]] = row["units"]
    return wanted


async def _agree_imports(connection: Connection, store: redis.Redis, repairs: Repairs) -> None:
    """Note imports whose units Valkey has, though the fact that told so was set aside: they stay on sale."""
    for row in await connection.fetch("SELECT id FROM imports WHERE raised_at IS NULL"):
        if await store.hexists(f"{ROOT}:imports", row["id"].to_bytes(16, "big")):
            await connection.execute("UPDATE imports SET raised_at = now() WHERE id = $1", row["id"])
            repairs.counters += 1


async def _agree_live(connection: Connection, store: redis.Redis, repairs: Repairs) -> dict[str, dict[str, int]]:
    """Bring back what Valkey lost, settle what is over; return the units of strays by SKU and buyer."""
    unseen: dict[bytes, list[object]] = {}
    async for name, value in store.hscan_iter(f"{ROOT}:live", count=_PAGE):
        unseen[name] = msgspec.msgpack.decode(value)
    gen = int(await store.hget(f"{ROOT}:meta", "gen") or 1)
    due: set[bytes] = set()
    async for joined, _ in store.zscan_iter(f"{ROOT}:due", count=_PAGE):
        due.update(split_ids(joined))
    after = 0
    while rows := await connection.fetch(text("sale/stock/wanted_live.sql"), after, _PAGE, timeout=_SCAN_MOST_S):
        after = rows[-1]["seq"]
        pipe = store.pipeline(transaction=False)
        for row in rows:
            order_id = row["id"].bytes
            known = unseen.pop(order_id, None)
            if known is not None and known[0] == "paid" and row["state"] == "reserved":
                repairs.strays += 1
                continue
            if known is not None and known[0] == row["state"] and (known[0] == "paid" or order_id in due):
                continue
            repairs.restored += 1
            pipe.hset(f"{ROOT}:live", order_id, _pack(_record(row)))
            pipe.append(f"{ROOT}:ids:{gen}:{row['sku']}", order_id[:ORDER_NAME_BYTES])
            if row["state"] == "reserved":
                pipe.zadd(f"{ROOT}:due", {order_id: row["pay_by_ms"]})
        await pipe.execute()
    return await _part(connection, store, unseen, repairs)


async def _part(
    connection: Connection, store: redis.Redis, unseen: dict[bytes, list[object]], repairs: Repairs
) -> dict[str, dict[str, int]]:
    """Part live orders that PostgreSQL has finished from those it has never seen."""
    strays: dict[str, dict[str, int]] = {}
    ids = list(unseen)
    gen = int(await store.hget(f"{ROOT}:meta", "gen") or 0)
    for at in range(0, len(ids), _PAGE):
        page = ids[at : at + _PAGE]
        rows = await connection.fetch(
            "SELECT id, state FROM orders WHERE id = ANY ($1::uuid[])",
            [UUID(bytes=order_id) for order_id in page],
        )
        over = {row["id"].bytes: row["state"] for row in rows}
        pipe = store.pipeline(transaction=False)
        for order_id in page:
            record = unseen[order_id]
            if order_id not in over or (record[0] == "paid" and over[order_id] in _UNPAID):
                sku, buyer, units = str(record[2]), str(record[3]), int(str(record[4]))
                of = strays.setdefault(sku, {})
                of[buyer] = of.get(buyer, 0) + units
                repairs.strays += 1
                continue
            repairs.settled += 1
            record[0] = over[order_id]
            pipe.hset(f"{ROOT}:done:{gen}", order_id, close_finished(record))
            pipe.hdel(f"{ROOT}:live", order_id)
        await pipe.execute()
    return strays


async def _agree_bought(store: redis.Redis, sku: str, wanted: dict[str, int], repairs: Repairs) -> None:
    key = f"{ROOT}:bought:{sku}"
    known = {
        name.decode() if isinstance(name, bytes) else name: int(value)
        async for name, value in store.hscan_iter(key, count=_PAGE)
    }
    pipe = store.pipeline(transaction=False)
    for buyer in known.keys() | wanted.keys():
        units = wanted.get(buyer, 0)
        if units == known.get(buyer, 0):
            continue
        repairs.buyers += 1
        if units:
            pipe.hset(key, buyer, units)
        else:
            pipe.hdel(key, buyer)
    await pipe.execute()


def _record(row: object) -> list[object]:
    """Return an order's row as the record of shard.lua."""
    r = dict(row.items())  # type: ignore[attr-defined]
    place = [r["state"], fingerprint(r["sku"], r["quantity"]), r["sku"], r["buyer"], r["quantity"]]
    return [*place, r["amount"], r["currency"], r["pay_by_ms"], 0]
