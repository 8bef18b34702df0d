"""An adapter: how the load speaks to a shop of your own. Copy it, change the six functions, point the load at it.

    flashproof prove --target http://127.0.0.1:5000 --adapter examples/corner_shop.py --skus gift-10 --rate 200

The shop here is a card shop as many are: forms go in, every answer is 200 with {"code", "msg", "data"}, an order is
paid by its gateway's notice, and the card is read on the order's page. Five functions return whole requests as bytes;
`read` says in the words of the history what an answer means. None of them sends, waits or looks at a clock.
"""

from __future__ import annotations

from urllib.parse import urlencode

from loadtests.generator import contract
from loadtests.generator.contract import Placed, Reply
from loadtests.targets import Answer, Call, Notice

REFUSED = {4001: "sold_out", 4002: "limit_reached", 4003: "unknown_product"}  # its codes, in the words of the report
STATES = {0: "reserved", 1: "paid", 2: "delivered", 3: "expired"}


class CornerShop:
    """What stands in `lacks` the buyers do not do: it takes no key for retries, cancels nothing, has no long poll."""

    lacks = frozenset({"replay", "cancel", "late", "started", "wait"})

    def __init__(self, authority: str) -> None:
        self.authority = authority

    def browse(self, sku: str) -> bytes:
        return self.get(f"/goods?{urlencode({'sku': sku})}" if sku else "/goods")

    def place(self, idempotency_key: str, sku: str, buyer: str, quantity: int) -> bytes:
        return self.form("/order/create", sku=sku, email=f"{buyer}@example.org", num=str(quantity))

    def pay(self, notice: Notice) -> bytes:
        return self.form("/pay/notify", trade_no=notice.event_id, order=notice.order_id, money=str(notice.amount))

    def track(self, order_id: str, token: str, wait_s: int) -> bytes:
        return self.get(f"/order/detail?{urlencode({'order': order_id, 'password': token})}")

    def cancel(self, order_id: str, token: str) -> bytes:
        return self.form("/order/cancel", order=order_id, password=token)

    def read(self, call: Call, reply: Reply) -> Answer:
        if call == "pay":  # gateways want one word
            return Answer("ok", "paid") if reply.body == b"success" else Answer("fail", "notice_refused")
        said = contract.decode(reply.body)
        if reply.status != 200 or not isinstance(said, dict):
            return Answer("unknown", f"http_{reply.status}")
        if said["code"] != 200:
            return Answer("fail", REFUSED.get(said["code"], f"code_{said['code']}"))
        data = said["data"]
        if call == "browse":
            return Answer("ok", "ok")
        if call == "place":
            placed = Placed(
                order_id=data["order"],
                token=data["password"],
                sku=data["sku"],
                quantity=int(data["num"]),
                amount=int(data["money"]),
                currency="CNY",
                pay_by="",
                state="reserved",
            )
            return Answer("ok", "accepted", placed)
        return Answer("ok", STATES[data["status"]], keys=tuple(data["cards"]))

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode()

    def form(self, path: str, **fields: str) -> bytes:
        body = urlencode(fields)
        head = f"POST {path} HTTP/1.1\r\nHost: {self.authority}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def target(authority: str) -> CornerShop:
    """Return the adapter of the shop at `host:port`; the load asks for it by this name."""
    return CornerShop(authority)
