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


async def owed(connection: Connection, most: int) -> list[UUID]:
    """Return paid orders that wait for keys, oldest first."""
    return [row["id"] for row in await connection.fetch(text("sale/delivery/owed.sql"), most)]
