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
from loadtests.generator.plan import BUYER_LIMIT, cold_skus

HOT_SKU: Final = "hot"
COLD_STOCK: Final = 100  # keys of each cold SKU
PRICE: Final = 1_999
HOLD_MOST_MS: Final = 8_000
HOLD_LEAST_MS: Final = 1_500
THINK_SHARE: Final = 0.8  # buyers take up to this share of their hold to pay


def hold_ms(seconds: float) -> int:
    """Return how long the stage's reservations hold, in ms, in a sale of so many seconds.

    Four tenths of the sale, from 1.5 to 8 s: what is not paid comes back in time to be sold again.
    """
    return round(max(HOLD_LEAST_MS, min(HOLD_MOST_MS, seconds * 400)))


def set_stage(
    settings: Settings, stock: int, cold: int, progress: Callable[[str], None], hold: int = HOLD_MOST_MS
) -> None:
    """Add the products, each holding reservations for ``hold`` ms, and import their keys, by the commands' own code.

    Raises:
        FlashproofError: a store failed, or the keys are there already.
    """
    asyncio.run(_set_stage(settings, stock, cold, progress, hold))


async def _set_stage(settings: Settings, stock: int, cold: int, progress: Callable[[str], None], hold: int) -> None:
    units = {HOT_SKU: stock} | dict.fromkeys(cold_skus(cold), COLD_STOCK)
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=120)
    shard, store = ShardConnection(settings.valkey_url), valkey.client(settings.valkey_url)
    names, vault = Names(settings.secret), Vault(settings.vault_key)
    try:
        await put_products(connection, store, [_product(sku, hold) for sku in units])
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


def _product(sku: str, hold: int) -> Product:
    return Product(
        sku=sku,
        title=f"card key {sku}",
        price=PRICE,
        currency="CNY",
        buyer_limit=BUYER_LIMIT,
        hold_ms=hold,
        low_stock=10,
    ).check()
