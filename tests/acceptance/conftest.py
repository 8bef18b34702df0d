"""One whole shop for all acceptance tests, and the small tools by which they speak to it.

What a test needs it gets from a fixture, never by importing this file: pytest has several files of this name.
Every JSON answer that any test receives is held against the OpenAPI document the shop itself serves.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import msgspec
import pytest
import redis

from core.backends import postgres, valkey
from core.backends.valkey import ROOT, ShardConnection
from core.clock import iso8601
from core.ids import Names
from core.local.server import wait_until
from core.sale.catalog.import_keys import import_keys
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.sale.delivery.vault import Vault
from core.sale.payments.gateways.sandbox import sign
from core.settings import Settings
from loadtests.shop.deployment import Deployment, free_ports

PATIENCE_S = 15.0
HOUR_MS = 3_600_000
# What any address may answer, whatever the document lists for it.
EVERYWHERE = {"not_found", "method_not_allowed", "malformed_request", "internal_error"}
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Answer(NamedTuple):
    """One HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def refused(self, status: int, code: str, outcome: str = "not-executed") -> Answer:
        """Assert that this is a whole problem document with this status and code; return it."""
        assert self.headers.get("content-type") == "application/problem+json", self
        said = self.json
        assert (self.status, said["code"]) == (status, code), self
        assert said.keys() == {"type", "title", "status", "code", "detail"}, self
        assert said["type"] == f"urn:flashproof:{code}"
        assert said["status"] == status
        assert said["title"]
        assert said["detail"]
        assert self.headers.get("x-outcome") == outcome, self
        return self


class Described:
    """The OpenAPI document, and a check of answers against it: status, media type, shape, refusal code."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._schemas = document["components"]["schemas"]

    def route(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """Return the path template and the operation for a request, or None."""
        parts = path.partition("?")[0].split("/")
        for template, methods in self.document["paths"].items():
            wanted = template.split("/")
            fits = len(wanted) == len(parts) and all(
                want == part or want.startswith("{") for want, part in zip(wanted, parts, strict=True)
            )
            if fits and method.lower() in methods:
                return template, methods[method.lower()]
        return None

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Assert that the document promised this answer."""
        media = answer.headers.get("content-type", "").partition(";")[0]
        if media == "application/problem+json":
            assert self.faults(answer.json, {"$ref": "#/components/schemas/Problem"}) == [], answer
            if answer.json["code"] in EVERYWHERE:
                return
        found = self.route(method, path)
        assert found is not None, f"{method} {path} is not described, but answered {answer}"
        responses = found[1]["responses"]
        assert str(answer.status) in responses, f"{method} {found[0]} may not answer {answer}"
        content = responses[str(answer.status)]["content"]
        assert media in content, f"{method} {found[0]} promised {list(content)}, not {answer}"
        assert self.faults(answer.json, content[media]["schema"]) == [], answer

    def faults(self, value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
        """Return what is wrong with a value; the part of JSON Schema that the document uses."""
        if "$ref" in schema:
            return self.faults(value, self._schemas[schema["$ref"].rpartition("/")[2]], at)
        found = [fault for part in schema.get("allOf", ()) for fault in self.faults(value, part, at)]
        if "anyOf" in schema and all(self.faults(value, part, at) for part in schema["anyOf"]):
            found.append(f"{at}: fits no choice")
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{at}: {value!r} is not one of {schema['enum']}")
        found += self._of_type(value, schema, at)
        return found

    def _of_type(self, value: Any, schema: dict[str, Any], at: str) -> list[str]:
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}
        wanted = schema.get("type")
        if wanted is not None and type(value) is not kinds[wanted]:
            return [f"{at}: {value!r} is no {wanted}"]
        found: list[str] = []
        if isinstance(value, list):
            for number, item in enumerate(value):
                found += self.faults(item, schema.get("items", {}), f"{at}[{number}]")
        if isinstance(value, dict):
            fields = schema.get("properties", {})
            found += [f"{at}: lacks {name}" for name in schema.get("required", ()) if name not in value]
            if wanted == "object" and fields:
                found += [f"{at}: {name} is not described" for name in value if name not in fields]
            for name in fields.keys() & value.keys():
                found += self.faults(value[name], fields[name], f"{at}.{name}")
        return found


