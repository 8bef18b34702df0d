"""Whether a shop is quiet: nothing left to project, to deliver or to expire. Cheap to ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import redis.asyncio as redis
from redis.exceptions import RedisError

from core.backends import postgres, valkey
from core.backends.valkey import ROOT, SHARD
from core.errors import FlashproofError
from core.sale.orders import journal
from core.sale.orders.stream import FACTS, parse_id
from core.settings import Settings

_AGAIN_S: Final = 0.25
STUCK_S: Final = 10.0


def wait_quiet(settings: Settings, most_s: float, waiting: Callable[[str], None], stuck_s: float = STUCK_S) -> bool:
    """Return whether the shop became quiet within ``most_s`` seconds; ``waiting`` is told what it waits for.

    A shop in which nothing has moved for ``stuck_s`` seconds (longer than a reservation holds) will not become quiet;
    that is not waited out.
    """
    until = time.monotonic() + most_s
    before, moved_at = "", time.monotonic()
    while time.monotonic() < until:
        try:
            left = asyncio.run(_left(settings))
        except (FlashproofError, RedisError, OSError, TimeoutError):
            left = "a store to come back"  # killed on purpose; its supervisor is bringing it back
        if not left:
            return True
        if left != before:
            before, moved_at = left, time.monotonic()
        elif time.monotonic() - moved_at > stuck_s:
            return False
        waiting(f"waiting for {left}")
        time.sleep(_AGAIN_S)
    return False


async def _left(settings: Settings) -> str:
    """Return what is still under way, in words, or nothing."""
    store = valkey.client(settings.valkey_url)
    connection = await postgres.connect(settings.postgres_dsn)
    try:
        last = parse_id((await store.xinfo_stream(FACTS))["last-generated-id"])
        if last != await journal.cursor(connection, SHARD) or await store.xlen(FACTS):
            return "the projector"
        live = await store.hlen(f"{ROOT}:live")
        return f"{live:,} orders not finished" if live else ""
    finally:
        connection.terminate()
        await store.aclose()


def versions(settings: Settings) -> dict[str, str]:
    """Return the stores' versions."""
    return asyncio.run(_versions(settings))


async def _versions(settings: Settings) -> dict[str, str]:
    store: redis.Redis = valkey.client(settings.valkey_url)
    connection = await postgres.connect(settings.postgres_dsn)
    try:
        info = await store.info("server")
        return {
            "valkey": str(info.get("valkey_version") or info.get("redis_version")),
            "postgresql": str(await connection.fetchval("SHOW server_version")),
        }
    finally:
        connection.terminate()
        await store.aclose()
