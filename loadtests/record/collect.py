"""Reading both stores after a run, as they are, into the evidence the checkers judge.

Read-only, and bounded whatever the size of the sale: PostgreSQL through cursors in one repeatable-read
transaction (one instant for all tables), Valkey through scans. The two cannot be read at one instant, so
``collect`` looks at the journal's last entry before and after; if it moved, it reads again. The caller waits
for quiet first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
import redis.asyncio as redis

from core.backends.valkey import ROOT, client
from core.errors import StoreUnavailable
from core.ids import split_ids
from loadtests.record.evidence import (
    DeliveryRow,
    EventRow,
    ImportRow,
    LiveOrder,
    OrderRow,
    PaymentRow,
    PostgresState,
    ProductRow,
    ValkeyState,
)

PAGE: Final = 2_000  # rows or fields in one answer of a store
TRIES_MOST: Final = 5
_PAUSE_S: Final = 0.2
_TIMEOUT_S: Final = 30.0
_EntryId = tuple[int, int]
Store: TypeAlias = Any  # redis.Redis, whose types admit text where this client always gives bytes

_PRODUCTS: Final = """
SELECT p.sku, p.price, p.currency, p.buyer_limit, p.hold_ms,
       coalesce(i.loaded, 0)::bigint AS loaded, coalesce(i.raised, 0)::bigint AS raised,
       coalesce(k.free, 0)::bigint AS free, coalesce(k.sold, 0)::bigint AS sold, coalesce(k.void, 0)::bigint AS void
FROM products p
LEFT JOIN (SELECT sku, sum(units) AS loaded, sum(units) FILTER (WHERE raised_at IS NOT NULL) AS raised
           FROM imports GROUP BY sku) i USING (sku)
LEFT JOIN (SELECT sku, count(*) FILTER (WHERE state = 'free') AS free, count(*) FILTER (WHERE state = 'sold') AS sold,
                  count(*) FILTER (WHERE state = 'void') AS void
           FROM card_keys GROUP BY sku) k USING (sku)
ORDER BY sku"""
_IMPORTS: Final = """
SELECT sku, units, (extract(epoch FROM raised_at) * 1000)::bigint AS raised_ms FROM imports ORDER BY id"""
_ORDERS: Final = """
SELECT id, sku, buyer, quantity, amount, currency, state, (extract(epoch FROM placed_at) * 1000)::bigint AS placed_ms,
       (extract(epoch FROM pay_by) * 1000)::bigint AS pay_by_ms
FROM orders ORDER BY seq"""
_EVENTS: Final = """
SELECT seq, order_id, before, after, (extract(epoch FROM at) * 1000)::bigint AS at_ms, entry_ms, entry_seq, record
FROM order_events ORDER BY seq"""
_PAYMENTS: Final = """
SELECT gateway, event_id, order_id, amount, currency, applied, refusal FROM payments ORDER BY recorded_at, event_id"""
_DELIVERIES: Final = """
SELECT d.order_id, d.line, k.key_hash, k.sku AS key_sku, k.state AS key_state,
       (extract(epoch FROM d.delivered_at) * 1000)::bigint AS delivered_ms
FROM deliveries d JOIN card_keys k ON k.id = d.key_id ORDER BY d.delivered_at, d.order_id, d.line"""


async def collect(postgres_dsn: str, valkey_url: str, root: str = ROOT) -> tuple[PostgresState, ValkeyState]:
    """Return both stores, read while nothing moved; after five tries, as they were at the last.

    Raises:
        StoreUnavailable: one of them cannot be read.
    """
    store = client(valkey_url)
    try:
        connection = await asyncpg.connect(postgres_dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
        try:
            return await _settled(connection, store, root)
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, redis.RedisError) as error:
        raise StoreUnavailable(f"The stores cannot be read after the run: {error}") from error
    finally:
        await store.aclose()


async def _settled(connection: Any, store: Store, root: str) -> tuple[PostgresState, ValkeyState]:
    for tried in range(1, TRIES_MOST + 1):
        before = await _last_entry(store, root)
        postgres = await read_postgres(connection)
        valkey = await read_valkey(store, root, await _cursor(connection))
        if tried == TRIES_MOST or (before == await _last_entry(store, root) and not valkey.facts_left):
            break
        await asyncio.sleep(_PAUSE_S)
    return postgres, valkey


async def read_postgres(connection: Any) -> PostgresState:
    """Return all that PostgreSQL says of one instant; ``connection`` is asyncpg's and in no transaction."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return PostgresState(
            products=[ProductRow(**row) async for row in _rows(connection, _PRODUCTS)],
            orders=[OrderRow(**row) async for row in _rows(connection, _ORDERS)],
            events=[EventRow(**row) async for row in _rows(connection, _EVENTS)],
            payments=[PaymentRow(**row) async for row in _rows(connection, _PAYMENTS)],
            deliveries=[DeliveryRow(**row) async for row in _rows(connection, _DELIVERIES)],
            quarantined=await connection.fetchval("SELECT count(*) FROM quarantine"),
            imports=[ImportRow(**row) async for row in _rows(connection, _IMPORTS)],
        )


