"""The projector: one a shard, it turns the journal into rows and keys, and tells Valkey what is committed.

One turn: read entries behind the cursor → one transaction (orders, payments, keys, events, cursor) → one script call
(settle, wake, trim). It may die at any point: before the commit nothing happened; between commit and settle the entries
are still in the journal, and ``_recover`` settles them again.

The advisory lock, the transactions and the cursor all live on one PostgreSQL connection: who lost the lock has also
lost the means to commit. The cursor's compare-and-set says it once more.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from core.backends import postgres, valkey
from core.backends.postgres import PROJECTOR_LOCK, Connection
from core.backends.valkey import ROOT, SHARD, ShardConnection
from core.errors import FlashproofError, StoreUnavailable
from core.facts import Placed
from core.ids import ORDER_NAME_BYTES
from core.sale.delivery.deliver import cure, prepare
from core.sale.delivery.store import forget_owed
from core.sale.orders import journal
from core.sale.orders.entry import read
from core.sale.orders.project import Outcome, project
from core.sale.orders.store import SettleStore
from core.sale.orders.stream import Intake, next_id, read_through
from core.settings import BATCH_MOST, IDS_KEPT_S, PROJECT_ENTRIES_MOST, PROJECT_RECORDS_MOST, Settings
from core.telemetry import DELIVERED, EPOCH, OWED, PROJECT_SECONDS, PROJECTED, PROJECTOR_LAG, QUARANTINED, log
from core.workers.fence import open_shard, raise_left_behind
from core.workers.pace import Pace

_LAG_GOAL_S: Final = 0.03  # from an entry to its commit; see pace.py. The rows of the projector hold it to 50 ms
_BLOCK_MS: Final = 100  # how long a read waits for the first entry
_CHORES_S: Final = 1.0  # how often paid orders without keys and imports left behind are looked for
_STANDBY_S: Final = 0.25
_RETRY_S: Final = (
    0.05,
    0.2,
    0.5,
    1.0,
)  # after a store was lost; the last one again and again, while the process lives
_GENERATION_MS: Final = 24 * 3_600_000  # idempotency records live one to two of these


class Projector:
    """The loop. ``standing`` is where it is: starting, standby, opening, open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self.standing = "starting"

    def stop(self) -> None:
        """Finish the turn under way, then return from ``run``."""
        self._stop.set()

    async def run(self) -> None:
        """Hold the shard and project until stopped; a lost store or lock begins it again."""
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await self._session()
            except (
                FlashproofError,
                RedisError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                OSError,
            ) as error:
                failures = 0 if time.monotonic() - began > 10 else failures + 1
                log("warning", "projector_interrupted", error=error, standing=self.standing)
                self.standing = "starting"
                EPOCH.set(0)
                await self._pause(_RETRY_S[min(failures, len(_RETRY_S) - 1)])

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _session(self) -> None:
        """One life on one pair of connections."""
        connection = await postgres.connect(self._settings.postgres_dsn)
        shard = ShardConnection(self._settings.valkey_url, once=True)
        store = valkey.client(self._settings.valkey_url)
        settle = SettleStore(self._settings.valkey_url)
        try:
            await postgres.assert_fit(connection)
            await prepare(connection)
            await valkey.assert_fit(self._settings.valkey_url)
            if await self._lock(connection):
                await _Session(self, connection, shard, store, settle).work(self._stop)
        finally:
            connection.terminate()
            await settle.close()
            await shard.close()
            await store.aclose()

    async def _lock(self, connection: Connection) -> bool:
        """Wait for the shard; return False when stopped before it was had."""
        while not self._stop.is_set():
            if await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", PROJECTOR_LOCK, SHARD):
                self.standing = "opening"
                return True
            if self.standing != "standby":
                self.standing = "standby"
                log("info", "standing_by", why="another projector holds the shard")
            await self._pause(_STANDBY_S)
        return False


