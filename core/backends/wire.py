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
        self._awaited: deque[asyncio.Future[Any]] = deque()  # one for each command under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Hand each reply that is whole to whoever waits for it."""
        self._reader.feed(data)
        while self._awaited and (reply := self._reader.gets()) is not _INCOMPLETE:
            awaited = self._awaited.popleft()
            if not awaited.done():
                awaited.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits that no reply will come."""
        self._transport = None
        for awaited in self._awaited:
            if not awaited.done():
                awaited.set_exception(ConnectionResetError("the store closed the connection"))
        self._awaited.clear()

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
        awaited = loop.create_future()
        self._awaited.append(awaited)
        self._transport.write(hiredis.pack_command(cast(Any, arguments)))
        timer = loop.call_later(STORE_TIMEOUT_S, _is_late, awaited)  # a fifth of what `asyncio.timeout` costs
        try:
            reply = await awaited
        finally:
            timer.cancel()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """Close at once; what is under way is lost."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def _is_late(awaited: asyncio.Future[Any]) -> None:
    if not awaited.done():
        awaited.set_exception(TimeoutError())


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
