"""A null shop: the HTTP contract in memory, as cheap as uvloop allows, to test the load generator alone.

It keeps orders in dicts and promises nothing: no durability, no checks beyond what the generator must see.
Faults can be asked for: every n-th place is executed and then answered by a reset (``--reset-every``) or 503
not executed (``--busy-every``), every n-th callback is handled and then reset (``--lose-callback-every``).

    python tests/harness/null_shop.py --port 0 --stock 10000 --hold-ms 4000      prints the port it listens on
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvloop

LIMIT = 2
DELIVER_AFTER_S = 0.003
JSON = b"Content-Type: application/json\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"


class Order:
    """One order in memory."""

    __slots__ = (
        "answer",
        "buyer",
        "fingerprint",
        "id",
        "keys",
        "pay_by",
        "quantity",
        "sku",
        "state",
        "waiters",
    )

    def __init__(self, order_id: str, sku: str, buyer: str, quantity: int, hold_s: float) -> None:
        self.id, self.sku, self.buyer, self.quantity = order_id, sku, buyer, quantity
        self.fingerprint = (sku, quantity)
        self.state = "reserved"
        self.pay_by = datetime.fromtimestamp(time.time() + hold_s, UTC).isoformat(timespec="milliseconds")
        self.keys: list[str] = []
        self.waiters: list[asyncio.Future[None]] = []

    def fields(self) -> dict[str, Any]:
        return {
            "order_id": self.id,
            "state": self.state,
            "sku": self.sku,
            "quantity": self.quantity,
            "amount": 1999 * self.quantity,
            "currency": "CNY",
            "pay_by": self.pay_by.replace("+00:00", "Z"),
        }


class Shop:
    """All orders, and the rules of the contract in short."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.orders: dict[str, Order] = {}
        self.stock: dict[str, int] = {}
        self.bought: dict[tuple[str, str], int] = {}
        self.events: set[str] = set()
        self.placed = self.called = self.key_number = 0

    def place(self, key: str, body: bytes) -> tuple[int, bytes]:
        fields = msgspec.json.decode(body)
        sku, buyer, quantity = fields["sku"], fields["buyer"], fields["quantity"]
        order_id = hashlib.blake2b(f"{buyer}\0{key}".encode(), digest_size=16).hexdigest()
        prior = self.orders.get(order_id)
        if prior is not None:
            if prior.fingerprint != (sku, quantity):
                return problem(422, "idempotency_conflict")
            return 200, placed(prior)
        if self.bought.get((sku, buyer), 0) + quantity > LIMIT:
            return problem(409, "limit_reached")
        free = self.stock.get(sku, self.options.stock if sku == "hot" else 100)
        if free < quantity:
            return problem(409, "sold_out")
        self.stock[sku] = free - quantity
        self.bought[(sku, buyer)] = self.bought.get((sku, buyer), 0) + quantity
        hold_s = self.options.hold_ms / 1000
        order = self.orders[order_id] = Order(order_id, sku, buyer, quantity, hold_s)
        asyncio.get_running_loop().call_later(hold_s, self.release, order, "expired")
        return 201, placed(order)

    def release(self, order: Order, state: str) -> None:
        if order.state == "reserved":
            self.stock[order.sku] += order.quantity
            self.bought[(order.sku, order.buyer)] -= order.quantity
            self.move(order, state)

    def move(self, order: Order, state: str) -> None:
        order.state = state
        for waiter in order.waiters:
            if not waiter.done():
                waiter.set_result(None)
        order.waiters = []

    def callback(self, body: bytes) -> tuple[int, bytes]:
        fields = msgspec.json.decode(body)
        order = self.orders.get(fields["order_id"])
        if order is None:
            return problem(404, "unknown_order")
        if fields["status"] != "paid":
            return 200, told("noted", order)
        if fields["event_id"] in self.events:
            return 200, told("repeated", order)
        self.events.add(fields["event_id"])
        if order.state == "reserved":
            outcome = "paid"
        elif self.stock[order.sku] >= order.quantity:
            outcome = "late"
            self.stock[order.sku] -= order.quantity
        else:
            self.move(order, "refund_due")
            return 200, told("refund_due", order)
        self.move(order, "paid")
        asyncio.get_running_loop().call_later(DELIVER_AFTER_S, self.deliver, order)
        return 200, told(outcome, order)

    def deliver(self, order: Order) -> None:
        for _ in range(order.quantity):
            self.key_number += 1
            order.keys.append(f"KEY-{self.key_number:08d}")
        self.move(order, "delivered")


