"""Honest buyers in a process of their own: orders at fixed instants, and how long each took from its instant.

The process buys until its standard input ends, then writes one line of JSON with every order. Latency counts from the
instant the order was due, so an answer that delays the orders behind it is charged for them too.
What this process itself waits for a processor would be charged to the shop as well: so it asks to be run as soon as it
has something to do (``loadtests/generator/punctual.py``).
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import Final

import msgspec
import uvloop

from loadtests.generator.http1 import MalformedReplyError, OversizeReplyError, ReplyReader
from loadtests.generator.punctual import ask_real_time
from loadtests.trials.answering import answer

ANSWER_MOST_S: Final = 10.0
CONNECTIONS: Final = 32
_READ_BYTES: Final = 65_536


class Order(msgspec.Struct, frozen=True, array_like=True):
    """One order as the buyer saw it."""

    due_s: float  # monotonic seconds, the same clock in every process of a machine
    latency_ms: float
    status: int  # 0: no answer


class _Line(asyncio.Protocol):
    """A kept connection, one order at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reply, self._waiter = ReplyReader(), asyncio.get_running_loop().create_future()
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's own kind
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            if self._reply.feed(data) and not self._waiter.done():
                self._waiter.set_result(self._reply.status)
        except (MalformedReplyError, OversizeReplyError):
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if not self._waiter.done():
            self._waiter.set_result(0)

    async def ask(self, raw: bytes) -> int:
        """Send one request and return the status of its answer; 0 if there is none."""
        assert self._transport is not None
        self._reply, self._waiter = ReplyReader(), asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        try:
            async with asyncio.timeout(ANSWER_MOST_S):
                status: int = await self._waiter
        except TimeoutError:
            status = 0
        if status == 0 or not self._reply.keep:
            self.is_open = False
            self._transport.abort()
        return status


class Buyers:
    """Place orders at a fixed rate."""

    def __init__(self, host: str, port: int, sku: str, rate: float) -> None:
        self._host, self._port, self._sku, self._step_s = host, port, sku, 1 / rate
        self._mark, self._idle = secrets.token_hex(4), list[_Line]()
        self.orders: list[Order] = []

    async def run(self, over: asyncio.Event) -> None:
        """Buy until told that it is over; the orders under way are waited for."""
        for _ in range(CONNECTIONS):
            self._idle.append(await self._connect())
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not over.is_set():
                due = began + number * self._step_s
                wait = due - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                group.create_task(self._order(number, due))
                number += 1

    async def _connect(self) -> _Line:
        _, line = await asyncio.get_running_loop().create_connection(_Line, self._host, self._port)
        return line

    async def _order(self, number: int, due: float) -> None:
        status = 0
        try:
            line = self._idle.pop() if self._idle else await self._connect()
            if not line.is_open:
                line = await self._connect()
            status = await line.ask(self._request(number))
            if line.is_open:
                self._idle.append(line)
        except OSError:
            status = 0
        self.orders.append(Order(due, (time.monotonic() - due) * 1000, status))

    def _request(self, number: int) -> bytes:
        name = f"{self._mark}-{number}"
        body = b'{"sku":"%b","buyer":"paced-%b","quantity":1}' % (self._sku.encode(), name.encode())
        head = b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: %b\r\nContent-Length: %d\r\n\r\n"
        return head % (name.encode(), len(body)) + body


async def _buy(buyers: Buyers) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    await buyers.run(over)


def main() -> int:
    """Buy until standard input ends, then tell."""
    host, port, sku, rate = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    buyers = Buyers(host, port, sku, rate)
    ask_real_time()
    uvloop.run(_buy(buyers))
    answer(buyers.orders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
