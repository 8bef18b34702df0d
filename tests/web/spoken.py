"""What a client says: requests byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from pure_stores import CLOCK_MS, NAMES, PRICE, SECRET, an_order_id

from core.clock import iso8601
from core.sale.payments.gateways.sandbox import sign

Header = tuple[str | bytes, str | bytes]
HOST: Final[Header] = ("Host", "shop")
NOW_S: Final = CLOCK_MS // 1000
EVER_S: Final = NOW_S + 1_000


def raw(text: str | bytes) -> bytes:
    """Return a text as it goes over the wire."""
    return text if isinstance(text, bytes) else text.encode("utf-8")


def request(
    line: str | bytes, headers: Iterable[Header] = (), body: bytes = b"", *, length: bool | None = None
) -> bytes:
    """Return one request; ``length``: whether it has a Content-Length, None: only if it has a body."""
    lines = [raw(line), *[raw(name) + b": " + raw(value) for name, value in headers]]
    if length or (length is None and body):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def order_body(sku: str = "plain", buyer: str = "ann", quantity: int = 1) -> bytes:
    """Return the body that places an order."""
    return msgspec.json.encode({"sku": sku, "buyer": buyer, "quantity": quantity})


def place(sku: str = "plain", key: str = "key-1", buyer: str = "ann") -> bytes:
    """Return the request that places an order; its SKU says what becomes of it."""
    headers = (HOST, ("Content-Type", "application/json"), ("Idempotency-Key", key))
    return request("POST /v1/orders HTTP/1.1", headers, order_body(sku, buyer))


def payment_body(event: str = "paid-1", fate: int = 0) -> bytes:
    """Return the body of a gateway's report; its event says what becomes of it."""
    said = {
        "event_id": event,
        "order_id": an_order_id(fate).hex(),
        "amount": PRICE,
        "currency": "CNY",
        "status": "paid",
        "paid_at": iso8601(CLOCK_MS),
    }
    return msgspec.json.encode(said)


def signature(body: bytes, at_s: int = NOW_S) -> Header:
    """Return the header that signs a report."""
    return ("X-Signature", sign(SECRET, body, at_s))


def callback(event: str = "paid-1", fate: int = 0) -> bytes:
    """Return a signed report."""
    body = payment_body(event, fate)
    headers = (HOST, ("Content-Type", "application/json"), signature(body))
    return request("POST /v1/payments/sandbox/callback HTTP/1.1", headers, body)


def bearer(fate: int = 0, expires_s: int = EVER_S) -> Header:
    """Return the header with an order's token."""
    return ("Authorization", "Bearer " + NAMES.token(an_order_id(fate), expires_s))


def status(fate: int = 0, query: str = "") -> bytes:
    """Return the question where an order stands."""
    return request(f"GET /v1/orders/{an_order_id(fate).hex()}{query} HTTP/1.1", (HOST, bearer(fate)))


def cancel(fate: int = 0) -> bytes:
    """Return the request that cancels an order."""
    return request(f"DELETE /v1/orders/{an_order_id(fate).hex()} HTTP/1.1", (HOST, bearer(fate)))


def product(sku: str = "plain") -> bytes:
    """Return the question about a product."""
    return request(f"GET /v1/products/{sku} HTTP/1.1", (HOST, ("Accept", "*/*")))


# One plain request of each hot kind: what the lane is there for.
HOT: Final[dict[str, bytes]] = {
    "place": place(),
    "place, refused": place("sold_out"),
    "place, unknown": place("unknown"),
    "callback": callback(),
    "status": status(),
    "status with keys": status(6),
    "status, waiting": status(0, "?wait=0.5"),
    "product": product(),
}
