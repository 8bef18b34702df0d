"""A small foreign shop in memory, as `examples/corner_shop.py` speaks to it: forms in, `code`, `msg`, `data` out.

python tests/harness/corner_shop.py --stock 100 [--same-card-twice]      prints the port it listens on
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

PRICE = 1_000


class CornerShop:
    """Everything it knows."""

    def __init__(self, stock: int, same_card_twice: bool) -> None:
        self.stock, self.same_card_twice = stock, same_card_twice
        self.orders: dict[str, dict[str, Any]] = {}
        self.cards = 0

    def answer(self, path: str, fields: dict[str, str]) -> bytes:
        if path == "/pay/notify":
            return self.pay(fields)
        code, data = getattr(self, path.strip("/").replace("/", "_"))(fields)
        return msgspec.json.encode({"code": code, "msg": "", "data": data})

    def goods(self, fields: dict[str, str]) -> tuple[int, Any]:
        return (200, {}) if fields.get("sku", "gift-10") == "gift-10" else (4003, None)

    def order_create(self, fields: dict[str, str]) -> tuple[int, Any]:
        units = int(fields["num"])
        if units > 2:
            return 4002, None
        if self.stock < units:
            return 4001, None
        self.stock -= units
        number = f"N{len(self.orders):06d}"
        self.orders[number] = fields | {"status": 0, "cards": []}
        return 200, {
            "order": number,
            "password": "p" + number,
            "sku": fields["sku"],
            "num": units,
            "money": units * PRICE,
        }

    def pay(self, fields: dict[str, str]) -> bytes:
        order = self.orders[fields["order"]]
        if int(fields["money"]) != int(order["num"]) * PRICE:
            return b"fail"
        if not order["cards"]:
            order["status"] = 2
            for _ in range(int(order["num"])):
                self.cards += 1
                order["cards"].append(f"CARD-{self.cards // 2 if self.same_card_twice else self.cards:06d}")
        return b"success"

    def order_detail(self, fields: dict[str, str]) -> tuple[int, Any]:
        order = self.orders[fields["order"]]
        return 200, {"status": order["status"], "cards": order["cards"]}


async def serve(shop: CornerShop) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                _, target, _ = head.split("\r\n", 1)[0].split(" ")
                _, _, length = head.partition("Content-Length: ")
                url = urlsplit(target)
                body = await reader.readexactly(int(length.split("\r\n", 1)[0])) if length else url.query.encode()
                said = shop.answer(url.path, dict(parse_qsl(body.decode())))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stock", type=int, default=100)
    parser.add_argument("--same-card-twice", action="store_true")
    options = parser.parse_args()
    asyncio.run(serve(CornerShop(options.stock, options.same_card_twice)))


if __name__ == "__main__":
    main()
