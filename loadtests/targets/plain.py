"""A plain HTTP shop as a target: JSON in, JSON out, the status tells. A ground for an adapter of your own.

| Call | Request | Answer |
|---|---|---|
| browse | ``GET /products``, ``GET /products/{sku}`` | 200 |
| place | ``POST /orders`` with ``Idempotency-Key`` and ``{"sku", "buyer", "quantity"}`` | 201 or 200 with ``{"id"}`` |
| pay | ``POST /orders/{id}/pay`` with ``{"event", "amount", "currency"}`` | 2xx |
| track | ``GET /orders/{id}`` | 200 with ``{"state", "keys"}`` |
| cancel | ``DELETE /orders/{id}`` | 2xx |

The answer to place may also have ``token``, ``amount``, ``currency`` and ``pay_by`` (ISO 8601); 200 says that the key
was known. 4xx: refused, nothing was changed; the code is the body's ``code`` or ``error``, else ``http_409``. Anything
else is unknown, as it must be.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec

from loadtests.generator import contract
from loadtests.generator.contract import Placed, Reply
from loadtests.record.history import Result
from loadtests.targets import Answer, Call, Notice

_WORD_CHARS_MOST: Final = 64


class PlainShop:
    """Speaks to a shop as the table above has it; override what is different at yours."""

    lacks: frozenset[str] = frozenset(
        {"late", "started", "wait"}
    )  # no hold told, no word of attempts to pay, no long poll

    def __init__(self, authority: str) -> None:
        """Take ``host:port``."""
        self.authority = authority

    def request(
        self, method: str, path: str, fields: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """Return a whole request, ``fields`` as its JSON body."""
        body = b"" if fields is None else msgspec.json.encode(fields)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if fields is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body

    def browse(self, sku: str) -> bytes:
        """Return the request for a product's page, or for the list."""
        return self.request("GET", f"/products/{quote(sku, safe='')}" if sku else "/products")

    def place(self, idempotency_key: str, sku: str, buyer: str, quantity: int) -> bytes:
        """Return the request that places an order."""
        order = {"sku": sku, "buyer": buyer, "quantity": quantity}
        return self.request("POST", "/orders", order, {"Idempotency-Key": idempotency_key})

    def pay(self, notice: Notice) -> bytes:
        """Return the request that pays an order."""
        paid = {"event": notice.event_id, "amount": notice.amount, "currency": notice.currency}
        return self.request("POST", f"/orders/{quote(notice.order_id, safe='')}/pay", paid)

    def track(self, order_id: str, token: str, wait_s: int) -> bytes:
        """Return the request for an order's state."""
        return self.request("GET", f"/orders/{quote(order_id, safe='')}", None, self.bearer(token))

    def cancel(self, order_id: str, token: str) -> bytes:
        """Return the request that cancels an order."""
        return self.request("DELETE", f"/orders/{quote(order_id, safe='')}", None, self.bearer(token))

    def bearer(self, token: str) -> dict[str, str]:
        """Return the header that shows an order's token, if there is one."""
        return {"Authorization": f"Bearer {token}"} if token else {}

    def read(self, call: Call, reply: Reply) -> Answer:
        """Return what an answer says."""
        fields = contract.decode(reply.body)
        fields = fields if isinstance(fields, dict) else {}
        if not 200 <= reply.status < 300:
            return self.refusal(reply, fields)
        if call == "place":
            return self.order(fields, "accepted" if reply.status == 201 else "replayed")
        if call == "track" or call == "cancel":
            keys = fields.get("keys") or ()
            return Answer("ok", word(fields.get("state"), "ok"), None, tuple(str(key) for key in keys))
        return Answer("ok", "paid" if call == "pay" else "ok")

    def refusal(self, reply: Reply, fields: dict[str, Any]) -> Answer:
        """Return the answer that says no, or that does not say what was done."""
        result: Result = "fail" if 400 <= reply.status < 500 else "unknown"
        return Answer(result, word(fields.get("code") or fields.get("error"), f"http_{reply.status}"))

    def order(self, fields: dict[str, Any], outcome: str) -> Answer:
        """Return the answer that gives an order; one without an id, or with odd numbers, is unknown."""
        order_id = str(fields.get("id") or fields.get("order_id") or "")
        try:
            quantity, amount = (int(fields.get(name) or 0) for name in ("quantity", "amount"))
        except (TypeError, ValueError, OverflowError):
            order_id = ""
        if not order_id:
            return Answer("unknown", contract.MALFORMED)
        placed = Placed(
            order_id=order_id,
            token=str(fields.get("token") or ""),
            sku=str(fields.get("sku") or ""),
            quantity=quantity,
            amount=amount,
            currency=str(fields.get("currency") or ""),
            pay_by=str(fields.get("pay_by") or ""),
            state=word(fields.get("state"), "reserved"),
        )
        return Answer("ok", outcome, placed)


def word(value: object, otherwise: str) -> str:
    """Return a value as one short word of the history."""
    text = "_".join(str(value).lower().split())[:_WORD_CHARS_MOST] if value else ""
    return text or otherwise
