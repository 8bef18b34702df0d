"""Raise: add an import's units to the free stock, exactly once, whoever tries and however often."""

from __future__ import annotations

from typing import Final

from core.backends.texts import ORDERS_GROUND, Script
from core.backends.valkey import ShardConnection
from core.errors import BadInput

RAISE: Final = Script("sale/stock/raise.lua", *ORDERS_GROUND)


def import_name(import_id: int) -> bytes:
    """Return the 16 bytes by which the stores know an import."""
    return import_id.to_bytes(16, "big")


async def raise_units(connection: ShardConnection, import_id: int, sku: str, units: int) -> tuple[str, int]:
    """Add the units of an import and return (``raised`` or ``repeated``, free units now).

    Raises:
        Fenced: selling is closed; ``flashproof work`` raises it when it opens.
        BadInput: Valkey does not know the product.
        StoreUnavailable, StoreUnknown: it may be tried again without harm.
    """
    outcome, free = await connection.call(RAISE, import_name(import_id), sku, units)
    if outcome == b"unknown_product":
        raise BadInput(f"Valkey does not know the product {sku} yet; run `flashproof product add {sku} …` again")
    return outcome.decode(), int(free)
