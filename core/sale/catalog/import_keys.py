"""Import: bring a file of card keys into the shop, all or nothing, and raise the stock once.

Three steps, each safe to repeat: read and hash the file; in one transaction note the import and copy the sealed keys;
raise the counter under the import's id. A command that died is simply run again: the same file is known by its digest
and only what is missing is done. Even without that, ``flashproof work`` raises what was left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from core.backends.postgres import Connection
from core.backends.valkey import ShardConnection
from core.errors import BadInput, Fenced
from core.ids import Names
from core.sale.catalog import store
from core.sale.catalog.keyfile import BadKeyFile, hash_keys
from core.sale.delivery.vault import Vault
from core.sale.stock.raise_units import raise_units

LINE_BITS: Final = 20
_NAMED_MOST: Final = 10  # duplicates named in the message

Progress = Callable[[str, int, int], None]  # step, done, of


class Imported(msgspec.Struct, frozen=True):
    """What an import did. ``free`` is the stock afterwards; None: selling is closed, it will be raised later."""

    import_id: int
    units: int
    new: bool
    raised: bool
    free: int | None


async def import_keys(
    connection: Connection,
    shard: ShardConnection,
    names: Names,
    vault: Vault,
    sku: str,
    path: Path,
    progress: Progress = lambda step, done, of: None,
) -> Imported:
    """Import a key file for a product.

    Raises:
        BadKeyFile: a line is no key, stands twice, or is in the store already; line numbers named, nothing imported.
        BadInput: no such product.
        StoreUnavailable, StoreUnknown: run the same command again.
    """
    progress("reading", 0, 1)
    keys, hashes = hash_keys(path, names.key_hash)
    digest = hashlib.sha256(b"".join(hashes)).digest()
    progress("reading", 1, 1)
    if not await connection.fetchval("SELECT true FROM products WHERE sku = $1", sku):
        raise BadInput(f"there is no product {sku}; add it first: flashproof product add {sku} --help")
    import_id = await store.find_import(connection, sku, digest)
    new = import_id is None
    if import_id is None:
        import_id = await _insert(connection, vault, sku, keys, hashes, digest, progress)
    try:
        outcome, free = await raise_units(shard, import_id, sku, len(keys))
    except Fenced:
        return Imported(import_id, len(keys), new, False, None)
    return Imported(import_id, len(keys), new, outcome == "raised", free)


async def _insert(
    connection: Connection,
    vault: Vault,
    sku: str,
    keys: list[tuple[int, str]],
    hashes: list[bytes],
    digest: bytes,
    progress: Progress,
) -> int:
    async with connection.transaction():
        lines = [(number, hashed) for (number, _), hashed in zip(keys, hashes, strict=True)]
        duplicates = await store.find_duplicates(connection, lines, _NAMED_MOST + 1)
        if duplicates:
            named = "; ".join(
                f"line {line} is in the store already (SKU {of})" for line, of in duplicates[:_NAMED_MOST]
            )
            raise BadKeyFile(named + ("; and more" if len(duplicates) > _NAMED_MOST else ""))
        import_id = await store.insert_import(connection, sku, len(keys), digest)
        rows = _sealed(vault, import_id, sku, keys, hashes)
        await store.copy_keys(connection, rows, lambda done: progress("sealing", done, len(keys)))
    return import_id


def _sealed(
    vault: Vault, import_id: int, sku: str, keys: list[tuple[int, str]], hashes: list[bytes]
) -> Iterator[tuple[int, str, bytes, bytes]]:
    for (number, key), hashed in zip(keys, hashes, strict=True):
        row_id = (import_id << LINE_BITS) | number
        yield row_id, sku, hashed, vault.seal(row_id, key)
