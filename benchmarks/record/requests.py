"""The requests of buyers and gateways in these rows, numbered: order, question and payment share a number."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.record.client import HOST
from benchmarks.record.stage import CURRENCY, PRICE, SKU
from core.ids import Names
from core.sale.payments.gateways.sandbox import sign
from core.settings import Settings

_FAR_S: Final = 0xFFFFFFFF  # a token's end


def buyer(number: int) -> str:
    """Return the buyer of order ``number``."""
    return f"buyer-{number:09d}"


def key(number: int) -> str:
    """Return the idempotency key of order ``number``."""
    return f"key-{number:09d}-abcdef"


class Requests:
    """Makes them for one deployment."""

    def __init__(self, settings: Settings) -> None:
        """Take the secrets of the deployment."""
        self.names, self._secret = Names(settings.secret), settings.sandbox_secret

    def order_id(self, number: int) -> bytes:
        """Return the id that order ``number`` has, or will have."""
        return self.names.order_id(buyer(number), key(number))

    def place(self, number: int) -> bytes:
        """Return the request that places it."""
        body = f'{{"sku":"{SKU}","buyer":"{buyer(number)}","quantity":1}}'
        return (
            f"POST /v1/orders HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: {key(number)}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def wait(self, number: int, seconds: int) -> bytes:
        """Return its buyer's question, which waits up to so many seconds for a change."""
        order_id = self.order_id(number)
        return (
            f"GET /v1/orders/{order_id.hex()}?wait={seconds} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Authorization: Bearer {self.names.token(order_id, _FAR_S)}\r\n\r\n"
        ).encode()

    def callback(self, number: int) -> bytes:
        """Return the gateway's report that it was paid, signed now."""
        body = (
            f'{{"event_id":"event-{number:09d}","order_id":"{self.order_id(number).hex()}","amount":{PRICE},'
            f'"currency":"{CURRENCY}","status":"paid","paid_at":"2026-01-01T00:00:00Z"}}'
        ).encode()
        return (
            f"POST /v1/payments/sandbox/callback HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"X-Signature: {sign(self._secret, body, int(time.time()))}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
