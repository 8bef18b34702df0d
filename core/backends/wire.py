"""One connection to Valkey for the hot path: a command out, a reply back, nothing else.

Why not the client library's connection: each of its calls passes a stream reader, a stream writer, a lock and several
coroutines, some 100 µs a call where the script itself takes 20; parsing and packing are the same C code (hiredis) here
and there. Everything off the hot path (boot, pub/sub, tools) uses the library.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from core.settings import CONNECT_TIMEOUT_S, STORE_TIMEOUT_S

_INCOMPLETE: Final = object()


class ReplyError(Exception):
    """The server answered with an error; the text is the server's."""


class Wire(asyncio.Protocol):
    """A connection. Commands may follow each other before they are answered; answers come in their order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        # One for each command under way, and until when (the loop's time) its reply must be here.
        self._awaited: deque[tuple[asyncio.Future[Any], float]] = deque()
        # One for all of them, set anew when it rings: one for each would be made and taken back, nearly always in vain.
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Hand each reply that is whole to whoever waits for it."""
        self._reader.feed(data)
        while self._awaited and (reply := self._reader.gets()) is not _INCOMPLETE:
            awaited, _ = self._awaited.popleft()
            if not awaited.done():
                awaited.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits that no reply will come."""
        self._transport = None
        for awaited, _ in self._awaited:
            if not awaited.done():
                awaited.set_exception(ConnectionResetError("the store closed the connection"))
        self._awaited.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def is_open(self) -> bool:
        """Whether a command can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def command(self, *arguments: bytes | str | int) -> Any:
        """Send a command and return its reply; afterwards, whatever was raised but ``ReplyError``, drop the connection.

        Raises:
            ReplyError: the server's own error.
            ConnectionError, TimeoutError: no reply came.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        loop = asyncio.get_running_loop()
        awaited, until = loop.create_future(), loop.time() + STORE_TIMEOUT_S
        self._awaited.append((awaited, until))
        self._transport.write(hiredis.pack_command(cast(Any, arguments)))
        if self._timer is None:
            self._timer = loop.call_at(until, self._look_who_is_late, loop)
        reply = await awaited
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def _look_who_is_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for awaited, until in self._awaited:
            if until > now:
                self._timer = loop.call_at(until, self._look_who_is_late, loop)
                return
            if not awaited.done():
                awaited.set_exception(TimeoutError())

    def close(self) -> None:
        """Close at once; what is under way is lost."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


async def connect(url: str) -> Wire:
    """Return a connection to a ``unix://``, ``redis://`` or ``rediss://`` address, authenticated, on its database.

    Raises:
        OSError, TimeoutError: it cannot be made. ReplyError: the server does not let us in.
    """
    options: dict[str, Any] = dict(parse_url(url))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        if "path" in options:
            _, wire = await loop.create_unix_connection(Wire, options["path"])
        else:
            secure = ssl.create_default_context() if options.get("connection_class") is SSLConnection else None
            host, port = options.get("host", "localhost"), int(options.get("port", 6379))
            _, wire = await loop.create_connection(Wire, host, port, ssl=secure)
    try:
        if options.get("password"):
            user = (options["username"],) if options.get("username") else ()
            await wire.command("AUTH", *user, options["password"])
        if int(options.get("db") or 0):
            await wire.command("SELECT", int(options["db"]))
    except BaseException:
        wire.close()
        raise
    return wire
