"""What is read back from real stores is what stands in them, page after page, in every type."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import msgspec
import pytest

from core.backends.valkey import client
from core.local.stores import LocalStores
from loadtests.record import collect
from loadtests.record.evidence import EventRow, LiveOrder

ROOT = "fp:{test-collect}"
MIGRATION = Path(collect.__file__).resolve().parents[2] / "core/backends/migrations/0001_shop.sql"
ORDER, EARLIER = UUID(int=0xABC), UUID(int=7)


@pytest.fixture
def dsn(stores: LocalStores) -> Iterator[str]:
    """A database of its own, so that no other test's rows are read."""
    name = "collect_" + secrets.token_hex(4)
    asyncio.run(_administer(stores.postgres_dsn, f"CREATE DATABASE {name}"))
    yield _other_database(stores.postgres_dsn, name)
    asyncio.run(_administer(stores.postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)"))


def _other_database(dsn: str, name: str) -> str:
    parts = urlsplit(dsn)
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k not in ("dbname", "database")])
    return urlunsplit(parts._replace(path=f"/{name}", query=query))


async def _administer(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def _fill_postgres(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(MIGRATION.read_text())
    await connection.execute(
        """
        INSERT INTO products (sku, title, price, currency, buyer_limit, hold_ms, low_stock)
            VALUES ('hot', 'Hot', 1999, 'CNY', 2, 60000, 1), ('bare', 'No keys yet', 5, 'USD', 1, 60000, 1);
        INSERT INTO imports (sku, units, digest, raised_at) VALUES ('hot', 3, 'a', now()), ('hot', 2, 'b', NULL);
        INSERT INTO card_keys (id, sku, key_hash, sealed, state) SELECT n, 'hot', decode(lpad(n::text, 64, '0'), 'hex'),
            'x', CASE WHEN n = 1 THEN 'sold' WHEN n = 2 THEN 'void' ELSE 'free' END FROM generate_series(1, 5) AS n;
        INSERT INTO quarantine (shard, entry_ms, entry_seq, record, reason, raw) VALUES (0, 1, 1, 1, 'test', 'x');
        UPDATE cursors SET entry_ms = 5, entry_seq = 2;
        """
    )
    await connection.execute(
        """INSERT INTO orders (id, shard, sku, buyer, quantity, amount, currency, state, placed_at, pay_by)
           VALUES ($1, 0, 'hot', 'ann', 1, 1999, 'CNY', 'delivered', to_timestamp(1760000000123 / 1000.0),
                   to_timestamp(1760000060123 / 1000.0))""",
        ORDER,
    )
    await connection.execute(
        "INSERT INTO payments (gateway, event_id, order_id, amount, currency, paid_at, applied)"
        " VALUES ('sandbox', 'evt-1', $1, 1999, 'CNY', now(), 'first')",
        ORDER,
    )
    await connection.execute("INSERT INTO deliveries (key_id, order_id, line) VALUES (1, $1, 1)", ORDER)
    moves = [(ORDER, None, "reserved", 5, 1, 0), (ORDER, "paid", "delivered", None, None, None)]
    await connection.executemany(
        "INSERT INTO order_events (order_id, before, after, at, entry_ms, entry_seq, record)"
        " VALUES ($1, $2, $3, to_timestamp(1760000000123 / 1000.0), $4, $5, $6)",
        moves * 1_500,  # more than a page
    )
    await connection.close()


async def _fill_valkey(url: str) -> None:
    store: Any = client(url)
    await store.sadd(f"{ROOT}:skus", "hot", "bare")
    await store.hset(f"{ROOT}:sku:hot", "free", "-1")
    await store.hset(f"{ROOT}:bought:hot", mapping={f"buyer-é-{n}": n for n in range(1, 3_001)})
    await store.hset(f"{ROOT}:meta", mapping={"epoch": "7", "gen": "1"})
    record = ["reserved", "f" * 16, "hot", "ann", 2, 3998, "CNY", 1_760_000_060_123, 0]
    await store.hset(f"{ROOT}:live", EARLIER.bytes, msgspec.msgpack.encode(record))
    await store.zadd(f"{ROOT}:due", {EARLIER.bytes: 1})
    for entry in ("4-9", "5-2", "5-3", "6-0"):
        await store.xadd(f"{ROOT}:facts", {"r": b"\x00"}, id=entry)
    await store.aclose()


async def _clear(url: str) -> None:
    store: Any = client(url)
    await store.delete(*[f"{ROOT}:{n}" for n in ("skus", "sku:hot", "bought:hot", "meta", "live", "due", "facts")])
    await store.aclose()


def test_both_stores_are_read_whole(stores: LocalStores, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_PAUSE_S", 0.0)
    asyncio.run(_fill_postgres(dsn))
    asyncio.run(_fill_valkey(stores.valkey_url))
    try:
        postgres, valkey = asyncio.run(collect.collect(dsn, stores.valkey_url, ROOT))
    finally:
        asyncio.run(_clear(stores.valkey_url))

    hot = {p.sku: p for p in postgres.products}["hot"]
    assert (hot.loaded, hot.raised, hot.free, hot.sold, hot.void) == (5, 3, 3, 1, 1)
    assert postgres.orders[0].id == ORDER.hex and postgres.orders[0].placed_ms == 1_760_000_000_123
    assert len(postgres.events) == 3_000 and postgres.events[1].entry_ms is None
    first = EventRow(
        seq=1,
        order_id=ORDER.hex,
        before=None,
        after="reserved",
        at_ms=1_760_000_000_123,
        entry_ms=5,
        entry_seq=1,
        record=0,
    )
    assert postgres.events[0] == first
    assert postgres.deliveries[0].key_hash == "1".rjust(64, "0") and postgres.deliveries[0].key_state == "sold"
    assert postgres.payments[0].event_id == "evt-1" and postgres.quarantined == 1

    assert valkey.free == {"hot": -1, "bare": 0} and valkey.epoch == 7
    assert len(valkey.bought["hot"]) == 3_000 and valkey.bought["hot"]["buyer-é-3"] == 3
    assert valkey.live == [
        LiveOrder(
            id=EARLIER.hex,
            state="reserved",
            sku="hot",
            buyer="ann",
            quantity=2,
            amount=3998,
            currency="CNY",
            pay_by_ms=1_760_000_060_123,
        )
    ]
    assert valkey.due == 1 and valkey.facts_left == 2 and valkey.now_ms > 1_700_000_000_000
    assert msgspec.json.decode(msgspec.json.encode(postgres), type=type(postgres)) == postgres
    assert msgspec.json.decode(msgspec.json.encode(valkey), type=type(valkey)) == valkey


def test_a_store_that_is_gone_is_named_in_one_line(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(collect.StoreUnavailable, match="cannot be read after the run"):
        asyncio.run(collect.collect(dsn, f"unix://{tmp_path}/no.sock", ROOT))
