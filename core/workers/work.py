"""``flashproof work``: the projector and the expirer, with an operators' port of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import uvloop

from core.arguments import Arguments
from core.backends.postgres import Postgres
from core.clock import SystemClock
from core.priority import step_back
from core.sale.delivery.vault import Vault
from core.sale.orders.pay import Paying
from core.sale.orders.record import Records
from core.sale.orders.store import ExpiryStore, OrderStore
from core.sale.payments.registry import gateways as gateways_of
from core.settings import NICENESS, Settings, load
from core.telemetry import log, set_level
from core.web.boot import wait_for_stores
from core.web.operations import serve_operations
from core.workers.expirer import Expirer
from core.workers.projector import Projector


async def work(settings: Settings) -> None:
    """Run both loops until SIGTERM or SIGINT; each finishes what it is doing."""
    clock = SystemClock()
    await wait_for_stores(settings)
    orders, expiry = OrderStore(settings.valkey_url), ExpiryStore(settings.valkey_url)
    database, gateways = Postgres(settings.postgres_dsn, connections_most=2), gateways_of(settings)
    paying = Paying(orders, Records(database, Vault(settings.vault_key)))
    projector, expirer = Projector(settings), Expirer(expiry, paying, gateways, clock)

    async def check() -> dict[str, str]:
        standing = projector.standing
        return {"projector": "ok" if standing in ("open", "standby") else standing}

    operations = await serve_operations(check, settings.ops_host, settings.work_ops_port)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, _both, projector, expirer)
    log("info", "working", operations=settings.work_ops_port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(projector.run())
            group.create_task(expirer.run())
    finally:
        await operations.cleanup()
        await orders.close()
        await expiry.close()
        for gateway in gateways.values():
            await gateway.close()
        database.close()
    log("info", "stopped")


def _both(projector: Projector, expirer: Expirer) -> None:
    projector.stop()
    expirer.stop()


def main(argv: Sequence[str]) -> int:
    """Project the journal into PostgreSQL, deliver, release what was not paid. Started twice, one stands by."""
    parser = Arguments(
        prog="flashproof work", description=main.__doc__, epilog="Operators' port: FLASHPROOF_WORK_OPS_PORT."
    )
    parser.parse_args(argv)
    settings = load()
    set_level(settings.log_level)
    step_back(os.getpid(), NICENESS)
    uvloop.run(work(settings))
    return 0
