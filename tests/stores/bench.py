"""One real shard and everything that talks to it, for the state machine: drives it, wipes it, reads all it holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Final

import msgspec
import redis
from model import Model

from core.backends.valkey import ROOT, ShardConnection, client
from core.facts import open_record, parts
from core.local.stores import LocalStores
from core.sale.catalog.product import Product
from core.sale.catalog.store import write_rules
from core.sale.orders.finished import open_finished
from core.sale.orders.store import ExpiryStore, OrderStore, SettleStore
from core.sale.orders.stream import parse_id

WAIT_S: Final = 20.0


class Bench:
    """The shard and everything that talks to it: made once, wiped before each example."""

    def __init__(self, stores: LocalStores) -> None:
        self.stores, self.url = stores, stores.valkey_url
        self.loop = asyncio.new_event_loop()
        self.orders, self.expiry, self.settle = OrderStore(self.url), ExpiryStore(self.url), SettleStore(self.url)
        self.shard, self.client = ShardConnection(self.url), client(self.url)
        self.plain = self._plain()
        self.entry_ids: list[tuple[int, int]] = []
        self.seen: Counter[str] = Counter()
        self.names: dict[str, set[bytes]] = {}  # SKU -> the orders named in `ids`

    def _plain(self) -> redis.Redis:
        plain = redis.Redis.from_url(self.url)
        plain.set_response_callback("XRANGE", lambda reply, **_: reply)  # a dictionary would keep one record of many
        return plain

    def run(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine for a bounded time."""
        return self.loop.run_until_complete(asyncio.wait_for(work, WAIT_S))

    def begin(self, model: Model) -> None:
        """Wipe the shard and open the sale."""
        self.plain.flushall()
        self.plain.hset(f"{ROOT}:meta", "gen", 5)
        self.open(1)
        for sku in model.rules:
            self.put_terms(model, sku)

    def open(self, epoch: int) -> None:
        """Open an epoch on the server process that runs now."""
        run_id = self.plain.info("server")["run_id"]
        self.plain.hset(f"{ROOT}:meta", mapping={"epoch": epoch, "run_id": run_id})

    def put_terms(self, model: Model, sku: str) -> None:
        """Give the real shard the terms the model has."""
        r = model.rules[sku]
        product = Product(
            sku=sku, title=sku, price=r.price, currency=r.currency, buyer_limit=r.limit, hold_ms=r.hold_ms,
            opens_ms=r.opens_ms, closes_ms=r.closes_ms,
        )  # fmt: skip
        self.run(write_rules(self.client, [product]))

    def restart(self) -> None:
        """SIGKILL the server and start it on what it left on disk."""
        self.stores.valkey.kill()
        self.stores.valkey.start()
        self.plain.close()
        self.run(self.client.aclose())
        self.client, self.plain = client(self.url), self._plain()
        self.run(self.settle.close())
        self.settle = SettleStore(self.url)

    def now_ms(self) -> int:
        """Return the server's own clock, as the scripts read it."""
        seconds, micros = self.plain.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def dump(self) -> dict[str, Any]:
        """Return everything the shard holds, decoded; a key nobody knows is an error."""
        gen = int(self.plain.hget(f"{ROOT}:meta", "gen") or 0)
        skus = ("HOT", "COLD")
        halves = [f"{name}:{g}" for name in ("done", "events") for g in (gen, gen - 1)]
        hashes = [*(f"sku:{sku}" for sku in skus), *(f"bought:{sku}" for sku in skus), "live", *halves, "imports"]
        pipe = self.plain.pipeline(transaction=True)
        for name in hashes:
            pipe.hgetall(f"{ROOT}:{name}")
        pipe.zrange(f"{ROOT}:due", 0, -1, withscores=True)
        pipe.xrange(f"{ROOT}:facts")
        for g in (gen, gen - 1):
            for sku in skus:
                pipe.get(f"{ROOT}:ids:{g}:{sku}")
        pipe.keys("*")
        *found, due, stream, hot_ids, cold_ids, hot_before, cold_before, keys = pipe.execute()
        self.names = {"HOT": _cut(hot_ids) | _cut(hot_before), "COLD": _cut(cold_ids) | _cut(cold_before)}
        keys = [key for key in keys if not key.startswith(f"{ROOT}:ids:".encode())]
        known = {f"{ROOT}:{name}" for name in [*hashes, "due", "facts", "meta", "skus"]}
        assert {key.decode() for key in keys} <= known
        hot, cold, hot_bought, cold_bought, live, done, done_before, events, events_before, imports = found
        bought = {
            sku: {buyer.decode(): int(units) for buyer, units in held.items()}
            for sku, held in zip(skus, (hot_bought, cold_bought), strict=True)
            if held
        }
        self.entry_ids = [parse_id(name) for name, _ in stream]
        return {
            "free": {"HOT": int(hot[b"free"]), "COLD": int(cold[b"free"])},
            "bought": bought,
            "live": _records(live),
            "done": tuple({name: open_finished(one) for name, one in half.items()} for half in (done, done_before)),
            "events": (events, events_before),
            "due": {name: int(score) for name, score in due},
            "imports": {name: int(units) for name, units in imports.items()},
            "entries": [
                [open_record(part) for record in fields if record for part in parts(record)] for _, fields in stream
            ],
        }

    def close(self) -> None:
        """Let go of everything."""
        for one in (self.orders, self.expiry, self.settle, self.shard):
            self.run(one.close())
        self.run(self.client.aclose())
        self.plain.close()
        self.loop.close()


def _cut(joined: bytes | None) -> set[bytes]:
    return {joined[at : at + 8] for at in range(0, len(joined), 8)} if joined else set()


def _records(raw: dict[bytes, bytes]) -> dict[bytes, list[Any]]:
    return {name: msgspec.msgpack.decode(value) for name, value in raw.items()}
