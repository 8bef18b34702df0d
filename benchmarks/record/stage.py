"""The stage of the record's rows: one product, with a card key for every unit or with units that nobody pays for."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.backends import postgres, valkey
from core.backends.valkey import ROOT, ShardConnection
from core.ids import Names
from core.sale.catalog.import_keys import import_keys
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.sale.delivery.vault import Vault
from core.settings import REST_MS, Settings

SKU: Final = "record-hot"
PRICE: Final = 1_999
CURRENCY: Final = "CNY"
HOLD_MS: Final = 3_600_000  # reservations outlast the run
_PLENTY: Final = 10**9


def set_stage(settings: Settings, keys: int, progress: Callable[[str], None]) -> None:
    """Add the product and import so many keys by the command's own code; with none, its units are only counted.

    Raises:
        FlashproofError: a store failed, or the keys are there already.
    """
    asyncio.run(_set_stage(settings, keys, progress))


async def _set_stage(settings: Settings, keys: int, progress: Callable[[str], None]) -> None:
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=120)
    shard, store = ShardConnection(settings.valkey_url), valkey.client(settings.valkey_url)
    product = Product(sku=SKU, title=SKU, price=PRICE, currency=CURRENCY, buyer_limit=1, hold_ms=HOLD_MS)
    try:
        await put_products(connection, store, [product])
        if not keys:
            await store.hset(f"{ROOT}:sku:{SKU}", "free", str(_PLENTY))
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keys.txt"
            file = f"{SKU}-{time.time_ns():x}"  # no key of it was in a store before
            path.write_text("".join([f"{file}-{n:07d}----{n * 7919 % 1_000_003:06d}\n" for n in range(keys)]))
            progress(f"importing {keys:,} keys")
            names, vault = Names(settings.secret), Vault(settings.vault_key)
            await import_keys(connection, shard, names, vault, SKU, path)
        await asyncio.sleep(2 * REST_MS / 1000)  # units that come to a SKU without any are not sold at once
    finally:
        connection.terminate()
        await shard.close()
        await store.aclose()
