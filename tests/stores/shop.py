"""A whole small shop on the real stores, for tests: it sells, charges, releases, projects, and can be looked into.

Nothing here stands in for the code under test: orders go through the lanes, facts through `project`, keys through
`import_keys`. `Shop.books` reads both stores; `Shop.check` says what must be true of them whenever all is quiet.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from core.backends import postgres, valkey
from core.backends.valkey import ROOT, SHARD, ShardConnection
from core.ids import Names, fingerprint, split_ids
from core.local.stores import LocalStores
from core.sale.catalog.import_keys import Imported, import_keys
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.sale.delivery.vault import Vault
from core.sale.orders import journal
from core.sale.orders.answers import PayAnswer, PlaceAnswer
from core.sale.orders.order import HOLDING, is_legal
from core.sale.orders.project import Entry, Outcome, project
from core.sale.orders.store import CancelItem, ExpiryStore, OrderStore, PayItem, PlaceItem, SettleStore
from core.sale.orders.stream import FACTS, _entry, next_id
from core.settings import Settings
from core.workers.fence import open_shard
from core.workers.projector import Projector

Result = TypeVar("Result")
TABLES: Final = (
    "products", "imports", "card_keys", "orders", "payments", "deliveries", "order_events", "quarantine", "owed",
)  # fmt: skip
PRICE: Final = 1999
LONG_MS: Final = 3_600_000
WAIT_S: Final = 15.0


def run(test: Callable[[], Coroutine[Any, Any, Result]], seconds: float = 60.0) -> Result:
    """Run a test's coroutine for a bounded time."""

    async def bounded() -> Result:
        async with asyncio.timeout(seconds):
            return await test()

    return asyncio.run(bounded())


async def until(true: Callable[[], Coroutine[Any, Any, bool]], what: str, seconds: float = WAIT_S) -> None:
    """Return when it is true.

    Raises:
        AssertionError: it does not become true in time.
    """
    end = asyncio.get_running_loop().time() + seconds
    while not await true():
        assert asyncio.get_running_loop().time() < end, f"after {seconds:.0f} s still not: {what}"
        await asyncio.sleep(0.01)


