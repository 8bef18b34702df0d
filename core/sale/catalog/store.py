"""The catalog in both stores: PostgreSQL has the terms, Valkey the rule that orders are decided by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import asyncpg
import redis.asyncio as redis
from redis.exceptions import RedisError

from core.backends import postgres, valkey
from core.backends.postgres import Connection
from core.backends.texts import text
from core.backends.valkey import ROOT
from core.errors import BadInput, StoreUnavailable, StoreUnknown
from core.sale.catalog.product import Product

_COPY_ROWS: Final = 20_000  # keys copied at a time: progress moves, memory stays small
_RULE: Final = ("price", "currency", "limit", "hold_ms", "opens_ms", "closes_ms")


def rule_fields(product: Product) -> dict[str, str | int]:
    """Return the fields of a SKU's rule hash (see shard.lua), without ``free``."""
    values = (
        product.price,
        product.currency,
        product.buyer_limit,
        product.hold_ms,
        product.opens_ms,
        product.closes_ms,
    )
    return dict(zip(_RULE, values, strict=True))


async def write_rules(store: redis.Redis, products: Iterable[Product]) -> None:
    """Bring the rules of these products into Valkey; free units stay as they are."""
    pipe = store.pipeline(transaction=False)
    for product in products:
        pipe.hset(f"{ROOT}:sku:{product.sku}", mapping=rule_fields(product))  # type: ignore[arg-type]
        pipe.hsetnx(f"{ROOT}:sku:{product.sku}", "free", 0)
        pipe.sadd(f"{ROOT}:skus", product.sku)
    await pipe.execute()


async def put_products(connection: Connection, store: redis.Redis, products: Sequence[Product]) -> None:
    """Add products or give them new terms, in PostgreSQL first, then in Valkey. Repeating it changes nothing.

    Raises:
        StoreUnavailable: Valkey did not take the rules; run the command again.
    """
    values = [
        (p.sku, p.title, p.price, p.currency, p.buyer_limit, p.hold_ms, p.opens_ms, p.closes_ms, p.low_stock)
        for p in products
    ]
    await connection.executemany(text("sale/catalog/put_product.sql"), values)
    try:
        await write_rules(store, products)
    except (RedisError, OSError) as error:
        raise StoreUnavailable(
            f"the product is in PostgreSQL but not yet in Valkey ({error}); run this again"
        ) from error


async def find_import(connection: Connection, sku: str, digest: bytes) -> int | None:
    """Return the id of the import that brought this very file, or None."""
    found: int | None = await connection.fetchval("SELECT id FROM imports WHERE sku = $1 AND digest = $2", sku, digest)
    return found


async def find_duplicates(
    connection: Connection, lines: Sequence[tuple[int, bytes]], most: int
) -> list[tuple[int, str]]:
    """Return (line, SKU that has the key) for uploaded keys the store has already, at most ``most``.

    Must run inside a transaction; the temporary table it makes ends with it.
    """
    await connection.execute("CREATE TEMP TABLE uploaded (line integer, key_hash bytea) ON COMMIT DROP")
    await connection.copy_records_to_table("uploaded", records=lines, columns=["line", "key_hash"])
    rows = await connection.fetch(text("sale/catalog/duplicate_keys.sql"), most)
    await connection.execute("DROP TABLE uploaded")
    return [(row["line"], row["sku"]) for row in rows]


_RACED: Final = "another import brought some of these keys at the same moment; nothing was imported; run this again"


async def insert_import(connection: Connection, sku: str, units: int, digest: bytes) -> int:
    """Note an import and return its id; its keys follow in the same transaction.

    Raises:
        BadInput: the same file is being imported by another command.
    """
    query = "INSERT INTO imports (sku, units, digest) VALUES ($1, $2, $3) RETURNING id"
    try:
        found: int = await connection.fetchval(query, sku, units, digest)
    except asyncpg.UniqueViolationError as error:
        raise BadInput(_RACED) from error
    return found


async def copy_keys(
    connection: Connection, rows: Iterable[tuple[int, str, bytes, bytes]], progress: Callable[[int], None]
) -> None:
    """Copy (id, SKU, hash, sealed) rows into the table of card keys; ``progress`` is told the rows so far.

    Raises:
        BadInput: another import brought one of these keys meanwhile.
    """
    chunk: list[tuple[int, str, bytes, bytes]] = []
    done = 0
    for row in rows:
        chunk.append(row)
        if len(chunk) == _COPY_ROWS:
            done += await _copy(connection, chunk)
            progress(done)
            chunk = []
    if chunk:
        done += await _copy(connection, chunk)
        progress(done)


async def _copy(connection: Connection, chunk: list[tuple[int, str, bytes, bytes]]) -> int:
    columns = ["id", "sku", "key_hash", "sealed"]
    try:
        await connection.copy_records_to_table("card_keys", records=chunk, columns=columns)
    except asyncpg.UniqueViolationError as error:
        raise BadInput(_RACED) from error
    return len(chunk)


class Catalog:
    """The catalog as buyers read it."""

    def __init__(self, database: postgres.Postgres, valkey_url: str) -> None:
        self._database, self._valkey = database, valkey.client(valkey_url)

    async def page(self, after: str, limit: int) -> list[Product]:
        """Return up to ``limit`` products behind a SKU, in byte order."""
        rows = await self._database.fetch(text("sale/catalog/products.sql"), after, limit)
        return [_product(row) for row in rows]

    async def product(self, sku: str) -> Product | None:
        """Return one product, or None."""
        rows = await self._database.fetch(text("sale/catalog/product.sql"), sku)
        return _product(rows[0]) if rows else None

    async def free(self, skus: Sequence[str]) -> list[int]:
        """Return the free units of these SKUs.

        Raises:
            StoreUnavailable, StoreUnknown: Valkey did not say.
        """
        pipe = self._valkey.pipeline(transaction=False)
        for sku in skus:
            pipe.hget(f"{ROOT}:sku:{sku}", "free")
        try:
            return [int(value or 0) for value in await pipe.execute()]
        except TimeoutError as error:
            raise StoreUnknown from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Valkey cannot be reached: {type(error).__name__}") from error

    async def close(self) -> None:
        """Drop the connections."""
        await self._valkey.aclose()


def _product(row: Any) -> Product:
    return Product(**dict(row.items()))