class Face:
    """The buyers' address of one `serve`, and the verbs of buyers and gateways."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = Names(settings.secret)
        self._numbers = itertools.count(1)

    @cached_property
    def described(self) -> Described:
        return Described(self._send("GET", "/openapi.json", None, {}, PATIENCE_S).json)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Headers = (), timeout_s: float = 40.0
    ) -> Answer:
        """Send one request on a connection of its own; the answer is held against the document."""
        answer = self._send(method, path, body, headers, timeout_s)
        self.described.check(method, path, answer)
        return answer

    def _send(self, method: str, path: str, body: bytes | None, headers: Headers, timeout_s: float) -> Answer:
        connection = http.client.HTTPConnection(self.settings.host, self.settings.port, timeout=timeout_s)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            return _read(connection.getresponse())
        finally:
            connection.close()

    def raw(self, sent: bytes, *, ends: bool = False, timeout_s: float = 10.0) -> Answer:
        """Send these very bytes and return the first answer; ``ends`` when nothing may follow but the end."""
        with socket.create_connection((self.settings.host, self.settings.port), timeout_s) as connection:
            connection.sendall(sent)
            with connection.makefile("rb") as received:
                status = int(received.readline().split()[1])
                headers = {name.lower(): value for name, value in http.client.parse_headers(received).items()}
                answer = Answer(status, headers, received.read(int(headers["content-length"])))
                assert not ends or received.read(1) == b"", f"{answer} was not the last one"
                return answer

    def operator(self, path: str, port: int = 0) -> Answer:
        """Ask an operations port; of serve, unless another is given."""
        connection = http.client.HTTPConnection(self.settings.ops_host, port or self.settings.ops_port, timeout=5.0)
        try:
            connection.request("GET", path)
            return _read(connection.getresponse())
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Tell whether serve answers and says that it can sell."""
        try:
            return self.operator("/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def place(self, sku: str, *, buyer: str = "", quantity: int = 1, key: str = "") -> Answer:
        """Place an order; a fresh buyer and a fresh key unless they are given."""
        said = {"sku": sku, "buyer": buyer or self.buyer(), "quantity": quantity}
        headers = {"Idempotency-Key": key or secrets.token_hex(8)}
        return self.ask("POST", "/v1/orders", msgspec.json.encode(said), headers)

    def placed(self, sku: str, *, buyer: str = "", quantity: int = 1, key: str = "") -> dict[str, Any]:
        """Place an order that must be accepted; return its body."""
        answer = self.place(sku, buyer=buyer, quantity=quantity, key=key)
        assert answer.status == 201, answer
        return dict(answer.json)

    def buyer(self) -> str:
        """Return a buyer nobody has seen."""
        return f"buyer-{next(self._numbers)}-{secrets.token_hex(4)}"

    def track(self, order: Mapping[str, Any], wait: float | str | None = None) -> Answer:
        """Ask where an order stands."""
        path = f"/v1/orders/{order['order_id']}" + ("" if wait is None else f"?wait={wait}")
        return self.ask("GET", path, None, {"Authorization": f"Bearer {order['token']}"})

    def cancel(self, order: Mapping[str, Any]) -> Answer:
        """Cancel an order."""
        return self.ask(
            "DELETE", f"/v1/orders/{order['order_id']}", None, {"Authorization": f"Bearer {order['token']}"}
        )

    def callback(self, body: bytes, signature: str | None = None, gateway: str = "sandbox") -> Answer:
        """Send a callback; signed well and now unless a signature is given."""
        headers = {"X-Signature": signature or self.signature(body), "Content-Type": "application/json"}
        return self.ask("POST", f"/v1/payments/{gateway}/callback", body, headers)

    def signature(self, body: bytes, at_s: int | None = None) -> str:
        """Return the sandbox's X-Signature of a body."""
        return sign(self.settings.sandbox_secret, body, int(time.time()) if at_s is None else at_s)

    @staticmethod
    def payment(order: Mapping[str, Any], **changed: object) -> bytes:
        """Return the body of the callback that pays an order, with some fields changed."""
        said = {
            "event_id": f"event-{order['order_id']}",
            "order_id": order["order_id"],
            "amount": order["amount"],
            "currency": order["currency"],
            "status": "paid",
            "paid_at": iso8601(time.time_ns() // 1_000_000),
        }
        return msgspec.json.encode(said | changed)

    def pay(self, order: Mapping[str, Any], **changed: object) -> Answer:
        """Send the signed callback that pays an order, with some fields changed."""
        return self.callback(self.payment(order, **changed))

    def delivered(self, order: Mapping[str, Any]) -> list[str]:
        """Return the card keys of a paid order, which must come within bounds."""
        assert wait_until(lambda: self.track(order, 5).json["state"] == "delivered", PATIENCE_S)
        return list(self.track(order).json["keys"])


class Books:
    """Both stores, read past the shop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.valkey = redis.Redis.from_url(settings.valkey_url)
        self._loop = asyncio.Runner()
        self._connection: Any = None

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return the rows of a query."""

        async def fetch() -> list[dict[str, Any]]:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._settings.postgres_dsn, command_timeout=PATIENCE_S)
            return [dict(row) for row in await self._connection.fetch(query, *arguments)]

        return self._loop.run(fetch())

    def value(self, query: str, *arguments: object) -> Any:
        """Return the only value of a query."""
        return next(iter(self.rows(query, *arguments)[0].values()))

    def free(self, sku: str) -> int:
        """Return the free units by Valkey's counter."""
        return int(self.valkey.hget(f"{ROOT}:sku:{sku}", "free") or 0)

    def settled(self) -> None:
        """Return when the journal is projected and no reservation is about to end."""

        def still() -> bool:
            soon = (time.time() + 5) * 1000
            return not self.valkey.zcount(f"{ROOT}:due", 0, soon) and not self.valkey.xlen(f"{ROOT}:facts")

        assert wait_until(still, PATIENCE_S), "the shop does not come to rest"

    def snapshot(self) -> dict[str, object]:
        """Return everything Valkey holds, and of each table of PostgreSQL its rows and a digest of them."""
        found: dict[str, object] = {key.decode(): self._read(key) for key in self.valkey.scan_iter(count=1000)}
        tables = self.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
        sums = [
            f"SELECT '{t['name']}', count(*), coalesce(sum(hashtextextended(r::text, 0)), 0) FROM {t['name']} r"
            for t in tables
        ]
        for row in self.rows(" UNION ALL ".join(sums)):
            name, count, digest = row.values()
            found[f"table {name}"] = (count, digest)
        return found

    def _read(self, key: bytes) -> object:
        store = self.valkey
        read: dict[object, Callable[[], object]] = {
            b"hash": lambda: store.hgetall(key),
            b"set": lambda: store.smembers(key),
            b"zset": lambda: store.zrange(key, 0, -1, withscores=True),
            b"stream": lambda: store.xrange(key),
        }
        return read.get(store.type(key), lambda: store.dump(key))()

    def close(self) -> None:
        """Let go of both."""
        if self._connection is not None:
            self._connection.terminate()
        self._loop.close()
        self.valkey.close()


class Shop(Face):
    """A deployment with its address, its books and its card keys."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.settings)
        self.deployment = deployment
        self.books = Books(deployment.settings)
        self.mark = f"FPKEY-{secrets.token_hex(6)}"  # every card key begins so, and nothing else does
        self.keys: dict[str, set[str]] = {}

    def face(self, settings: Settings) -> Face:
        """Return another address of this shop."""
        return Face(settings)

    def stock(self, units: int, **terms: Any) -> None:
        """Add a product and import card keys for it."""
        usual = {"title": "礼品卡", "price": 1999, "currency": "CNY", "buyer_limit": 100, "hold_ms": 1_800_000}
        product = Product(**{**usual, **terms}).check()
        lines = [f"{self.mark}-{product.sku}-{number:05d}----pw" for number in range(units)]
        file = self.deployment.directory / f"{product.sku}.txt"
        file.write_text("\n".join(lines), encoding="utf-8")
        asyncio.run(self._stock(product, file))
        file.unlink()
        time.sleep(0.06)  # units that come to a SKU without any rest before they are sold
        self.keys[product.sku] = set(lines)

    async def _stock(self, product: Product, file: Path) -> None:
        connection = await postgres.connect(self.settings.postgres_dsn)
        store = valkey.client(self.settings.valkey_url)
        shard = ShardConnection(self.settings.valkey_url)
        try:
            await put_products(connection, store, [product])
            await import_keys(connection, shard, self.names, Vault(self.settings.vault_key), product.sku, file)
        finally:
            connection.terminate()
            await shard.close()
            await store.aclose()

    def close(self) -> None:
        """Stop everything."""
        self.books.close()
        self.deployment.stop()


def _read(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@pytest.fixture(scope="session")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Shop]]:
    """Opens whole shops: stores, serve, work, ready to sell, nothing on the shelves."""
    opened: list[Shop] = []

    def make(workers: int = 1) -> Shop:
        environment = {"FLASHPROOF_SANDBOX_URL": f"http://127.0.0.1:{free_ports(1)[0]}"}  # a test may listen there
        deployment = Deployment(tmp_path_factory.mktemp("shop"), workers=workers, environment=environment)
        deployment.start()
        opened.append(Shop(deployment))
        deployment.wait_ready()
        return opened[-1]

    yield make
    for shop in opened:
        shop.close()


@pytest.fixture(scope="session")
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """The shop most tests share. Two workers, so that whatever holds must hold across processes."""
    made = open_shop(workers=2)
    now_ms = time.time_ns() // 1_000_000
    made.stock(600, sku="plain", low_stock=10)
    made.stock(10, sku="two", buyer_limit=2)
    made.stock(5, sku="over", closes_ms=now_ms - HOUR_MS)
    made.stock(5, sku="later", opens_ms=now_ms + HOUR_MS)
    made.stock(1, sku="single")
    made.stock(1, sku="last", hold_ms=1_000)
    made.stock(40, sku="brief", hold_ms=1_000)
    made.stock(5, sku="words", low_stock=3)
    return made
