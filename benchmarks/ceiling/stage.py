"""The stage of the benchmarks: one SKU that never runs out and one that has nothing; reservations outlast the run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
    """Add both products. The units have no card keys: nothing is delivered."""
    asyncio.run(_add(settings, [HOT], [OUT]))


def add(settings: Settings, skus: Sequence[str]) -> None:
    """Add more products that never run out."""
    asyncio.run(_add(settings, skus, []))


async def _add(settings: Settings, endless: Sequence[str], empty: Sequence[str]) -> None:
    products = [
        Product(sku=sku, title=sku, price=PRICE, currency=CURRENCY, buyer_limit=2, hold_ms=_HOLD_MS)
        for sku in (*endless, *empty)
    ]
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=60)
    store = valkey.client(settings.valkey_url)
    try:
        await put_products(connection, store, products)
        pipe = store.pipeline(transaction=False)
        for sku in endless:
            pipe.hset(f"{ROOT}:sku:{sku}", "free", str(PLENTY))
        await pipe.execute()
    finally:
        connection.terminate()
        await store.aclose()
