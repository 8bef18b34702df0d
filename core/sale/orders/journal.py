"""The projector's statements, one a kind of fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.backends.postgres import Connection
from core.backends.texts import text
from core.errors import Fault
from core.sale.orders.entry import Row


class CursorMoved(Fault):
    """Another projector moved the cursor; this one applied nothing and stands back."""

    code = "cursor_moved"


def _columns(rows: Sequence[Row], *fields: str) -> list[list[Any]]:
    return [[getattr(row.fact, field) for row in rows] for field in fields]


def _places(rows: Sequence[Row]) -> list[list[int]]:
    return [[row.ms for row in rows], [row.seq for row in rows], [row.record for row in rows]]


async def placed(connection: Connection, shard: int, rows: Sequence[Row]) -> list[UUID]:
    """Insert new orders; return the ids that were there before."""
    if not rows:
        return []
    columns = _columns(rows, "sku", "buyer", "quantity", "amount", "currency", "at_ms", "pay_by_ms")
    ids = [row.order_id for row in rows]
    found = await connection.fetch(text("sale/orders/project_placed.sql"), ids, *columns, *_places(rows), shard)
    return [row["id"] for row in found]


async def released(connection: Connection, rows: Sequence[Row]) -> dict[UUID, str]:
    """End reservations; return the state of each order that moved."""
    if not rows:
        return {}
    ids, states = [row.order_id for row in rows], [row.fact.state for row in rows]  # type: ignore[union-attr]
    at_ms = [row.fact.at_ms for row in rows]
    query = text("sale/orders/project_released.sql")
    found = {row["id"] for row in await connection.fetch(query, ids, states, at_ms, *_places(rows))}
    return {order: state for order, state in zip(ids, states, strict=True) if order in found}


async def paid(connection: Connection, rows: Sequence[Row]) -> dict[UUID, str]:
    """Record charges; return the new state of each order that moved."""
    if not rows:
        return {}
    fields = ("gateway", "event_id", "amount", "currency", "paid_at_ms", "at_ms", "applied", "refusal")
    columns = _columns(rows, *fields)
    ids = [row.order_id for row in rows]
    found = await connection.fetch(text("sale/orders/project_paid.sql"), ids, *columns, *_places(rows))
    return {row["id"]: row["after"] for row in found}


async def stocked(connection: Connection, rows: Sequence[Row]) -> None:
    """Note that the counter has an import's units."""
    if rows:
        ids = [row.order_id.int for row in rows]
        query = "UPDATE imports SET raised_at = now() WHERE id = ANY ($1::bigint[]) AND raised_at IS NULL"
        await connection.execute(query, ids)


async def quarantine(connection: Connection, shard: int, poison: Sequence[tuple[int, int, int, str, bytes]]) -> None:
    """Set records aside, once each."""
    if poison:
        query = (
            "INSERT INTO quarantine (shard, entry_ms, entry_seq, record, reason, raw) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
        )
        await connection.executemany(query, [(shard, *record) for record in poison])


async def advance(connection: Connection, shard: int, old: tuple[int, int], new: tuple[int, int]) -> None:
    """Move the cursor by compare-and-set.

    Raises:
        CursorMoved: it was not where this projector left it.
    """
    query = (
        "UPDATE cursors SET entry_ms = $4, entry_seq = $5 "
        "WHERE shard = $1 AND entry_ms = $2 AND entry_seq = $3 RETURNING true"
    )
    if not await connection.fetchval(query, shard, *old, *new):
        raise CursorMoved


async def cursor(connection: Connection, shard: int) -> tuple[int, int]:
    """Return the stream id (ms, seq) up to which this database has projected."""
    row = await connection.fetchrow("SELECT entry_ms, entry_seq FROM cursors WHERE shard = $1", shard)
    return row["entry_ms"], row["entry_seq"]
