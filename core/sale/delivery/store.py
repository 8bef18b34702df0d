"""Delivery's queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.backends.postgres import Connection
from core.backends.texts import text


async def claim(connection: Connection, query: str, order_ids: Sequence[UUID]) -> list[Any]:
    """Run the claim for these orders."""
    return list(await connection.fetch(query, order_ids))


async def note_owed(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Remember paid orders that found no free key."""
    query = "INSERT INTO owed (order_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING"
    await connection.execute(query, order_ids)


async def forget_owed(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Forget those that are owed nothing any longer: delivered, or moved on by staff."""
    query = (
        "DELETE FROM owed w WHERE w.order_id = ANY ($1::uuid[]) "
        "AND NOT EXISTS (SELECT FROM orders o WHERE o.id = w.order_id AND o.state = 'paid')"
    )
    await connection.execute(query, order_ids)


async def states(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return where these orders stand."""
    if not order_ids:
        return {}
    rows = await connection.fetch("SELECT id, state FROM orders WHERE id = ANY ($1::uuid[])", order_ids)
    return {row["id"]: row["state"] for row in rows}


async def owed(connection: Connection, most: int) -> list[UUID]:
    """Return paid orders that wait for keys, oldest first."""
    return [row["id"] for row in await connection.fetch(text("sale/delivery/owed.sql"), most)]
