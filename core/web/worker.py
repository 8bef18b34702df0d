"""One worker process of ``flashproof serve``: an event loop on the parent's listening socket.

It stops when told (SIGTERM) and when its parent is gone (the pipe it was given ends). Stopping is draining: no new
connection is let in, everything under way and everything that still arrives is answered, each answer closes its
connection, and only when nothing has come for a moment does the worker leave.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import socket
from collections.abc import Sequence
from typing import Final

import uvloop
from redis.exceptions import RedisError

from core.backends import valkey
from core.backends.postgres import Postgres
from core.backends.valkey import ROOT
from core.clock import SystemClock
from core.ids import Names
from core.sale.catalog.browse import Browsing
from core.sale.catalog.store import Catalog
from core.sale.delivery.vault import Vault
from core.sale.orders.cancel import Cancelling
from core.sale.orders.pay import Paying
from core.sale.orders.place import Placing
from core.sale.orders.record import Records
from core.sale.orders.store import OrderStore
from core.sale.orders.track import Tracking
from core.sale.orders.waiters import Waiters
from core.sale.payments.registry import gateways as gateways_of
from core.settings import DRAIN_MOST_S, KEEPALIVE_S, Settings, load
from core.telemetry import WAITERS, flush_tallies, log, set_level
from core.web.accept import Acceptor
from core.web.app import Shop
from core.web.lane import Lane
from core.web.protocol import Runner

_QUIET_S: Final = 0.3  # nothing under way for so long: the worker may leave
_TICK_S: Final = 0.05
_LISTEN_AGAIN_S: Final = 0.2
_COUNT_S: Final = 0.5  # how old the metrics of a worker may be
# Requests under way hold few cycles but many objects: a rare look through the young ones costs less and frees as much.
_GC_THRESHOLDS: Final = (20_000, 20, 50)


class Worker:
    """The verbs on their stores, behind HTTP."""

    def __init__(self, settings: Settings) -> None:
        clock, names = SystemClock(), Names(settings.secret)
        self._settings = settings
        self._orders = OrderStore(settings.valkey_url)
        self._postgres = Postgres(settings.postgres_dsn)
        self._catalog = Catalog(self._postgres, settings.valkey_url)
        self._gateways = gateways_of(settings)
        records = Records(self._postgres, Vault(settings.vault_key))
        paying = Paying(self._orders, records)
        self._tracking = Tracking(names, self._orders, records, clock)
        placing, browsing = Placing(names, self._orders, settings.pay_url), Browsing(self._catalog, clock)
        self.shop = Shop(
            placing=placing,
            paying=paying,
            cancelling=Cancelling(self._orders, records, paying, self._gateways),
            tracking=self._tracking,
            browsing=browsing,
            gateways=self._gateways,
            clock=clock,
        )
        self.lane = Lane(
            placing=placing,
            paying=paying,
            tracking=self._tracking,
            browsing=browsing,
            gateways=self._gateways,
            clock=clock,
        )

    async def run(self, listening: socket.socket, parent: int) -> None:
        """Serve until SIGTERM or until the parent's end of the pipe ``parent`` closes, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        loop.add_reader(parent, stop.set)
        runner = Runner(
            self.shop.application(),
            self.lane if self._settings.lane == "on" else None,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=DRAIN_MOST_S,
        )
        await runner.setup()
        server = runner.server
        assert server is not None, "the runner was set up"
        acceptor = Acceptor(listening, server, lambda: len(server.connections))
        acceptor.start()
        listener = asyncio.create_task(_listen(self._settings.valkey_url, self._tracking.waiters))
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked through again
        gc.set_threshold(*_GC_THRESHOLDS)
        counting = asyncio.create_task(self._count())
        log("info", "worker_ready")
        await stop.wait()
        loop.remove_reader(parent)
        self.shop.draining = self.lane.draining = True
        self._tracking.waiters.close()
        await acceptor.stop()
        await self._drain()
        listener.cancel()
        counting.cancel()
        flush_tallies()
        await runner.cleanup()
        await self._close()

    async def _count(self) -> None:
        """Keep the shared metrics fresh."""
        while True:
            await asyncio.sleep(_COUNT_S)
            flush_tallies()
            WAITERS.set(self._tracking.waiters.count)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        until, quiet_since = loop.time() + DRAIN_MOST_S, loop.time()
        while loop.time() < until and loop.time() - quiet_since < _QUIET_S:
            if self.shop.under_way or self.lane.under_way:
                quiet_since = loop.time()
            await asyncio.sleep(_TICK_S)

    async def _close(self) -> None:
        await self._orders.close()
        await self._catalog.close()
        for gateway in self._gateways.values():
            await gateway.close()
        self._postgres.close()


async def _listen(url: str, waiters: Waiters) -> None:
    """Wake who waits for an order the projector has moved; after a gap wake everyone, for a message may be lost."""
    while True:
        store = valkey.client(url)
        channel = store.pubsub(ignore_subscribe_messages=True)
        try:
            await channel.subscribe(f"{ROOT}:moved")
            waiters.wake_all()
            while True:
                message = await channel.get_message(timeout=5.0)
                if message is not None:
                    waiters.wake(message["data"])
        except (RedisError, OSError, TimeoutError) as error:
            log("warning", "listener_interrupted", error=error)
            await asyncio.sleep(_LISTEN_AGAIN_S)
        finally:
            await channel.aclose()  # type: ignore[no-untyped-call]
            await store.aclose()


def main(argv: Sequence[str]) -> int:
    """Run one worker: ``--fd`` the listening socket, ``--parent`` the pipe. ``flashproof serve`` starts it."""
    parser = argparse.ArgumentParser(prog="flashproof serve-worker", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(argv)
    settings = load()
    set_level(settings.log_level)
    listening = socket.socket(fileno=options.fd)
    listening.setblocking(False)
    uvloop.run(Worker(settings).run(listening, options.parent))
    return 0
