"""The requests of the rows, numbered: each order, payment and question is another one; a row's are equally long."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import msgspec

from core.ids import Names
from core.sale.payments.gateways.sandbox import sign

HOST: Final = "127.0.0.1"
PRICE: Final = 1_999
CURRENCY: Final = "CNY"
HOT: Final = "ceiling-hot"  # never runs out
OUT: Final = "ceiling-out"  # has nothing
_FAR_S: Final = 0xFFFFFFFF  # a token's end
_FIRST: Final = 1_000_000_000  # numbers of ten digits each

Ask = Callable[[int], bytes]


class Spec(msgspec.Struct, frozen=True):
    """What one driver does in one window."""

    port: int
    kind: str  # order, sold_out, callback or status
    first: int  # number of the first request
    connections: int
    seconds: float
    most: int  # requests, warming up included
    orders: int  # from `first`, that a status row asks about in turn
    expect: int  # the status every answer must have
    secret: str  # base64, of the deployment
    sandbox_secret: str
    watch: dict[str, list[int]]  # process ids whose processor time is told, by name


def buyer(number: int) -> str:
    """Return the buyer of request ``number``."""
    return f"buyer-{_FIRST + number}"


def key(number: int) -> str:
    """Return the idempotency key of request ``number``."""
    return f"key-{_FIRST + number}-abcdef"


def _place(sku: str) -> Ask:
    body = b'{"sku":"%b","buyer":"buyer-%%d","quantity":1}' % sku.encode()
    length = len(body % _FIRST)
    whole = (
        b"POST /v1/orders HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Idempotency-Key: key-%%d-abcdef\r\nContent-Length: %d\r\n\r\n" % (HOST.encode(), length)
    ) + body

    def ask(number: int) -> bytes:
        n = _FIRST + number
        return whole % (n, n)

    return ask


def _callback(names: Names, secret: bytes, now_s: int) -> Ask:
    def ask(number: int) -> bytes:
        order = names.order_id(buyer(number), key(number)).hex()
        body = (
            f'{{"event_id":"event-{_FIRST + number}","order_id":"{order}","amount":{PRICE},"currency":"{CURRENCY}",'
            f'"status":"paid","paid_at":"2026-01-01T00:00:00Z"}}'
        ).encode()
        return (
            f"POST /v1/payments/sandbox/callback HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"X-Signature: {sign(secret, body, now_s)}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    return ask


def _status(names: Names, first: int, orders: int) -> Ask:
    def ask(number: int) -> bytes:
        number = first + (number - first) % orders
        order_id = names.order_id(buyer(number), key(number))
        return (
            f"GET /v1/orders/{order_id.hex()} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Authorization: Bearer {names.token(order_id, _FAR_S)}\r\n\r\n"
        ).encode()

    return ask


def asks(spec: Spec, now_s: int) -> Ask:
    """Return what makes the requests of a row."""
    names = Names(base64.b64decode(spec.secret))
    if spec.kind == "callback":
        return _callback(names, base64.b64decode(spec.sandbox_secret), now_s)
    if spec.kind == "status":
        return _status(names, spec.first, spec.orders)
    return _place(HOT if spec.kind == "order" else OUT)
