"""The fence: selling opens only on stores that agree.

Valkey's promise is one process's: after a restart, a lost tail or a restore, what it says may not be what buyers were
told. So the shop is open on one server process (``run_id``) under one epoch. On any other process every worker finds
selling closed, and the projector, which alone holds the shard, does this:

1. close: epoch 0, so that no script changes anything meanwhile;
2. look that PostgreSQL is not older than what was trimmed from the journal;
3. project the whole tail;
4. make stock, per-buyer counts and live orders agree (``workers/agree.py``);
5. open a new epoch, noted in PostgreSQL first;
6. raise the imports whose command died before their stock was raised.

While only the projector was restarted, nothing is closed: the epoch in both stores and the run_id still fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import redis.asyncio as redis

from core.backends.postgres import Connection
from core.backends.texts import text
from core.backends.valkey import ROOT, SHARD, ShardConnection
from core.errors import Fault
from core.sale.catalog.product import Product
from core.sale.catalog.store import write_rules
from core.sale.orders import journal
from core.sale.orders.stream import FACTS, next_id, parse_id
from core.sale.stock.raise_units import raise_units
from core.settings import REST_MS
from core.telemetry import EPOCH, log
from core.workers.agree import agree

_META: Final = f"{ROOT}:meta"
_PAGE: Final = 1_000


class JournalGap(Fault):
    """PostgreSQL is older than the journal trimmed after it: was it restored from a backup? Selling stays closed."""

    code = "journal_gap"


async def open_shard(
    connection: Connection,
    store: redis.Redis,
    shard: ShardConnection,
    drain: Callable[[], Awaitable[None]],
) -> int:
    """Open the shard if it is not open on this very server process; return the epoch.

    Raises:
        JournalGap: an operator must restore PostgreSQL's newer state.
        StoreUnavailable, StoreUnknown, RedisError: selling stays closed; try again.
    """
    run_id = str((await store.info("server"))["run_id"])
    meta = {_text(name): _text(value) for name, value in (await store.hgetall(_META)).items()}
    noted: int = await connection.fetchval("SELECT epoch FROM cursors WHERE shard = $1", SHARD)
    epoch = int(meta.get("epoch", "0"))
    behind = _is_behind(await journal.cursor(connection, SHARD), meta.get("trimmed", ""))
    if epoch and epoch == noted and meta.get("run_id") == run_id and not behind:
        EPOCH.set(epoch)
        return epoch
    await store.hset(_META, mapping={"epoch": "0"})
    EPOCH.set(0)
    log("info", "selling_closed", run_id=run_id, before=meta.get("run_id", ""))
    await _check_journal(connection, store, meta.get("trimmed", ""))
    await drain()
    await _write_all_rules(connection, store)
    repairs = await agree(connection, store)
    if repairs.any:
        log("warning", "stores_mended", counters=repairs.counters, buyers=repairs.buyers, restored=repairs.restored,
            settled=repairs.settled, strays=repairs.strays)  # fmt: skip
    await asyncio.sleep(REST_MS / 1000)  # what workers remember of the epoch before is no longer good then
    epoch = max(epoch, noted) + 1
    await connection.execute("UPDATE cursors SET epoch = $2, opened_at = now() WHERE shard = $1", SHARD, epoch)
    await store.hsetnx(_META, "gen", "1")
    await store.hset(_META, mapping={"run_id": run_id, "epoch": str(epoch), "rest_ms": str(REST_MS)})
    EPOCH.set(epoch)
    log("info", "selling_open", epoch=epoch)
    await raise_left_behind(connection, store, shard)
    return epoch


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _is_behind(cursor: tuple[int, int], trimmed: str) -> bool:
    """Tell whether entries were trimmed that this PostgreSQL has not projected."""
    return bool(trimmed) and parse_id(trimmed.encode()) > parse_id(next_id(*cursor).encode())


async def _check_journal(connection: Connection, store: redis.Redis, trimmed: str) -> None:
    """Neither store may be older than the other thinks it is."""
    cursor = await journal.cursor(connection, SHARD)
    if _is_behind(cursor, trimmed):
        raise JournalGap(f"{JournalGap.message()} Trimmed below {trimmed}, projected through {cursor[0]}-{cursor[1]}.")
    last = (0, 0)
    if await store.exists(FACTS):
        last = parse_id((await store.xinfo_stream(FACTS))["last-generated-id"])
    if last < cursor:
        # Valkey lost its tail. New entries must come behind the cursor, or the projector would never read them.
        await store.xadd(FACTS, {"mark": ""}, id=f"{cursor[0]}-{cursor[1]}")
        log("warning", "journal_tail_lost", cursor=f"{cursor[0]}-{cursor[1]}")


async def _write_all_rules(connection: Connection, store: redis.Redis) -> None:
    after = ""
    while rows := await connection.fetch(text("sale/catalog/products.sql"), after, _PAGE):
        after = rows[-1]["sku"]
        await write_rules(store, [Product(**dict(row.items())) for row in rows])


async def raise_left_behind(connection: Connection, store: redis.Redis, shard: ShardConnection) -> None:
    """Raise the stock of imports whose command died between its commit and the counter."""
    rows = await connection.fetch("SELECT id, sku, units FROM imports WHERE raised_at IS NULL ORDER BY id LIMIT 1000")
    for row in rows:
        # The command before it may have died too, between PostgreSQL and Valkey: the rule first.
        terms = await connection.fetchrow(text("sale/catalog/product.sql"), row["sku"])
        await write_rules(store, [Product(**dict(terms.items()))])
        outcome, _ = await raise_units(shard, row["id"], row["sku"], row["units"])
        if outcome == "raised":
            log("info", "stock_raised_late", import_id=row["id"], sku=row["sku"], units=row["units"])
