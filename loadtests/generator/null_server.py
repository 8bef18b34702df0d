"""A null server: the same small answer to every GET, as cheap as uvloop allows. It prints the port it listens on.

    python -m loadtests.generator.null_server

It finds the ends of heads and nothing else, so a request must have no body. It ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final, cast

import uvloop

_BODY: Final = b'{"sku":"hot","price":1999,"currency":"CNY","stock":"in"}'
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
_END: Final = b"\r\n\r\n"
_ORPHANED_S: Final = 1.0


class Null(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_rest", "_write")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._write, self._rest = cast("asyncio.Transport", transport).write, b""

    def data_received(self, data: bytes) -> None:
        """Answer every head that is whole."""
        if not self._rest and data.endswith(_END) and data.count(_END) == 1:
            self._write(_ANSWER)
            return
        *heads, self._rest = (self._rest + data).split(_END)
        for _ in heads:
            self._write(_ANSWER)


async def serve() -> None:
    """Serve until whoever started this is gone."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Null, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    parent = os.getppid()
    async with server:
        while os.getppid() == parent:  # noqa: ASYNC110  # no event tells that a parent died
            await asyncio.sleep(_ORPHANED_S)


if __name__ == "__main__":
    uvloop.run(serve())