def placed(order: Order) -> bytes:
    return msgspec.json.encode(order.fields() | {"token": "6553f100." + "A" * 24, "pay_url": "/pay/" + order.id})


def told(outcome: str, order: Order) -> bytes:
    return msgspec.json.encode({"outcome": outcome, "state": order.state})


def problem(status: int, code: str) -> tuple[int, bytes]:
    return status, msgspec.json.encode({"type": "about:blank", "status": status, "code": code})


class Connection(asyncio.Protocol):
    """One connection; whole requests only, no pipelining, as the generator sends them."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.buffer = shop, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head, at = self.buffer[:head_end], head_end + 4
        length = header(head, b"Content-Length: ")
        size = int(length) if length else 0
        if len(self.buffer) < at + size:
            return
        body, self.buffer = self.buffer[at : at + size], b""
        self.handle(head, body)

    def handle(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        shop, options = self.shop, self.shop.options
        if method == b"POST" and target == b"/v1/orders":
            shop.placed += 1
            if options.busy_every and shop.placed % options.busy_every == 0:
                self.answer(*problem(503, "overloaded"), b"X-Outcome: not-executed\r\nRetry-After: 0\r\n")
                return
            status, answer = shop.place((header(head, b"Idempotency-Key: ") or b"").decode(), body)
            if options.reset_every and shop.placed % options.reset_every == 0:
                self.transport.abort()
                return
            self.answer(status, answer)
        elif method == b"POST":
            shop.called += 1
            status, answer = shop.callback(body)
            if options.lose_callback_every and shop.called % options.lose_callback_every == 0:
                self.transport.abort()
                return
            self.answer(status, answer)
        else:
            path, _, query = target.partition(b"?wait=")
            order = shop.orders.get(path.rpartition(b"/")[2].decode())
            if order is None:
                self.answer(*problem(404, "unknown_order"))
            elif method == b"DELETE":
                self.cancel(order)
            elif query and order.state in ("reserved", "paid"):
                waiter = asyncio.get_running_loop().create_future()
                order.waiters.append(waiter)  # here, not in the task: the change may come before it starts
                asyncio.get_running_loop().create_task(self.wait(order, waiter, float(query)))
            else:
                self.show(order)

    def cancel(self, order: Order) -> None:
        if order.state != "reserved":
            self.answer(*problem(409, "not_cancellable"))
            return
        self.shop.release(order, "cancelled")
        self.show(order)

    async def wait(self, order: Order, waiter: asyncio.Future[None], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiter, seconds)
        self.show(order)

    def show(self, order: Order) -> None:
        fields = order.fields()
        if order.state == "delivered":
            fields["keys"] = order.keys
        self.answer(200, msgspec.json.encode(fields))

    def answer(self, status: int, body: bytes, more: bytes = b"") -> None:
        if self.transport.is_closing():
            return
        kind = PROBLEM if status >= 400 else JSON
        self.transport.write(
            b"HTTP/1.1 %d X\r\n%b%bContent-Length: %d\r\n\r\n%b" % (status, kind, more, len(body), body)
        )


def header(head: bytes, name: bytes) -> bytes | None:
    at = head.find(name)
    return head[at + len(name) :].partition(b"\r\n")[0] if at >= 0 else None


async def serve(options: argparse.Namespace) -> None:
    shop = Shop(options)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(shop), "127.0.0.1", options.port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stock", type=int, default=10_000)
    parser.add_argument("--hold-ms", type=int, default=4_000)
    parser.add_argument("--reset-every", type=int, default=0)
    parser.add_argument("--busy-every", type=int, default=0)
    parser.add_argument("--lose-callback-every", type=int, default=0)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
