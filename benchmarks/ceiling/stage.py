"""The stage of the ceiling: one SKU that never runs out and one that has nothing; reservations outlast the run."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks.ceiling.asks import CURRENCY, HOT, OUT, PRICE
from core.backends import postgres, valkey
from core.backends.valkey import ROOT
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.settings import Settings

PLENTY: Final = 10**9
_HOLD_MS: Final = 3_600_000


def set_stage(settings: Settings) -> None:
    """Add both products. The units have no card keys: nothing is delivered while the projector is held."""
    asyncio.run(_set_stage(settings))


async def _set_stage(settings: Settings) -> None:
    products = [
        Product(sku=sku, title=sku, price=PRICE, currency=CURRENCY, buyer_limit=2, hold_ms=_HOLD_MS)
        for sku in (HOT, OUT)
    ]
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=30)
    store = valkey.client(settings.valkey_url)
    try:
        await put_products(connection, store, products)
        await store.hset(f"{ROOT}:sku:{HOT}", "free", str(PLENTY))
    finally:
        connection.terminate()
        await store.aclose()
