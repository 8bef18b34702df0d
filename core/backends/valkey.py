"""Valkey: connections that know which server process and which epoch they speak to, and never retry by themselves.

Why not the client's own pool: it reconnects in silence. A connection here looks at the server's ``run_id`` whenever it
is made; if that is not the process the shop was opened on (it restarted, was restored, or is another one), the
connection refuses to sell until the fence (``workers/fence.py``) has made the stores agree and opened a new epoch.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from core.backends.texts import Script
from core.backends.wire import ReplyError, Wire, connect
from core.errors import Fenced, StoreUnavailable, StoreUnknown, UnfitStore
from core.settings import CONNECT_TIMEOUT_S, STORE_TIMEOUT_S

Argument: TypeAlias = bytes | str | int
SHARD: Final = 0  # one shard today; its number is in every name, so that there can be more
ROOT: Final = f"fp:{{{SHARD}}}"
VERSION_LEAST: Final = (8, 0)

# What the server must be set to, and why a shop must not open otherwise.
_REQUIRED: Final = {
    "appendonly": ("yes", "an accepted order must be on disk"),
    "appendfsync": ("always", "everysec loses acknowledged orders when the process or the machine dies"),
    "no-appendfsync-on-rewrite": ("no", "otherwise a rewrite suspends the fsync"),
    "maxmemory-policy": ("noeviction", "otherwise orders are thrown away when memory is short"),
}
# Errors that the server gives before it runs a script: surely nothing was changed.
_NOT_RUN: Final = (
    "LOADING",
    "OOM",
    "MISCONF",
    "READONLY",
    "NOAUTH",
    "NOPERM",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "BUSY",
    "WRONGPASS",
)


def client(url: str) -> redis.Redis:
    """Return an ordinary client (for pub/sub, boot and tools) that never retries: a lost reply is *unknown*."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=STORE_TIMEOUT_S * 5,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        max_connections=8,
        timeout=STORE_TIMEOUT_S,  # a caller waits so long for one of them; then the store counts as out of reach
    )
    return redis.Redis.from_pool(pool)


async def assert_fit(url: str) -> None:
    """Check that the server is set up so that a promise made on it holds.

    Raises:
        UnfitStore: it is not; the message says which setting, what it is and what it must be.
    """
    store = client(url)
    try:
        info = await store.info("server")
        version = str(info.get("valkey_version") or info.get("redis_version") or "0")
        if tuple(int(part) for part in version.split(".")[:2]) < VERSION_LEAST:
            raise UnfitStore(f"Valkey {version} is too old; {'.'.join(map(str, VERSION_LEAST))} or newer is needed")
        found = await store.config_get(*_REQUIRED)
        for name, (wanted, why) in _REQUIRED.items():
            if found.get(name) != wanted:
                raise UnfitStore(f"Valkey has {name} {found.get(name)!r}; it must be {wanted!r}: {why}")
    except ResponseError as error:
        raise UnfitStore(f"Valkey does not tell its settings ({error}); allow CONFIG GET and INFO") from error
    except RedisError as error:
        raise StoreUnavailable(f"Valkey cannot be reached: {str(error) or type(error).__name__}") from error
    finally:
        await store.aclose()


