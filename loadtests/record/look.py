"""Looking into the stores of a shop that is not ours: read only, and only at what this run's SKUs concern."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import asyncpg
import msgspec
import redis.asyncio as redis

from core.backends.valkey import ROOT, client
from core.errors import StoreUnavailable
from loadtests.record.collect import read_postgres, read_valkey
from loadtests.record.evidence import NO_VALKEY, PostgresState, ValkeyState

_TIMEOUT_S: Final = 30.0
_AGAIN_S: Final = 0.5
_READ_ONLY: Final = {"default_transaction_read_only": "on"}
_ORDERS: Final = "SELECT sku, count(*) AS orders FROM orders WHERE sku = ANY($1) GROUP BY sku ORDER BY sku LIMIT 1"
_BROKEN: Final = (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, redis.RedisError)


def used_before(postgres_dsn: str, skus: tuple[str, ...]) -> str:
    """Return in words which of these SKUs has orders already, or nothing.

    Raises:
        StoreUnavailable: PostgreSQL cannot be read.
    """
    return asyncio.run(_used_before(postgres_dsn, skus))


async def _used_before(postgres_dsn: str, skus: tuple[str, ...]) -> str:
    try:
        connection = await _connect(postgres_dsn)
        try:
            row = await connection.fetchrow(_ORDERS, list(skus))
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except _BROKEN as error:
        raise StoreUnavailable(f"--postgres-dsn: the target's PostgreSQL cannot be read: {error}") from error
    return f"{row['sku']} has {row['orders']} orders" if row else ""


def look(
    postgres_dsn: str, valkey_url: str, skus: tuple[str, ...], most_s: float, root: str = ROOT
) -> tuple[PostgresState, ValkeyState, bool]:
    """Return both stores when nothing moves there any more, or after ``most_s`` seconds as they are.

    Args:
        postgres_dsn: where the record is.
        valkey_url: where it is decided; "": that is not looked at.
        skus: of this run.
        most_s: how long to wait for quiet.
        root: what the shard's keys begin with.

    Returns:
        PostgreSQL, Valkey (empty where it is not looked at), and whether it became quiet.

    Raises:
        StoreUnavailable: one of them cannot be read.
    """
    return asyncio.run(_look(postgres_dsn, valkey_url, frozenset(skus), most_s, root))


async def _look(
    postgres_dsn: str, valkey_url: str, skus: frozenset[str], most_s: float, root: str
) -> tuple[PostgresState, ValkeyState, bool]:
    store = client(valkey_url) if valkey_url else None
    until, before, quiet = time.monotonic() + most_s, -1, False
    try:
        connection = await _connect(postgres_dsn)
        try:
            while True:
                postgres = only_postgres(await read_postgres(connection), skus)
                valkey = NO_VALKEY
                if store is not None:
                    cursor = await connection.fetchrow("SELECT entry_ms, entry_seq FROM cursors ORDER BY shard LIMIT 1")
                    valkey = only_valkey(await read_valkey(store, root, tuple(cursor) if cursor else (0, 0)), skus)
                quiet = len(postgres.events) == before and not valkey.facts_left
                if quiet or time.monotonic() > until:
                    return postgres, valkey, quiet
                before = len(postgres.events)
                await asyncio.sleep(_AGAIN_S)
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except _BROKEN as error:
        raise StoreUnavailable(f"The target's stores cannot be read after the run: {error}") from error
    finally:
        if store is not None:
            await store.aclose()


async def _connect(postgres_dsn: str) -> Any:
    return await asyncpg.connect(
        postgres_dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S, server_settings=_READ_ONLY
    )


def only_postgres(state: PostgresState, skus: frozenset[str]) -> PostgresState:
    """Return what concerns these SKUs; what was quarantined belongs to nobody, so it stays."""
    orders = [order for order in state.orders if order.sku in skus]
    ids = {order.id for order in orders}
    return PostgresState(
        products=[product for product in state.products if product.sku in skus],
        orders=orders,
        events=[event for event in state.events if event.order_id in ids],
        payments=[payment for payment in state.payments if payment.order_id in ids],
        deliveries=[delivery for delivery in state.deliveries if delivery.order_id in ids],
        quarantined=state.quarantined,
        imports=[one for one in state.imports if one.sku in skus],
    )


def only_valkey(state: ValkeyState, skus: frozenset[str]) -> ValkeyState:
    """Return what concerns these SKUs; the queue of ends is one for all, so it stays."""
    return msgspec.structs.replace(
        state,
        free={sku: units for sku, units in state.free.items() if sku in skus},
        bought={sku: buyers for sku, buyers in state.bought.items() if sku in skus},
        live=[order for order in state.live if order.sku in skus],
    )
