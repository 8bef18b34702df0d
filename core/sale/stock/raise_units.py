"""Raise: add an import's units to the free stock, exactly once, whoever tries and however often."""

from __future__ import annotations

from typing import Final

from core.backends.texts import Script
from core.backends.valkey import ShardConnection

RAISE: Final = Script("sale/stock/raise.lua")


def import_name(import_id: int) -> bytes:
    """Return the 16 bytes by which the stores know an import."""
    return import_id.to_bytes(16, "big")


async def raise_units(connection: ShardConnection, import_id: int, sku: str, units: int) -> tuple[str, int]:
    """Add the units of an import and return (``raised`` or ``repeated``, free units now).

    Raises:
        Fenced: selling is closed; ``flashproof work`` raises it when it opens.
        StoreUnavailable, StoreUnknown: it may be tried again without harm.
    """
    outcome, free = await connection.call(RAISE, import_name(import_id), sku, units)
    return outcome.decode(), int(free)
