"""One worker process of ``flashproof serve``: an event loop on the parent's listening socket.

It stops when told (SIGTERM: the server stops; SIGUSR1: another worker goes on in its place) and when its parent is
gone (the pipe it was given ends). Stopping is draining: no new connection is let in, everything under way and
everything that still arrives is answered, and each answer closes its connection.

How long it waits for what may still arrive differs. When the server stops, the worker leaves as soon as nothing has
come for a moment. When it is replaced, nobody is in a hurry, and a kept connection on which a client is just sending
must not be closed under it: so every connection is kept until its next answer has closed it or its client has. Only
those on which nobody asked anything for ``DRAIN_MOST_S`` are closed at the end. A request that crosses that close on
the wire is lost, as one that crosses the close of an idle connection after ``KEEPALIVE_S`` is: HTTP lets either side
close an idle connection at any time (RFC 9112, 9.5), and clients send such a request again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Final

import uvloop
from aiohttp import web
from redis.exceptions import RedisError

from core.arguments import Arguments
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
from core.settings import DRAIN_MOST_S, KEEPALIVE_S, LINGER_S, Settings, load, networks
from core.telemetry import CONNECTIONS, LOOP_LATE, ORDERS_MOST, WAITERS, flush_tallies, log, set_level
from core.web.accept import Acceptor
from core.web.addresses import Addresses
from core.web.app import Shop
from core.web.child import SERVES
from core.web.lane import Lane
from core.web.leisure import Leisure
from core.web.protocol import Runner, Server

_QUIET_S: Final = 0.3  # nothing under way for so long: the worker may leave
_TICK_S: Final = 0.05
_LISTEN_AGAIN_S: Final = 0.2
_COUNT_S: Final = 0.1  # how old the metrics of a worker may be; the harness looks at them twice a second
# How often the loop's lateness is looked at. As often as the limit's target: a shorter lateness decides nothing there,
# and forty idle wake-ups a second cost a worker a thousandth of its core.
_LOOK_S: Final = 0.025
# Requests under way hold few cycles but many objects: a rare look through the young ones costs less and frees as much.
_GC_THRESHOLDS: Final = (20_000, 20, 50)


class Worker:
    """The verbs on their stores, behind HTTP."""

    def __init__(self, settings: Settings) -> None:
        self._leave = asyncio.Event()
        self._server_stops = False  # else only this worker leaves
        clock, names = SystemClock(), Names(settings.secret)
        self._settings = settings
        self._addresses = Addresses(settings.connections_per_address, networks(settings.trusted_networks))
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
        self._leisure = Leisure(self._orders.places)
        self.lane = Lane(
            placing=placing,
            paying=paying,
            tracking=self._tracking,
            browsing=browsing,
            gateways=self._gateways,
            clock=clock,
            leisure=self._leisure,
        )

    async def run(self, listening: socket.socket, parent: int, ready: int) -> None:
        """Serve, say so on the pipe ``ready``, and drain when told to or when the pipe ``parent`` ends."""
        loop = asyncio.get_running_loop()
        self._hear(loop, parent)
        runner = Runner(
            self.shop.application(),
            self.lane if self._settings.lane == "on" else None,
            self._leisure,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            shutdown_timeout=DRAIN_MOST_S,
        )
        await runner.setup()
        server = runner.server
        assert isinstance(server, Server), "the runner was set up"
        acceptor = Acceptor(listening, server, self._addresses)
        acceptor.start()
        listener = asyncio.create_task(_listen(self._settings.valkey_url, self._tracking.waiters))
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked through again
        gc.set_threshold(*_GC_THRESHOLDS)
        counting = asyncio.create_task(self._count())
        looking = asyncio.create_task(self._look_at_lateness())
        log("info", "worker_ready")
        _say(ready)
        await self._leave.wait()
        self.shop.draining = self.lane.draining = True
        self._tracking.waiters.close()
        await (acceptor.stop() if self._server_stops else acceptor.leave())
        await self._drain(server)
        listener.cancel()
        counting.cancel()
        looking.cancel()
        await runner.cleanup()
        await self._close()
        flush_tallies()  # of the last call's answer too

    def _hear(self, loop: asyncio.AbstractEventLoop, parent: int) -> None:
        """Heed the parent's signals and its end, from the beginning to the end of the drain."""

        def stop() -> None:
            self._server_stops = True
            self._leave.set()

        def orphaned() -> None:
            loop.remove_reader(parent)
            stop()

        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop)
        loop.add_signal_handler(signal.SIGUSR1, self._leave.set)
        loop.add_reader(parent, orphaned)

    async def _count(self) -> None:
        """Keep the shared metrics fresh."""
        while True:
            await asyncio.sleep(_COUNT_S)
            flush_tallies()
            WAITERS.set(self._tracking.waiters.count)
            CONNECTIONS.set(self._addresses.open)
            ORDERS_MOST.set(self._orders.limit.most)
            LOOP_LATE.set(self._orders.limit.late_s)

    async def _look_at_lateness(self) -> None:
        """Tell the limit of orders how much later than asked this loop comes to what is due."""
        while True:
            due_s = time.monotonic() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._orders.limit.loop_was_late(time.monotonic() - due_s)

    async def _drain(self, server: web.Server) -> None:
        """Return when all connections are closed, or nobody may be expected to ask any more on those that are left."""
        loop = asyncio.get_running_loop()
        began = quiet_since = loop.time()
        seen = 0  # requests; looking at what is under way misses the short ones
        while server.connections:
            now = loop.time()
            may_ask = not self._server_stops and now - began < DRAIN_MOST_S
            if may_ask or self.shop.under_way or self.lane.under_way or server.requests_count != seen:
                quiet_since, seen = now, server.requests_count
            if now - quiet_since >= _QUIET_S or now - began >= DRAIN_MOST_S * (1 if self._server_stops else 2):
                return
            await asyncio.sleep(_TICK_S)

    async def _close(self) -> None:
        await self._orders.close()
        await self._catalog.close()
        for gateway in self._gateways.values():
            await gateway.close()
        self._postgres.close()


def _say(ready: int) -> None:
    """Tell the parent that this worker serves."""
    with contextlib.suppress(BrokenPipeError):  # the parent is gone; its other pipe says so too
        os.write(ready, SERVES)
    os.close(ready)


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
    """Run one worker: ``--fd`` the listening socket, ``--parent`` and ``--ready`` the pipes. ``serve`` starts it."""
    parser = Arguments(prog="flashproof serve-worker", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent's affair, also if it is sent to the whole process group
    settings = load()
    set_level(settings.log_level)
    listening = socket.socket(fileno=options.fd)
    listening.setblocking(False)
    uvloop.run(Worker(settings).run(listening, options.parent, options.ready))
    return 0
