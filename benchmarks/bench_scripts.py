"""What the order scripts cost on a real Valkey with ``appendfsync always``: per call and per order, by batch size.

Small in the test run (each benchmark once), large when measuring (``make bench``). Figures mean something as ratios
within one run: the last benchmark is a bare fsynced write on the same connection, the reference.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.backends import valkey
from core.backends.valkey import ROOT, ShardConnection
from core.local.valkey import EmbeddedValkey
from core.sale.catalog.product import Product
from core.sale.catalog.store import write_rules
from core.sale.orders.store import OrderStore, PlaceItem

PLENTY = 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey of our own with the shard open on it."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(folder) as running:
        asyncio.run(_open(running.url))
        yield running


async def _open(url: str) -> None:
    """Open the shard by hand: one product with plenty of units, under epoch 1 of this very process."""
    store = valkey.client(url)
    terms = Product(sku="hot", title="hot", price=1999, currency="CNY", buyer_limit=2, hold_ms=3_600_000)
    await write_rules(store, [terms])
    await store.hset(f"{ROOT}:sku:hot", "free", str(PLENTY))
    run_id = str((await store.info("server"))["run_id"])
    await store.hset(f"{ROOT}:meta", mapping={"epoch": "1", "gen": "1", "run_id": run_id})
    await store.aclose()


def _batch(size: int) -> list[PlaceItem]:
    return [PlaceItem(os.urandom(16), os.urandom(6).hex(), ("hot", "f" * 16, 1)) for _ in range(size)]


@pytest.mark.parametrize("size", [1, 64, 512])
def test_place_a_batch(benchmark: Any, server: EmbeddedValkey, size: int) -> None:
    """One script call places ``size`` new orders, each with every check, and is fsynced before it answers."""
    with asyncio.Runner() as runner:
        store = OrderStore(server.url)

        async def place(items: list[PlaceItem]) -> list[str]:
            return [answer.outcome for answer in await asyncio.gather(*[store.places.put(item) for item in items])]

        outcomes = benchmark.pedantic(
            lambda items: runner.run(place(items)), setup=lambda: ((_batch(size),), {}), rounds=_rounds(benchmark)
        )
        assert outcomes == ["accepted"] * size
        runner.run(store.close())


def test_reference_one_fsynced_write(benchmark: Any, server: EmbeddedValkey) -> None:
    """The floor under every promise: one HSET on the same server, durable before it answers."""
    with asyncio.Runner() as runner:
        connection = ShardConnection(server.url)
        benchmark.pedantic(
            lambda: runner.run(connection.command("HSET", "reference", "field", "value")), rounds=_rounds(benchmark)
        )
        runner.run(connection.close())


def _rounds(benchmark: Any) -> int:
    return 200 if benchmark.enabled else 1
