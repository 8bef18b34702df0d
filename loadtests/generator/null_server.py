"""A null server: a shop that does nothing, as cheap as uvloop allows. It prints the port it listens on.

    python -m loadtests.generator.null_server [SHARE]

Every page is the same small answer. Of the orders SHARE (all, unless said) are accepted, each under an id of its own,
the others are told sold_out; a payment is taken at once, and who tracks an order is shown a key. It keeps nothing and
ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import uvloop


def _whole(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_PAGE: Final = _whole(b"200 OK", b'{"sku":"hot","price":1999,"currency":"CNY","stock":"in"}')
_SOLD_OUT: Final = _whole(b"409 Conflict", b'{"type":"about:blank","status":409,"code":"sold_out"}')
_PAID: Final = _whole(b"200 OK", b'{"outcome":"paid","state":"paid"}')
_CANCELLED: Final = _whole(b"200 OK", b'{"state":"cancelled"}')
_SHOWN: Final = _whole(b"200 OK", b'{"state":"delivered","keys":["KEY-0000000000000000"]}')
_ORDER: Final = (
    b'{"order_id":"%032x","token":"6553f100.AAAAAAAAAAAAAAAAAAAAAAAA","state":"reserved","sku":"hot","quantity":1,'
    b'"amount":1999,"currency":"CNY","pay_by":"%b","pay_url":"/pay/%032x"}'
)
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"Content-Length: "
_ORPHANED_S: Final = 1.0
_HOLD: Final = timedelta(milliseconds=200)  # so short that who pays late does so within any measurement


class Orders:
    """Decides the orders: every so-manieth is accepted."""

    __slots__ = ("_asked", "_share")

    def __init__(self, share: float) -> None:
        """Take the share that is accepted."""
        self._share, self._asked = share, 0

    def answer(self) -> bytes:
        """Return the answer to one more order."""
        self._asked += 1
        if int(self._asked * self._share) == int((self._asked - 1) * self._share):
            return _SOLD_OUT
        pay_by = (datetime.now(UTC) + _HOLD).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return _whole(b"201 Created", _ORDER % (self._asked, pay_by.encode(), self._asked))


class Null(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_orders", "_rest", "_write")

    def __init__(self, orders: Orders) -> None:
        """Share the orders with the other connections."""
        self._orders = orders

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._write, self._rest = cast("asyncio.Transport", transport).write, b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        if not self._rest and data.startswith(b"GET /v1/p") and data.endswith(_END) and data.count(_END) == 1:
            self._write(_PAGE)
            return
        self._rest += data
        while (head_end := self._rest.find(_END)) >= 0:
            head = self._rest[:head_end]
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].partition(b"\r\n")[0]) if at >= 0 else 0
            if len(self._rest) < head_end + len(_END) + length:
                return
            self._rest = self._rest[head_end + len(_END) + length :]
            self._write(self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        if head.startswith(b"POST /v1/orders"):
            return self._orders.answer()
        if head.startswith(b"POST"):
            return _PAID
        if head.startswith(b"GET /v1/orders/"):
            return _SHOWN
        return _CANCELLED if head.startswith(b"DELETE") else _PAGE


async def serve(share: float) -> None:
    """Serve until whoever started this is gone."""
    loop, orders = asyncio.get_running_loop(), Orders(share)
    server = await loop.create_server(lambda: Null(orders), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    parent = os.getppid()
    async with server:
        while os.getppid() == parent:  # noqa: ASYNC110  # no event tells that a parent died
            await asyncio.sleep(_ORPHANED_S)


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
