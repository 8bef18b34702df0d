"""``flashproof serve``: the parent owns the listening socket and the operators' port, and keeps N workers running.

A worker that dies is started again on the same socket: connections wait in the kernel meanwhile. Stopping sends every
worker to drain. Workers end by themselves when the parent is gone, however it went.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from core.backends import postgres, valkey
from core.backends.valkey import ROOT
from core.errors import BadInput, Fault
from core.settings import DRAIN_MOST_S, Settings, load, to_environment
from core.telemetry import log, set_level
from core.web.boot import wait_for_stores

_WORKERS_MOST: Final = 64
_BACKLOG: Final = 4096
_DEATHS_MOST: Final = 20  # within a minute: then something is wrong that a restart does not mend
_BIND_PATIENCE_S: Final = DRAIN_MOST_S + 5.0  # workers of a killed parent may still be draining on the port


class Parent:
    """The socket, the workers, the operators' face."""

    def __init__(self, settings: Settings, workers: int, listening: socket.socket) -> None:
        self._settings, self._count, self._listening = settings, workers, listening
        self._pipe_read, self._pipe_write = os.pipe()  # workers see its end when this process is gone
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._deaths: deque[float] = deque(maxlen=_DEATHS_MOST)
        self._stop = asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        from core.web.operations import serve_operations

        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        operations = await serve_operations(self._check, self._settings.ops_host, self._settings.ops_port)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        host, port = self._listening.getsockname()[:2]
        log(
            "info",
            "serving",
            address=f"{host}:{port}",
            workers=self._count,
            operations=self._settings.ops_port,
        )
        await self._stop.wait()
        self._listening.close()  # the workers have it too, and go on answering while they drain
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        await asyncio.gather(*keepers)
        await operations.cleanup()
        log("info", "stopped")
        return 1 if self._failed else 0

    async def _keep(self, number: int) -> None:
        """Keep worker ``number`` running until the parent stops."""
        while not self._stop.is_set():
            worker = await self._start()
            self._workers[number] = worker
            if self._stop.is_set():
                worker.terminate()
            code = await self._wait(worker)
            del self._workers[number]
            if self._stop.is_set():
                return
            log("error", "worker_died", number=number, exit_code=code)
            self._deaths.append(time.monotonic())
            if len(self._deaths) == _DEATHS_MOST and self._deaths[-1] - self._deaths[0] < 60:
                log("error", "giving_up", why=f"{_DEATHS_MOST} workers died within a minute")
                self._failed = True
                self._stop.set()
            await asyncio.sleep(0.05)

    async def _start(self) -> asyncio.subprocess.Process:
        fd = self._listening.fileno()
        self._listening.listen(_BACKLOG)  # a worker that stopped by itself has shrunk the queue they all share
        # Workers are started the way this process was, whatever stands before the verb.
        launcher = sys.orig_argv[: sys.orig_argv.index("serve")]
        return await asyncio.create_subprocess_exec(
            *launcher,
            *("serve-worker", "--fd", str(fd), "--parent", str(self._pipe_read)),
            pass_fds=(fd, self._pipe_read),
            stdin=asyncio.subprocess.DEVNULL,
            env=os.environ | to_environment(self._settings),
        )

    async def _wait(self, worker: asyncio.subprocess.Process) -> int:
        """Return a worker's exit code; one that does not leave in time after the stop is killed."""
        waiting = asyncio.create_task(worker.wait())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            await asyncio.wait({waiting}, timeout=2 * DRAIN_MOST_S + 2)
        if not waiting.done():
            worker.kill()
        return await waiting

    async def _check(self) -> dict[str, str]:
        """Say what is needed to serve: workers, Valkey with selling open, PostgreSQL."""
        found = {"workers": "ok" if len(self._workers) == self._count else f"{len(self._workers)} of {self._count} run"}
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
    parser = argparse.ArgumentParser(
        prog="flashproof serve",
        description=main.__doc__,
        epilog="Selling opens when `flashproof work` runs on the same stores. SIGTERM drains and stops.",
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
