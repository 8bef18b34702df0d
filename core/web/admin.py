"""The operator's short commands: migrate, product, keys, sandbox."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from redis.exceptions import RedisError

from core.arguments import Arguments
from core.backends import postgres, valkey
from core.backends.valkey import ShardConnection
from core.clock import SystemClock, iso8601, parse_iso8601
from core.errors import BadInput, StoreUnavailable
from core.ids import Names
from core.money import format_amount, parse_amount
from core.sale.catalog.import_keys import import_keys
from core.sale.catalog.product import Product
from core.sale.catalog.store import put_products
from core.sale.delivery.vault import Vault
from core.sale.payments.gateways.sandbox import Callback, sign
from core.settings import Settings, load

Result = TypeVar("Result")
_LONG_S = 600.0  # a million keys take their time


def migrate(argv: Sequence[str]) -> int:
    """Bring the PostgreSQL schema up to date. Repeating it changes nothing."""
    Arguments(prog="flashproof migrate", description=migrate.__doc__).parse_args(argv)

    async def run(connection: postgres.Connection, settings: Settings) -> list[str]:
        return await postgres.migrate(connection)

    names = asyncio.run(_with_postgres(load(), run))
    sys.stdout.write(f"applied {', '.join(names)}\n" if names else "nothing to apply\n")
    return 0


def product(argv: Sequence[str]) -> int:
    """Add a product, or give it new terms; orders already placed keep theirs."""
    parser = Arguments(prog="flashproof product", description=product.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", description=product.__doc__)
    add.add_argument("sku")
    add.add_argument("--price", required=True, help="for one unit, e.g. 19.99")
    add.add_argument("--currency", default="CNY", help="ISO 4217 (default CNY)")
    add.add_argument("--title", help="what buyers see (default: the SKU)")
    add.add_argument("--limit", type=int, default=2, help="units one buyer may have (default 2)")
    add.add_argument("--hold", type=float, default=900.0, help="seconds an unpaid order keeps its units (default 900)")
    add.add_argument("--opens-at", help="ISO 8601 with time zone, e.g. 2026-11-11T00:00:00+08:00 (default: open)")
    add.add_argument("--closes-at", help="ISO 8601 with time zone (default: never)")
    add.add_argument("--low", type=int, default=10, help="at or below so many units buyers see `low` (default 10)")
    options = parser.parse_args(argv)
    made = _product(options)

    async def run(connection: postgres.Connection, settings: Settings) -> None:
        store = valkey.client(settings.valkey_url)
        try:
            await put_products(connection, store, [made])
        except RedisError as error:
            raise StoreUnavailable(f"Valkey cannot be reached: {error}") from error
        finally:
            await store.aclose()

    asyncio.run(_with_postgres(load(), run))
    sys.stdout.write(f"{made.sku}: {format_amount(made.price, made.currency)}, {made.buyer_limit} a buyer\n")
    return 0


def _product(options: argparse.Namespace) -> Product:
    try:
        return Product(
            sku=options.sku,
            title=options.title or options.sku,
            price=parse_amount(options.price, options.currency),
            currency=options.currency,
            buyer_limit=options.limit,
            hold_ms=round(options.hold * 1000) if math.isfinite(options.hold) else 0,
            opens_ms=parse_iso8601(options.opens_at) if options.opens_at else 0,
            closes_ms=parse_iso8601(options.closes_at) if options.closes_at else 0,
            low_stock=options.low,
        ).check()
    except (ValueError, OverflowError) as error:
        raise BadInput(str(error)) from error


def keys(argv: Sequence[str]) -> int:
    """Import a file of card keys, one a line, all or nothing. If it dies, run it again: nothing happens twice."""
    parser = Arguments(prog="flashproof keys", description=keys.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("import", description=keys.__doc__)
    add.add_argument("sku")
    add.add_argument("file", type=Path, help="UTF-8, with or without BOM; LF or CRLF; card----password lines too")
    options = parser.parse_args(argv)
    bar = _Progress()

    async def run(connection: postgres.Connection, settings: Settings) -> int:
        shard = ShardConnection(settings.valkey_url)
        try:
            done = await import_keys(
                connection,
                shard,
                Names(settings.secret),
                Vault(settings.vault_key),
                options.sku,
                options.file,
                bar.show,
            )
        finally:
            await shard.close()
            bar.end()
        what = f"{done.units:,} keys imported" if done.new else f"this file's {done.units:,} keys were there already"
        if done.free is None:
            what += "; selling is closed, so `flashproof work` raises the stock when it opens"
        else:
            what += (
                f"; stock raised to {done.free:,}" if done.raised else f"; stock was raised before, {done.free:,} free"
            )
        sys.stdout.write(f"{options.sku}: {what}\n")
        return 0

    return asyncio.run(_with_postgres(load(), run))


def sandbox(argv: Sequence[str]) -> int:
    """Pay an order through the sandbox gateway: signs a callback as that gateway does and sends it to the shop."""
    parser = Arguments(prog="flashproof sandbox", description=sandbox.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pay = verbs.add_parser("pay", description=sandbox.__doc__)
    pay.add_argument("order_id")
    pay.add_argument("--amount", required=True, help="as the order says, in minor units")
    pay.add_argument("--currency", default="CNY")
    pay.add_argument("--event", help="the event's id (default: one per order, so that repeating it pays once)")
    pay.add_argument("--status", choices=("started", "failed", "paid"), default="paid")
    options = parser.parse_args(argv)
    if not options.amount.isdecimal():
        raise BadInput("--amount is the order's `amount`: a whole number of minor units")
    settings = load()
    if not settings.sandbox_secret:
        raise BadInput("the sandbox gateway is not set up: FLASHPROOF_SANDBOX_SECRET is not set")
    status, text = asyncio.run(_send_callback(settings, options))
    sys.stdout.write(text + "\n")
    return 0 if status == 200 else 1


async def _send_callback(settings: Settings, options: argparse.Namespace) -> tuple[int, str]:
    now_ms = SystemClock().now_ms()
    said = Callback(
        event_id=options.event or f"{options.status}-{options.order_id}",
        order_id=options.order_id,
        amount=int(options.amount),
        currency=options.currency,
        status=options.status,
        paid_at=iso8601(now_ms),
    )
    body = msgspec.json.encode(said)
    headers = {"X-Signature": sign(settings.sandbox_secret, body, now_ms // 1000)}
    url = f"http://{settings.host}:{settings.port}/v1/payments/sandbox/callback"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:  # noqa: SIM117
            async with session.post(url, data=body, headers=headers) as answer:
                return answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StoreUnavailable(f"the shop does not answer on {settings.host}:{settings.port}: {error}") from error


async def _with_postgres(
    settings: Settings, run: Callable[[postgres.Connection, Settings], Awaitable[Result]]
) -> Result:
    connection = await postgres.connect(settings.postgres_dsn, timeout_s=_LONG_S)
    try:
        return await run(connection, settings)
    finally:
        connection.terminate()


class _Progress:
    """A line that moves, for whoever watches; silent when nobody does."""

    def __init__(self) -> None:
        self._watched, self._shown_at, self._open = sys.stderr.isatty(), 0.0, False

    def show(self, step: str, done: int, of: int) -> None:
        """Show how far a step is."""
        now = time.monotonic()
        if not self._watched or (now - self._shown_at < 0.1 and done != of):
            return
        self._shown_at, self._open = now, True
        sys.stderr.write(f"\r{step} … {done:,} of {of:,} ({done * 100 // max(of, 1)} %)\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            sys.stderr.write("\n")