class ShardConnection:
    """One connection to a shard, for one lane of calls. Some may be under way at once, and are answered in their order.

    After each call one thing is true: it was done and its answer returned; or ``StoreUnavailable`` / ``Fenced``: surely
    not done; or ``StoreUnknown``: nobody knows, and the connection is dropped so that no late answer is mistaken.
    """

    def __init__(self, url: str, *, once: bool = False) -> None:
        """``once``: never reconnect; who must notice that the server was away (the projector) makes a new one."""
        self._url, self._once, self._made = url, once, False
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._epoch = b"0"

    async def _connected(self) -> Wire:
        """Return a live connection, and learn the epoch if this server process is the one the shop is open on."""
        if self._wire is not None and self._wire.is_open:
            return self._wire
        async with self._connecting:  # two calls make one connection
            return self._wire if self._wire is not None and self._wire.is_open else await self._connect()

    async def _connect(self) -> Wire:
        if self._once and self._made:
            raise StoreUnavailable("the connection to Valkey was lost")
        wire: Wire | None = None
        try:
            wire = await connect(self._url)
            self._epoch = await _read_epoch(wire)
        except (ReplyError, OSError, TimeoutError) as error:
            if wire is not None:
                wire.close()
            raise StoreUnavailable(f"Valkey cannot be reached: {str(error) or type(error).__name__}") from error
        self._wire, self._made = wire, True
        return wire

    async def call(self, script: Script, *arguments: Argument, fenced: bool = True) -> Any:
        """Run a script on this shard under the present epoch and return its reply as bytes, ints and lists.

        A fenced script that meets a new epoch surely changed nothing: the epoch is read again and the call is made
        once more.

        Raises:
            Fenced: selling is closed.
            StoreUnavailable: surely not done.
            StoreUnknown: sent, and no answer came.
        """
        for attempt in (1, 2):
            wire = await self._connected()
            if fenced and self._epoch == b"0":
                await self._learn_epoch(wire)
            try:
                return await self._evaluate(wire, script, self._epoch if fenced else b"", arguments)
            except Fenced:
                if attempt == 2:
                    raise
                self._epoch = b"0"
        raise AssertionError("unreachable")

    async def command(self, *arguments: Argument) -> Any:
        """Send one plain command and return its reply, with the same promises as ``call`` but no fence.

        Raises:
            StoreUnavailable: surely not done. StoreUnknown: sent, and no answer came.
        """
        return await self._send(await self._connected(), *arguments)

    async def _learn_epoch(self, wire: Wire) -> None:
        try:
            self._epoch = await _read_epoch(wire)
        except (ReplyError, OSError, TimeoutError) as error:
            self._drop(wire)
            raise StoreUnavailable(f"Valkey cannot be reached: {str(error) or type(error).__name__}") from error
        if self._epoch == b"0":
            raise Fenced

    async def _evaluate(self, wire: Wire, script: Script, epoch: bytes, arguments: tuple[Argument, ...]) -> Any:
        try:
            return await self._send(wire, "EVALSHA", script.sha, 1, ROOT, epoch, *arguments)
        except _NoScript:
            return await self._send(wire, "EVAL", script.source, 1, ROOT, epoch, *arguments)

    async def _send(self, wire: Wire, *arguments: Argument) -> Any:
        try:
            return await wire.command(*arguments)
        except ReplyError as error:
            raise _name(error) from error
        except BaseException as error:
            # Also a cancelled call leaves an answer behind on the wire: whoever comes next must not take it for theirs.
            self._drop(wire)
            if isinstance(error, OSError | TimeoutError):
                raise StoreUnknown from error
            raise

    async def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        if self._wire is not None:
            self._drop(self._wire)

    def _drop(self, wire: Wire) -> None:
        """Close a connection, which may not be the present one any more; to whoever else waits on it all is unknown."""
        wire.close()
        if self._wire is wire:
            self._wire = None


async def _read_epoch(wire: Wire) -> bytes:
    """Return the epoch that is open on the very server process at the other end, or ``0``."""
    info = await wire.command("INFO", "server")
    epoch, run_id = await wire.command("HMGET", f"{ROOT}:meta", "epoch", "run_id")
    return epoch if epoch and run_id and b"run_id:" + run_id in info else b"0"


class _NoScript(Exception):
    """The server does not have the script yet; it surely ran nothing."""


def _name(error: ReplyError) -> Exception:
    """Return what a server's error means for the caller."""
    words = str(error)
    if words.startswith("NOSCRIPT"):
        return _NoScript()
    if words.startswith("FENCED"):
        return Fenced()
    if words.startswith(_NOT_RUN):
        return StoreUnavailable(f"Valkey refused the call: {words}")
    return StoreUnknown(f"Valkey failed in the call: {words}")
