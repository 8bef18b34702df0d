"""``flashproof serve``: the parent owns the listening socket and the operators' port, and keeps N workers running.

A worker that dies is started again on the same socket: connections wait in the kernel meanwhile. SIGHUP replaces the
workers one after the other, and no client sees a refused or reset request. SIGTERM sends every worker to drain. Workers
end by themselves when the parent is gone, however it went.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client.multiprocess import mark_process_dead
from redis.exceptions import RedisError

from core.arguments import Arguments
from core.backends import postgres, valkey
from core.backends.valkey import ROOT
from core.errors import BadInput, Fault
from core.settings import DRAIN_MOST_S, Settings, load, to_environment
from core.telemetry import log, set_level
from core.web.boot import wait_for_stores
from core.web.child import Child, start

_WORKERS_MOST: Final = 64
_BACKLOG: Final = 4096
_DEATHS_MOST: Final = 20  # within a minute: then something is wrong that a restart does not mend
_AGAIN_S: Final = 0.05  # before a worker that died is started again
_SERVES_MOST_S: Final = 20.0  # a new worker of a roll takes a second, on crowded cores several; then the old one stays
_LEAVE_MOST_S: Final = 3 * DRAIN_MOST_S + 2.0  # for idle connections, for what is under way, for the runner's clean-up
_STOP_MOST_S: Final = 2 * DRAIN_MOST_S + 2.0
_STILLBORN_S: Final = 1.0
_BIND_PATIENCE_S: Final = DRAIN_MOST_S + 5.0  # workers of a killed parent may still be draining on the port


class Parent:
    """The socket, the seats of the workers, the operators' face.

    A seat is held by one worker at a time. In a roll the new worker serves before it takes the seat and the old one is
    asked to leave, so at every moment as many workers accept connections as there are seats.
    """

    def __init__(self, settings: Settings, workers: int, listening: socket.socket) -> None:
        self._settings, self._count, self._listening = settings, workers, listening
        self._pipe_read, self._pipe_write = os.pipe()  # workers see its end when this process is gone
        self._seats: dict[int, Child] = {}
        self._fillings = [asyncio.Lock() for _ in range(workers)]  # held while a worker for that seat is being made
        self._children: set[Child] = set()  # every process that runs, also those that have left their seat
        self._deaths: deque[float] = deque(maxlen=_DEATHS_MOST)
        self._stop, self._roll_asked = asyncio.Event(), asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, roll on SIGHUP; return the exit code."""
        from core.web.operations import serve_operations

        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._roll_asked.set)
        operations = await serve_operations(self._check, self._settings.ops_host, self._settings.ops_port)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._keep(number)) for number in range(self._count)]
            tasks.append(group.create_task(self._roll_when_asked()))
            host, port = self._listening.getsockname()[:2]
            log(
                "info",
                "serving",
                address=f"{host}:{port}",
                workers=self._count,
                operations=self._settings.ops_port,
            )
            await self._stop.wait()
            for task in tasks:
                task.cancel()
        await self._stop_workers()
        await operations.cleanup()
        log("info", "stopped")
        return 1 if self._failed else 0

    # --- keeping the seats taken --------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Keep seat ``number`` taken until the parent stops."""
        while True:
            try:
                child = await self._holder(number)
            except OSError as error:
                log("error", "cannot_start_worker", number=number, error=error, why=error.strerror)
            else:
                await child.left_seat()
                if child.replaced.done():
                    continue
                del self._seats[number]
                log("error", "worker_died", number=number, exit_code=child.ended.result())
            self._count_death()
            await asyncio.sleep(_AGAIN_S)

    async def _holder(self, number: int) -> Child:
        """Return the worker that holds a seat; an empty one is given to a new worker, which need not serve yet."""
        async with self._fillings[number]:  # a roll may be about to fill it
            if number not in self._seats:
                self._seats[number] = await self._start()
            return self._seats[number]

    def _count_death(self) -> None:
        self._deaths.append(time.monotonic())
        if len(self._deaths) == _DEATHS_MOST and self._deaths[-1] - self._deaths[0] < 60:
            log("error", "giving_up", why=f"{_DEATHS_MOST} workers died within a minute")
            self._failed = True
            self._stop.set()

    async def _start(self) -> Child:
        self._listening.listen(_BACKLOG)  # a worker that stopped by itself has shrunk the queue they all share
        child = await start(self._listening.fileno(), self._pipe_read, os.environ | to_environment(self._settings))
        self._children.add(child)
        child.ended.add_done_callback(lambda _: self._forget(child))
        return child

    def _forget(self, child: Child) -> None:
        self._children.discard(child)
        # What it counted stays; what it held (buyers who wait) is no more.
        mark_process_dead(child.pid)  # type: ignore[no-untyped-call]

    # --- the roll -----------------------------------------------------------------------------------------

    async def _roll_when_asked(self) -> None:
        while True:
            await self._roll_asked.wait()
            self._roll_asked.clear()  # asked again from here on, once or often: one more roll afterwards
            await self._roll()

    async def _roll(self) -> None:
        """Replace the workers one after the other; the first that cannot be replaced ends the roll.

        One at a time: a roll then needs the memory and the processor of one more worker, not of twice as many, and a
        release that does not start costs nothing but the attempt.
        """
        log("info", "roll_began", workers=self._count)
        for number in range(self._count):
            if not await self._replace(number):
                log("error", "roll_stopped", number=number, why="the workers from this one on were not replaced")
                return
        log("info", "roll_ended", workers=self._count)

    async def _replace(self, number: int) -> bool:
        """Give a seat to a new worker once it serves, and see the old one off; return False if none comes to serve."""
        async with self._fillings[number]:
            try:
                successor = await self._start()
            except OSError as error:
                log("error", "cannot_start_worker", number=number, error=error, why=error.strerror)
                return False
            serves = await successor.serves(_SERVES_MOST_S)
            old = self._seats.get(number)  # none if it has just died
            if serves:
                self._seats[number] = successor
        if not serves:
            why = f"it does not serve after {_SERVES_MOST_S:g} s" if successor.is_starting else "it ended"
            log("error", "worker_not_ready", number=number, why=why)
            successor.leave()  # not killed: it may have begun to serve at this very moment
            await successor.gone(_LEAVE_MOST_S)
            return False
        if old is not None:
            old.leave()
            if not await old.gone(_LEAVE_MOST_S):
                log("error", "worker_killed", number=number, why=f"it did not leave within {_LEAVE_MOST_S:g} s")
        return not successor.ended.done()  # one that dies so soon is no release for the other seats

    # --- the stop -----------------------------------------------------------------------------------------

    async def _stop_workers(self) -> None:
        """Stop every worker, also those just started and those about to leave."""
        # One that does not serve yet must not be the last to hold the socket: it would accept nobody, and what waits
        # in the queue then is reset. It has no handler yet, so the signal ends it at once; otherwise it serves.
        starting = {child for child in self._children if not child.is_serving}
        for child in starting:
            child.stop()
        if starting:
            await asyncio.wait({child.ended for child in starting}, timeout=_STILLBORN_S)
        for child in starting:
            if child.is_starting:
                child.kill()
        self._listening.close()  # the workers have it too, and go on answering while they drain
        for child in self._children:
            child.stop()
        await asyncio.gather(*(child.gone(_STOP_MOST_S) for child in tuple(self._children)))

    async def _check(self) -> dict[str, str]:
        """Say what is needed to serve: workers, Valkey with selling open, PostgreSQL."""
        serving = sum(child.is_serving for child in self._seats.values())
        found = {"workers": "ok" if serving == self._count else f"{serving} of {self._count} serve"}
        store = valkey.client(self._settings.valkey_url)
        try:
            epoch, run_id = await store.hmget(f"{ROOT}:meta", ["epoch", "run_id"])
            same = run_id is not None and str((await store.info("server"))["run_id"]).encode() == run_id
            is_open = same and int(epoch or 0) > 0
            found["selling"] = "ok" if is_open else "closed: waiting for `flashproof work` to open the shard"
        except (RedisError, OSError) as error:
            found["selling"] = f"Valkey cannot be reached: {type(error).__name__}"
        finally:
            await store.aclose()
        connection = await postgres.connect(self._settings.postgres_dsn, timeout_s=2)
        try:
            found["record"] = "ok" if await connection.fetchval("SELECT true") else "PostgreSQL does not answer"
        finally:
            connection.terminate()
        return found


