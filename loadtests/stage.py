"""The stage of a flash sale: one hot SKU that runs out, many cold ones, and a card key for every unit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.backends import postgres, valkey
from core.backends.valkey import ShardConnection
from core.ids import Names
from core.sale.catalog.import_keys import import_keys
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.sale.delivery.vault import Vault
from core.settings import Settings
from loadtests.plan import BUYER_LIMIT, cold_skus

HOT_SKU: Final = "hot"
COLD_STOCK: Final = 100  # keys of each cold SKU
PRICE: Final = 1_999
HOLD_MS: Final = 4_000  # short, so that what is not paid comes back and is sold again within the run


def set_stage(settings: Settings, stock: int, cold: int, progress: Callable[[str], None]) -> None:
    """Add the products and import their keys, by the same code as the commands do.

    Raises:
        FlashproofError: a store failed, or the keys are there already.
    """
    asyncio.run(_set_stage(settings, stock, cold, progress))


async def _set_stage(settings: Settings, stock: int, cold: int, progress: Callable[[str], None]) -> None:
    units = {HOT_SKU: stock} | dict.fromkeys(cold_skus(cold), COLD_STOCK)
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=120)
    shard, store = ShardConnection(settings.valkey_url), valkey.client(settings.valkey_url)
    names, vault = Names(settings.secret), Vault(settings.vault_key)
    try:
        await put_products(connection, store, [_product(sku) for sku in units])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keys.txt"
            for number, (sku, count) in enumerate(units.items(), 1):
                lines = [f"{sku}-{line:07d}----{line * 7919 % 1_000_003:06d}\n" for line in range(count)]
                path.write_text("".join(lines), encoding="utf-8")
                await import_keys(connection, shard, names, vault, sku, path)
                progress(f"keys imported for {number} of {len(units)} products")
    finally:
        connection.terminate()
        await shard.close()
        await store.aclose()


def _product(sku: str) -> Product:
    return Product(
        sku=sku,
        title=f"card key {sku}",
        price=PRICE,
        currency="CNY",
        buyer_limit=BUYER_LIMIT,
        hold_ms=HOLD_MS,
        low_stock=10,
    ).check()