async def _rows(connection: Any, query: str) -> AsyncIterator[dict[str, Any]]:
    """Yield a query's rows with ids and hashes as hex digits."""
    async for record in connection.cursor(query, prefetch=PAGE):
        row = dict(record)
        for name in ("id", "order_id", "key_hash"):
            if name in row:
                row[name] = row[name].hex if name != "key_hash" else row[name].hex()
        yield row


async def _cursor(connection: Any) -> _EntryId:
    row = await connection.fetchrow("SELECT entry_ms, entry_seq FROM cursors ORDER BY shard LIMIT 1")
    return (row["entry_ms"], row["entry_seq"]) if row else (0, 0)


class _Record(msgspec.Struct, array_like=True, frozen=True):
    """A live order's places as shard.lua has them; what comes after them is left unread."""

    state: str
    fingerprint: str
    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    pay_by_ms: int


_record = msgspec.msgpack.Decoder(_Record)


async def read_valkey(store: Store, root: str, cursor: _EntryId) -> ValkeyState:
    """Return all that Valkey says of one shard.

    Args:
        store: a client that leaves answers as bytes.
        root: what the shard's keys begin with.
        cursor: (entry_ms, entry_seq) up to which PostgreSQL has projected the journal.
    """
    seconds, micros = await store.time()
    skus = sorted(sku.decode() for sku in await store.smembers(f"{root}:skus"))
    free: dict[str, int] = {}
    bought: dict[str, dict[str, int]] = {}
    for sku in skus:
        free[sku] = int(await store.hget(f"{root}:sku:{sku}", "free") or 0)
        counts = {
            buyer.decode(): int(units) async for buyer, units in store.hscan_iter(f"{root}:bought:{sku}", count=PAGE)
        }
        if counts:
            bought[sku] = counts
    live: dict[str, LiveOrder] = {}  # a scan may name a field twice
    async for id_, packed in store.hscan_iter(f"{root}:live", count=PAGE):
        live[id_.hex()] = _live_order(id_, packed)
    ends: set[str] = set()
    async for joined, _ in store.zscan_iter(f"{root}:due", count=PAGE):
        ends.update(id_.hex() for id_ in split_ids(joined))
    return ValkeyState(
        now_ms=seconds * 1000 + micros // 1000,
        epoch=int(await store.hget(f"{root}:meta", "epoch") or 0),
        free=free,
        bought=bought,
        live=list(live.values()),
        due=len(ends & {id_ for id_, packed in live.items() if packed.state == "reserved"}),
        facts_left=await _facts_after(store, f"{root}:facts", cursor),
    )


def _live_order(id_: bytes, packed: bytes) -> LiveOrder:
    record = _record.decode(packed)
    return LiveOrder(
        id=id_.hex(),
        state=record.state,
        sku=record.sku,
        buyer=record.buyer,
        quantity=record.quantity,
        amount=record.amount,
        currency=record.currency,
        pay_by_ms=record.pay_by_ms,
    )


async def _facts_after(store: Store, stream: str, cursor: _EntryId) -> int:
    """Return how many journal entries lie beyond what PostgreSQL has."""
    after, found = f"({cursor[0]}-{cursor[1]}", 0
    while page := await store.xrange(stream, min=after, count=PAGE):
        found += len(page)
        after = f"({page[-1][0].decode()}"
    return found


async def _last_entry(store: Store, root: str) -> bytes:
    """Return the id of the newest entry the journal ever had, trimmed or not."""
    if not await store.exists(f"{root}:facts"):
        return b""
    last: bytes = (await store.xinfo_stream(f"{root}:facts"))["last-generated-id"]
    return last