def bind(host: str, port: int) -> socket.socket:
    """Return the listening socket.

    Raises:
        BadInput: the address cannot be had; waits first, in case a killed parent's workers are still draining on it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    until = time.monotonic() + _BIND_PATIENCE_S
    while True:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if time.monotonic() > until:
                raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}") from error
            time.sleep(0.1)
        else:
            return listening


def main(argv: Sequence[str]) -> int:
    """Serve buyers and payment callbacks (FLASHPROOF_HOST, FLASHPROOF_PORT) and operators (FLASHPROOF_OPS_PORT)."""
    parser = Arguments(
        prog="flashproof serve",
        description=main.__doc__,
        epilog="Selling opens when `flashproof work` runs on the same stores. SIGHUP replaces the workers without "
        "a failed request. SIGTERM drains and stops.",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="worker processes (default 1; a good start: cores - 1)",
    )
    options = parser.parse_args(argv)
    if not 1 <= options.workers <= _WORKERS_MOST:
        raise BadInput(f"--workers must be from 1 to {_WORKERS_MOST}")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there are workers to replace
    settings = load()
    set_level(settings.log_level)
    asyncio.run(wait_for_stores(settings))
    metrics = tempfile.mkdtemp(prefix="flashproof-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
    try:
        return asyncio.run(Parent(settings, options.workers, bind(settings.host, settings.port)).run())
    except OSError as error:
        raise Fault(f"cannot serve: {error}") from error
    finally:
        shutil.rmtree(Path(metrics), ignore_errors=True)