class _Session:
    """The shard is held: everything that is done with it."""

    def __init__(
        self,
        owner: Projector,
        connection: Connection,
        shard: ShardConnection,
        store: redis.Redis,
        settle: SettleStore,
    ) -> None:
        self._owner, self._connection, self._shard, self._store, self._settle = (
            owner,
            connection,
            shard,
            store,
            settle,
        )
        self._cursor = (0, 0)
        self._intake = Intake(shard, self._cursor, PROJECT_RECORDS_MOST)
        self._pace = Pace(_LAG_GOAL_S)
        self._epoch = 0

    async def work(self, stop: asyncio.Event) -> None:
        self._cursor = await journal.cursor(self._connection, SHARD)
        self._intake = Intake(self._shard, self._cursor, PROJECT_RECORDS_MOST)
        await self._recover()
        self._epoch = await open_shard(self._connection, self._store, self._shard, self._drain)
        self._owner.standing = "open"
        chores_at = 0.0
        while not stop.is_set():
            moved = await self._turn(_BLOCK_MS)
            if time.monotonic() - chores_at > _CHORES_S:
                chores_at = time.monotonic()
                await self._chores()
            if moved and not self._intake.is_behind:
                await asyncio.sleep(self._pace.rest_s(time.monotonic()))

    async def _drain(self) -> None:
        while await self._turn(1):
            pass  # selling is closed, so the journal ends

    async def _turn(self, block_ms: int) -> bool:
        entries = await self._intake.take(block_ms)
        if not entries:
            PROJECTOR_LAG.set(0)
            return False
        self._pace.begin(time.monotonic())
        began = time.perf_counter()
        PROJECTOR_LAG.set(max(0.0, time.time() - entries[0].ms / 1000))  # before the work: a stuck turn shows its age
        outcome = await project(self._connection, SHARD, entries, self._cursor)
        self._cursor = (entries[-1].ms, entries[-1].seq)
        PROJECT_SECONDS.observe(time.perf_counter() - began)
        await self._tell(outcome.settled)
        self._pace.end(time.monotonic())
        _count(outcome)
        return True

    async def _tell(self, settled: list[tuple[bytes, str, bool]]) -> None:
        """Settle in bounded calls; only the last trims, so that a death between them leaves the entries behind."""
        chunks = [settled[at : at + BATCH_MOST] for at in range(0, len(settled), BATCH_MOST)] or [[]]
        for chunk in chunks[:-1]:
            await self._settle.settle(chunk, "")
        await self._settle.settle(chunks[-1], next_id(*self._cursor))

    async def _recover(self) -> None:
        """Settle what was committed but perhaps never told: all that the journal still has through the cursor."""
        while entries := await read_through(self._shard, self._cursor, PROJECT_ENTRIES_MOST):
            rows, _ = read(entries)
            ids = list({row.order_id for row in rows})
            found = await self._connection.fetch(
                "SELECT id, state, (extract(epoch FROM placed_at) * 1000)::bigint AS placed_ms "
                "FROM orders WHERE id = ANY ($1::uuid[])",
                ids,
            )
            known: dict[UUID, tuple[str, int]] = {row["id"]: (row["state"], row["placed_ms"]) for row in found}
            settled = {order.bytes: (order.bytes, state, False) for order, (state, _) in known.items()}
            for row in rows:
                if isinstance(row.fact, Placed) and row.order_id in known and known[row.order_id][1] != row.fact.at_ms:
                    settled[row.order_id.bytes] = (row.order_id.bytes, known[row.order_id][0], True)
            for at in range(0, len(settled), BATCH_MOST):
                await self._settle.settle(list(settled.values())[at : at + BATCH_MOST], "")
            await self._settle.settle([], next_id(entries[-1].ms, entries[-1].seq))

    async def _chores(self) -> None:
        """Check the epoch, cure paid orders without keys, raise what imports left, turn the generation of records."""
        await self._look_at_epoch()
        states, keys = await cure(self._connection, BATCH_MOST)
        over = {order: state for order, state in states.items() if state != "paid"}
        if over:
            await self._settle.settle([(order.bytes, state, False) for order, state in over.items()], "")
            await forget_owed(self._connection, list(over))
        DELIVERED.inc(keys)
        OWED.set(len(states) - len(over))
        await raise_left_behind(self._connection, self._store, self._shard)
        await self._turn_generation()

    async def _look_at_epoch(self) -> None:
        """End the session when Valkey was emptied or restored under our feet; the next one closes and opens anew."""
        found = await self._store.hget(f"{ROOT}:meta", "epoch")
        if int(found or 0) != self._epoch:
            raise StoreUnavailable("Valkey lost the epoch this projector opened; opening anew")

    async def _turn_generation(self) -> None:
        meta = f"{ROOT}:meta"
        gen, began_ms = [int(value or 0) for value in await self._store.hmget(meta, ["gen", "gen_ms"])]
        now_ms = int((await self._store.time())[0]) * 1000
        if not began_ms:
            await self._store.hset(meta, "gen_ms", str(now_ms))
        elif now_ms - began_ms >= _GENERATION_MS:
            old = gen - 1
            await self._store.unlink(f"{ROOT}:done:{old}", f"{ROOT}:events:{old}")
            await self._carry_names(gen + 1)
            await self._store.hset(meta, mapping={"gen": str(gen + 1), "gen_ms": str(now_ms)})

    async def _carry_names(self, gen: int) -> None:
        """Name the orders still live in the next generation: `ids` of two generations must name all that are known."""
        at = 0
        while True:
            at, page = await self._store.hscan(f"{ROOT}:live", at, count=1_000)
            pipe = self._store.pipeline(transaction=False)
            live: dict[bytes, bytes] = page  # type: ignore[assignment]  # this client decodes nothing
            for order_id, record in live.items():
                key = f"{ROOT}:ids:{gen}:{msgspec.msgpack.decode(record)[2]}"
                pipe.append(key, order_id[:ORDER_NAME_BYTES])
                pipe.expire(key, IDS_KEPT_S)
            await pipe.execute()
            if at == 0:
                return


def _count(outcome: Outcome) -> None:
    PROJECTED.labels("fact").inc(outcome.facts)
    DELIVERED.inc(outcome.keys)
    if outcome.poisoned:
        QUARANTINED.inc(outcome.poisoned)
        log("error", "records_quarantined", records=outcome.poisoned)