class Shop:
    """One deployment on the embedded stores, emptied."""

    def __init__(self, stores: LocalStores, directory: Path) -> None:
        self.stores, self.directory = stores, directory
        self.settings = Settings(
            valkey_url=stores.valkey_url,
            postgres_dsn=stores.postgres_dsn,
            secret=bytes(range(32)),
            vault_key=bytes(range(32, 64)),
        )
        self.names, self.vault = Names(self.settings.secret), Vault(self.settings.vault_key)
        self.connection: postgres.Connection = None
        self._call_up()
        self._files = self._events = 0

    async def empty(self) -> None:
        """Begin with nothing in either store."""
        self.connection = await postgres.connect(self.settings.postgres_dsn)
        await postgres.migrate(self.connection)
        await self.connection.execute(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY CASCADE")
        await self.connection.execute("UPDATE cursors SET entry_ms = 0, entry_seq = 0, epoch = 0, opened_at = NULL")
        await self.client.flushall()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._hang_up()
        self.connection.terminate()

    def _call_up(self) -> None:
        """Make the clients of Valkey anew, as a process that starts does."""
        url = self.settings.valkey_url
        self.client, self.shard = valkey.client(url), ShardConnection(url)
        self.orders, self.expiry, self.settle = OrderStore(url), ExpiryStore(url), SettleStore(url)

    async def _hang_up(self) -> None:
        """Drop the connections to Valkey."""
        for one in (self.orders, self.expiry, self.settle, self.shard):
            await one.close()
        await self.client.aclose()

    # --- the operator -------------------------------------------------------------------------------------

    async def add(self, sku: str = "HOT", *, limit: int = 100, hold_ms: int = LONG_MS) -> None:
        """Put a product on sale."""
        terms = {"title": sku, "price": PRICE, "currency": "CNY", "buyer_limit": limit, "hold_ms": hold_ms}
        await put_products(self.connection, self.client, [Product(sku=sku, **terms)])  # type: ignore[arg-type]

    def file(self, content: bytes | Sequence[str]) -> Path:
        """Write a key file and return where it is."""
        self._files += 1
        path = self.directory / f"keys-{self._files}.txt"
        path.write_bytes(content if isinstance(content, bytes) else "".join(f"{k}\n" for k in content).encode())
        return path

    async def bring(self, sku: str, path: Path, **how: Any) -> Imported:
        """Import a key file as the command does."""
        return await import_keys(self.connection, self.shard, self.names, self.vault, sku, path, **how)

    async def stock(self, units: int, sku: str = "HOT") -> Imported:
        """Import so many new keys."""
        return await self.bring(sku, self.file([f"{sku}-{self._files}-{n:06d}" for n in range(units)]))

    async def open(self) -> int:
        """Open the shard as the projector does; return the epoch."""
        return await open_shard(self.connection, self.client, self.shard, self.drain)

    # --- buyers and gateways ------------------------------------------------------------------------------

    def item(self, buyer: str, key: str = "1", quantity: int = 1, sku: str = "HOT") -> PlaceItem:
        """Return an order to place."""
        return PlaceItem(self.names.order_id(buyer, key), buyer, (sku, fingerprint(sku, quantity), quantity))

    async def place(self, *items: PlaceItem) -> list[PlaceAnswer]:
        """Place orders in one batch."""
        for sku in {item.kind[0] for item in items}:
            await self.rested(sku)
        return list(await asyncio.gather(*[self.orders.places.put(item) for item in items]))

    async def rested(self, sku: str) -> None:
        """Wait until what came back to the SKU is sold again."""
        until_ms = int(await self.client.hget(f"{ROOT}:sku:{sku}", "rests_ms") or 0)
        seconds, micros = await self.client.time()
        await asyncio.sleep(max(0.0, (until_ms - int(seconds) * 1000 - int(micros) / 1000) / 1000))

    async def sell(self, *items: PlaceItem) -> list[bytes]:
        """Place orders that must be accepted; return their ids."""
        answers = await self.place(*items)
        assert [answer.outcome for answer in answers] == ["accepted"] * len(items)
        return [item.order_id for item in items]

    async def pay(self, *order_ids: bytes, quantity: int = 1, event: str = "", known: Any = False) -> list[PayAnswer]:
        """Charge orders in one batch, each by an event of its own unless one is given."""
        items = []
        for order_id in order_ids:
            self._events += 1
            name = event or f"event-{self._events}"
            said = ("sandbox", name, "paid", PRICE * quantity, "CNY", 1_800_000_000_000, known)
            items.append(PayItem(order_id, said))
        return list(await asyncio.gather(*[self.orders.payments.put(item) for item in items]))

    async def cancel(self, order_id: bytes) -> str:
        """Cancel an order; return the outcome."""
        return (await self.orders.cancels.put(CancelItem(order_id, False))).outcome

    async def expire(self, *order_ids: bytes) -> int:
        """Let these reservations' time be over and release what is due; return how many were."""
        for order_id in order_ids:
            record = msgspec.msgpack.decode(await self.client.hget(f"{ROOT}:live", order_id))
            record[7] = 1_000
            await self.client.hset(f"{ROOT}:live", order_id, msgspec.msgpack.encode(record))
            await self.client.zadd(f"{ROOT}:due", {order_id: 1_000})
        return (await self.expiry.release_due(500, 1_000, []))[0]

    async def ends(self) -> set[bytes]:
        """Return the orders that stand in the queue of ends."""
        return {one for joined in await self.client.zrange(f"{ROOT}:due", 0, -1) for one in split_ids(joined)}

    # --- the projector ------------------------------------------------------------------------------------

    async def entries(self, most: int = 64) -> list[Entry]:
        """Return the journal's entries behind PostgreSQL's cursor."""
        after = "({}-{}".format(*await journal.cursor(self.connection, SHARD))
        return [_entry(raw) for raw in await self.shard.command("XRANGE", FACTS, after, "+", "COUNT", most)]

    async def project(self, most: int = 64) -> Outcome:
        """Project what is behind the cursor, and die before anything is settled."""
        entries = await self.entries(most)
        return await project(self.connection, SHARD, entries, await journal.cursor(self.connection, SHARD))

    async def drain(self) -> None:
        """Project and settle all there is."""
        while await self.entries():
            outcome = await self.project()
            keep_from = next_id(*await journal.cursor(self.connection, SHARD))
            await self.settle.settle(outcome.settled, keep_from)

    @asynccontextmanager
    async def projector(self, *, ready: bool = True) -> AsyncIterator[Projector]:
        """Run the real projector meanwhile; with `ready`, from when the shard is open."""
        projector = Projector(self.settings)
        task = asyncio.create_task(projector.run())
        try:
            if ready:
                await self.stands(projector, "open")
            yield projector
        finally:
            projector.stop()
            await asyncio.wait_for(task, WAIT_S)

    async def stands(self, projector: Projector, where: str) -> None:
        """Wait until a projector is there."""

        async def there() -> bool:
            return projector.standing == where

        await until(there, f"the projector is {where}, it is {projector.standing}")

    async def projected(self) -> None:
        """Wait until somebody has projected and settled the whole journal."""

        async def empty() -> bool:
            return not await self.client.xlen(f"{ROOT}:facts")

        await until(empty, "the journal is projected")

    # --- deaths -------------------------------------------------------------------------------------------

    async def kill_valkey(self, copy: Path | None = None) -> None:
        """SIGKILL Valkey and start it again; on an older copy of its data if one is given."""
        await self._hang_up()
        await asyncio.to_thread(self.stores.valkey.kill)
        if copy is not None:
            shutil.rmtree(self.stores.valkey.home / "appendonlydir")
            shutil.copytree(copy, self.stores.valkey.home / "appendonlydir")
        await asyncio.to_thread(self.stores.valkey.start)
        self._call_up()

    def copy_valkey(self, name: str) -> Path:
        """Copy Valkey's data as it is on disk now; return where the copy is."""
        return Path(shutil.copytree(self.stores.valkey.home / "appendonlydir", self.directory / name))

    async def kill_postgres(self) -> None:
        """SIGKILL PostgreSQL and start it again."""
        await asyncio.to_thread(self.stores.postgres.kill)
        await asyncio.to_thread(self.stores.postgres.start)
        self.connection.terminate()
        self.connection = await postgres.connect(self.settings.postgres_dsn)

    # --- the books ----------------------------------------------------------------------------------------

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Return rows as plain tuples."""
        return [tuple(row.values()) for row in await self.connection.fetch(query, *arguments)]

    async def record(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of PostgreSQL, the cursor included."""
        return {table: await self.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in (*TABLES, "cursors")}

    async def state(self, order_id: bytes) -> str:
        """Return where PostgreSQL has an order."""
        return str(await self.connection.fetchval("SELECT state FROM orders WHERE id = $1", UUID(bytes=order_id)))

    async def life(self, order_id: bytes) -> list[str]:
        """Return the states an order went through."""
        query = "SELECT after FROM order_events WHERE order_id = $1 ORDER BY seq"
        return [after for (after,) in await self.rows(query, UUID(bytes=order_id))]

    async def keys_of(self, order_id: bytes) -> list[str]:
        """Return the card keys of an order, opened, in the order of their lines."""
        query = (
            "SELECT k.id, k.sealed FROM deliveries d JOIN card_keys k ON k.id = d.key_id "
            "WHERE d.order_id = $1 ORDER BY d.line"
        )
        return [self.vault.open(row, sealed).reveal() for row, sealed in await self.rows(query, UUID(bytes=order_id))]

    async def free(self, sku: str = "HOT") -> int:
        """Return the free units Valkey would sell."""
        return int(await self.client.hget(f"{ROOT}:sku:{sku}", "free") or 0)

    async def bought(self, buyer: str, sku: str = "HOT") -> int:
        """Return what a buyer holds of a SKU, as Valkey counts."""
        return int(await self.client.hget(f"{ROOT}:bought:{sku}", buyer) or 0)

    async def live(self) -> dict[bytes, str]:
        """Return the live orders' states in Valkey."""
        found = await self.client.hgetall(f"{ROOT}:live")
        return {order_id: msgspec.msgpack.decode(record)[0] for order_id, record in found.items()}

    async def check(self) -> None:
        """Check what must be true of both stores when all is projected and settled."""
        await self._check_orders()
        holding = [state.value for state in HOLDING]
        for (sku,) in await self.rows("SELECT sku FROM products"):
            raised = await self.connection.fetchval(
                "SELECT coalesce(sum(units), 0) FROM imports WHERE sku = $1 AND raised_at IS NOT NULL", sku
            )
            held = dict(
                await self.rows(
                    "SELECT buyer, sum(quantity)::int FROM orders WHERE sku = $1 AND state = ANY ($2) GROUP BY 1",
                    sku, holding,
                )
            )  # fmt: skip
            assert await self.free(sku) + sum(held.values()) == raised, f"units of {sku} are not conserved"
            bought = await self.client.hgetall(f"{ROOT}:bought:{sku}")
            assert {buyer.decode(): int(units) for buyer, units in bought.items()} == held
        live = await self.rows("SELECT id, state FROM orders WHERE state IN ('reserved', 'paid')")
        assert await self.live() == {order_id.bytes: state for order_id, state in live}

    async def _check_orders(self) -> None:
        """Every life is legal and ends where the order stands; keys were given exactly to the delivered."""
        stands = dict(await self.rows("SELECT id, state FROM orders"))
        last: dict[UUID, str | None] = {}
        for order_id, before, after in await self.rows("SELECT order_id, before, after FROM order_events ORDER BY seq"):
            assert before == last.get(order_id), (
                f"{order_id}: a move from {before}, but it stood at {last.get(order_id)}"
            )
            assert is_legal(before, after), f"{order_id}: {before} to {after}"
            last[order_id] = after
        assert last == stands
        wrong = await self.rows(
            "SELECT o.id, o.state, o.quantity, count(d.key_id), max(d.line) FROM orders o "
            "LEFT JOIN deliveries d ON d.order_id = o.id GROUP BY o.id "
            "HAVING count(d.key_id) <> CASE WHEN o.state = 'delivered' THEN o.quantity ELSE 0 END "
            "OR coalesce(max(d.line), 0) <> count(d.key_id)"
        )
        assert not wrong
        sold = await self.rows(
            "SELECT k.id FROM card_keys k FULL JOIN deliveries d ON d.key_id = k.id "
            "WHERE (k.state = 'sold') <> (d.key_id IS NOT NULL)"
        )
        assert not sold


@asynccontextmanager
async def a_shop(stores: LocalStores, directory: Path, units: int = 0, **terms: Any) -> AsyncIterator[Shop]:
    """Open an empty shop; with `units`, it sells so many of HOT."""
    shop = Shop(stores, directory)
    await shop.empty()
    try:
        if units:
            await shop.add(**terms)
            await shop.open()
            await shop.stock(units)
            await shop.drain()
        yield shop
    finally:
        await shop.close()
