"""Setting the stage of a scenario: its products in both stores, and a card key for every unit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
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
from loadtests.generator.scenario import HOT_SKU, Stage

PRICE: Final = 1_999
HOLD_MOST_MS: Final = Stage().hold_most_ms
_PRIME: Final = 1_000_003


def set_stage(
    settings: Settings,
    stock: int,
    cold: int,
    progress: Callable[[str], None],
    hold: int = HOLD_MOST_MS,
    *,
    cold_stock: int = Stage().cold_stock,
    limit: int = BUYER_LIMIT,
    hot_sku: str = HOT_SKU,
) -> None:
    """Add the products and import their keys, by the commands' own code.

    Args:
        settings: of the shop.
        stock: units of the hot SKU.
        cold: how many other SKUs there are.
        progress: told what was done.
        hold: how long reservations hold, in ms.
        cold_stock: units of each other SKU.
        limit: units one buyer may have of one SKU.
        hot_sku: its name.

    Raises:
        FlashproofError: a store failed, or the keys are there already.
    """
    units = {hot_sku: stock} | dict.fromkeys(cold_skus(cold), cold_stock)
    asyncio.run(_set_stage(settings, [_product(sku, hold, limit) for sku in units], units, progress))


def restock(settings: Settings, sku: str, first: int, count: int) -> None:
    """Import ``count`` more keys of a SKU, the first of them numbered ``first``, while the shop sells.

    Raises:
        FlashproofError: a store failed, or the keys are there already.
    """
    asyncio.run(_set_stage(settings, [], {sku: count}, lambda _: None, first))


async def _set_stage(
    settings: Settings,
    products: list[Product],
    units: Mapping[str, int],
    progress: Callable[[str], None],
    first: int = 0,
) -> None:
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=120)
    shard, store = ShardConnection(settings.valkey_url), valkey.client(settings.valkey_url)
    names, vault = Names(settings.secret), Vault(settings.vault_key)
    try:
        if products:
            await put_products(connection, store, products)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keys.txt"
            for number, (sku, count) in enumerate(units.items(), 1):
                lines = [f"{sku}-{line:07d}----{line * 7919 % _PRIME:06d}\n" for line in range(first, first + count)]
                path.write_text("".join(lines), encoding="utf-8")
                await import_keys(connection, shard, names, vault, sku, path)
                progress(f"keys imported for {number} of {len(units)} products")
    finally:
        connection.terminate()
        await shard.close()
        await store.aclose()


def _product(sku: str, hold: int, limit: int) -> Product:
    return Product(
        sku=sku,
        title=f"card key {sku}",
        price=PRICE,
        currency="CNY",
        buyer_limit=limit,
        hold_ms=hold,
        low_stock=10,
    ).check()
