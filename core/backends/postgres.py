"""PostgreSQL: a small pool whose every call has a limit in time and whose failures have names."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg

from core.backends.texts import text
from core.errors import StoreUnavailable, StoreUnknown, UnfitStore
from core.settings import CONNECT_TIMEOUT_S, STORE_TIMEOUT_S
from core.telemetry import POOL_WAITS

Connection: TypeAlias = Any  # asyncpg ships no types
VERSION_LEAST: Final = 180_000  # UPDATE … RETURNING old.*: the state before a move, in one statement
_MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"
_MIGRATION_LOCK: Final = 0x666C_6173_6870  # advisory lock: one migration at a time
PROJECTOR_LOCK: Final = 0x666C_6173  # advisory lock (this, shard): one projector a shard
_REQUIRED: Final = {
    "fsync": ("on", "a committed delivery must be on disk"),
    "synchronous_commit": ("on", "a key must not be shown before its sale is on disk"),
    "full_page_writes": ("on", "otherwise a crash can tear pages"),
}
# No connection, or lost before a commit could have been sent.
_GONE: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server said goodbye between two queries and the socket is not yet seen closed
    asyncpg.CannotConnectNowError,
)


async def connect(dsn: str, *, timeout_s: float = STORE_TIMEOUT_S * 5) -> Connection:
    """Return one connection.

    Raises:
        StoreUnavailable: it cannot be made.
    """
    try:
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S * 3, command_timeout=timeout_s)
    except (TimeoutError, *_GONE, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {error}") from error


async def assert_fit(connection: Connection) -> None:
    """Check that the server and its schema are what the shop needs.

    Raises:
        UnfitStore: a setting, the version or the schema is not; the message says what to do.
    """
    if int(await connection.fetchval("SHOW server_version_num")) < VERSION_LEAST:
        version = await connection.fetchval("SHOW server_version")
        raise UnfitStore(f"PostgreSQL {version} is too old; 18 or newer is needed")
    for name, (wanted, why) in _REQUIRED.items():
        found = await connection.fetchval("SELECT current_setting($1)", name)
        if found != wanted:
            raise UnfitStore(f"PostgreSQL has {name} {found!r}; it must be {wanted!r}: {why}")
    missing = await unapplied(connection)
    if missing:
        raise UnfitStore(f"PostgreSQL lacks the migrations {', '.join(missing)}; run `flashproof migrate`")


async def unapplied(connection: Connection) -> list[str]:
    """Return the names of the migrations that this database has not seen, in order."""
    known: set[str] = set()
    if await connection.fetchval("SELECT to_regclass('migrations')"):
        known = {row["name"] for row in await connection.fetch("SELECT name FROM migrations")}
    return [path.stem for path in sorted(_MIGRATIONS.glob("*.sql")) if path.stem not in known]


async def migrate(connection: Connection) -> list[str]:
    """Apply what is missing, all or nothing, one process at a time; return the names applied."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
        )
        names = await unapplied(connection)
        for name in names:
            await connection.execute(text(f"backends/migrations/{name}.sql"))
            await connection.execute("INSERT INTO migrations (name) VALUES ($1)", name)
    return names


# What the sale reads it reads by key. Tables that have just begun to grow have no statistics, and the planner would
# rather scan all card keys than look up fifty: PostgreSQL's processor in a default sale fell from 8.3 s to 3.5 s.
READ_BY_KEY: Final = {"enable_seqscan": "off", "enable_mergejoin": "off", "plan_cache_mode": "force_generic_plan"}


async def _keep_as_it_is(connection: Connection) -> None:
    """Skip asyncpg's reset of a connection that comes back: a round trip each time, for state that we never set."""


class Postgres:
    """A lazy pool: it connects when first asked, and a store that is down is an answer, not a crash."""

    def __init__(self, dsn: str, *, connections_most: int = 4) -> None:
        self._dsn, self._most = dsn, connections_most
        self._pool: Any = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection.

        Raises:
            StoreUnavailable: none can be had.
            StoreUnknown: it was lost or timed out in the middle of the work.
        """
        asked_s = time.perf_counter()
        try:
            if self._pool is None:
                self._pool = asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._most,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=STORE_TIMEOUT_S,
                    reset=_keep_as_it_is,
                    server_settings=READ_BY_KEY,
                )
            await self._pool
            connection = await self._pool.acquire(timeout=STORE_TIMEOUT_S)
        except (TimeoutError, *_GONE, asyncpg.PostgresError) as error:
            raise StoreUnavailable(f"PostgreSQL cannot be reached: {error}") from error
        POOL_WAITS.add(time.perf_counter() - asked_s)
        try:
            yield connection
        except (TimeoutError, *_GONE, asyncpg.OperatorInterventionError) as error:
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool may have taken it back when the server went
                connection.terminate()
            raise StoreUnknown(f"PostgreSQL was lost: {error}") from error
        finally:
            try:
                await self._pool.release(connection, timeout=STORE_TIMEOUT_S)
            except (*_GONE, asyncpg.PostgresError, TimeoutError):
                pass  # what was read stands; asyncpg has ended the connection

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Return the rows of a query."""
        async with self.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    def close(self) -> None:
        """Drop every connection at once; asyncpg's graceful close can hang on a frozen server."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None
