"""``python -m loadtests rolling``: replace all workers under load, again and again, and count what buyers noticed.

The buyers are of three kinds, for a roll can hurt each in its own way: those who keep a connection and are always
asking, those who keep one and think in between (their connection is idle when its worker is replaced), and those who
make a new connection for every order. They do what HTTP asks of a client, and no more: who is told that the connection
closes makes a new one, and nobody sends a request twice. So each order has one answer or is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust

from core.arguments import Arguments
from core.errors import BadInput, Fault
from loadtests.generator.http1 import MalformedReplyError, OversizeReplyError, ReplyReader
from loadtests.generator.scenario import HOT_SKU
from loadtests.shop.deployment import Deployment
from loadtests.shop.parts import log_tail
from loadtests.shop.stage import set_stage

STOCK: Final = 5_000  # more than buyers can hold at once: what they do not pay is free again after HOLD_MS
HOLD_MS: Final = 2_000
ANSWER_MOST_S: Final = 10.0
SOON_S: Final = 0.02  # the longest pause of who is always asking: the load shall crowd the machine, not choke it
THINK_MOST_S: Final = 1.0
PAUSE_S: Final = 0.2  # between two rolls
LOOK_S: Final = 0.05
TOLD_S: Final = 2.0  # between two lines of progress
_READ_BYTES: Final = 65_536
_FAULTS_MOST: Final = 20  # told in words


class Seen(msgspec.Struct):
    """What the buyers saw."""

    requests: int = 0
    answered: int = 0  # definitively: ordered, or surely not
    failed: int = 0  # an answer that decides nothing, or none in time
    reset: int = 0  # the connection ended, or could not be had, before the answer was whole
    told_to_leave: int = 0  # answers that close their connection
    closed_idle: int = 0  # kept connections that were closed without such an answer, before the next request
    not_ready: int = 0  # times that the operations port did not say "ready"
    slowest_s: float = 0.0
    faults: list[str] = msgspec.field(default_factory=list)

    def fault(self, error: Exception | str) -> None:
        """Keep the words of a fault, but not of thousands."""
        if len(self.faults) < _FAULTS_MOST:
            self.faults.append(error if isinstance(error, str) else f"{type(error).__name__}: {error}")

    @property
    def is_clean(self) -> bool:
        """Whether no buyer and no operator noticed anything."""
        return self.answered == self.requests and not (self.failed or self.reset or self.not_ready)


class _Connection:
    """One connection of a buyer. Making it may raise OSError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it; a client looks before it sends."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def ask(self, raw: bytes) -> ReplyReader:
        """Send one request and return its whole answer."""
        self._writer.write(raw)
        reply = ReplyReader()
        while True:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("closed before the answer was whole")
            if reply.feed(data):
                return reply

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()


class Buyers:
    """Clients that place orders, each its next one when the last was answered, until told to end."""

    def __init__(self, host: str, port: int, sku: str, seed: int = 1) -> None:
        """Take where to order what; the seed gives the pauses."""
        self._host, self._port, self._sku = host, port, sku
        self._pauses, self._mark, self._numbers = random.Random(seed), secrets.token_hex(4), itertools.count()
        self._ending = False
        self.seen = Seen()

    async def run(self, *, kept: int, thinking: int, fresh: int) -> None:
        """Buy with so many clients of each kind until ``end``."""
        async with asyncio.TaskGroup() as group:
            for _ in range(kept):
                group.create_task(self._client(keeps=True, think_s=SOON_S))
            for _ in range(thinking):
                group.create_task(self._client(keeps=True, think_s=THINK_MOST_S))
            for _ in range(fresh):
                group.create_task(self._client(keeps=False, think_s=SOON_S))

    def end(self) -> None:
        """Have every client leave after the answer it waits for."""
        self._ending = True

    async def _client(self, *, keeps: bool, think_s: float) -> None:
        connection: _Connection | None = None
        while not self._ending:
            if connection is not None and connection.is_closed:
                self.seen.closed_idle += 1
                connection.close()
                connection = None
            connection = await self._order(connection, keeps=keeps)
            await asyncio.sleep(self._pauses.uniform(0, think_s))
        if connection is not None:
            connection.close()

    async def _order(self, connection: _Connection | None, *, keeps: bool) -> _Connection | None:
        """Place one order; return the connection if it can carry another."""
        seen, began, goes_on = self.seen, time.monotonic(), False
        seen.requests += 1
        try:
            async with asyncio.timeout(ANSWER_MOST_S):
                if connection is None:
                    connection = _Connection(*await asyncio.open_connection(self._host, self._port))
                reply = await connection.ask(self._request())
        except TimeoutError:
            seen.failed += 1
            seen.fault(f"no answer within {ANSWER_MOST_S:g} s")
        except OSError as error:
            seen.reset += 1
            seen.fault(error)
        except (MalformedReplyError, OversizeReplyError) as error:
            seen.failed += 1
            seen.fault(error)
        else:
            goes_on = reply.keep and keeps
            seen.told_to_leave += not reply.keep
            self._judge(reply)
        seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
        if connection is not None and not goes_on:
            connection.close()
            connection = None
        return connection

    def _judge(self, reply: ReplyReader) -> None:
        surely_not = 400 <= reply.status < 500 and reply.headers.get(b"x-outcome") == b"not-executed"
        if reply.status == 201 or surely_not:
            self.seen.answered += 1
        else:
            self.seen.failed += 1
            self.seen.fault(f"{reply.status}: {reply.body[:200]!r}")

    def _request(self) -> bytes:
        name = f"{self._mark}-{next(self._numbers)}"
        body = msgspec.json.encode({"sku": self._sku, "buyer": f"roll-{name}", "quantity": 1})
        head = (
            f"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def watch_readiness(host: str, port: int, seen: Seen) -> None:
    """Ask ``/readyz`` again and again, until cancelled, and count when it is not ready."""
    while True:
        said = b""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
            said = await reader.read()
            writer.close()
        if not said.startswith(b"HTTP/1.1 200 "):
            seen.not_ready += 1
            seen.fault(f"/readyz: {said[-300:].decode(errors='replace') or 'no answer'}")
        await asyncio.sleep(2 * LOOK_S)


def workers_of(parent: int) -> set[int]:
    """Return the process ids of the workers of a ``serve``."""
    return {int(child.pid) for child in psutil.Process(parent).children()}


async def roll_once(parent: int, log_file: Path, most_s: float) -> None:
    """Send SIGHUP to a ``serve`` and return when it has replaced all of its workers.

    Raises:
        Fault: it has not within so many seconds, says that it could not, or an old worker is still there.
    """
    old, ended = workers_of(parent), _count(log_file, "roll_ended")
    stopped = _count(log_file, "roll_stopped")
    until = time.monotonic() + most_s
    os.kill(parent, signal.SIGHUP)
    while _count(log_file, "roll_ended") == ended:
        if _count(log_file, "roll_stopped") > stopped:
            raise Fault(f"the roll was stopped:\n{log_tail(log_file)}")
        if time.monotonic() > until:
            raise Fault(f"the roll did not end within {most_s:.0f} s:\n{log_tail(log_file)}")
        await asyncio.sleep(LOOK_S)
    new = workers_of(parent)
    if old & new or len(new) != len(old):
        raise Fault(f"the workers were {sorted(old)} and are {sorted(new)}")


def _count(log_file: Path, event: str) -> int:
    return log_file.read_bytes().count(b'"event":"%s"' % event.encode())


class Told:
    """Tells every two seconds what is going on, whatever the process is busy with."""

    def __init__(self) -> None:
        self._began, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self.words: Callable[[], str] = lambda: "starting stores, server and projector, and importing keys"

    def __enter__(self) -> Self:
        """Begin to tell."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell no more."""
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._over.is_set():
            sys.stderr.write(f"[{time.monotonic() - self._began:5.1f} s] {self.words()}\n")
            sys.stderr.flush()
            self._over.wait(TOLD_S)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    rolls: int
    workers: int
    seconds_most: float


def main(argv: Sequence[str]) -> int:
    """Replace the workers of a private shop under load, one roll after the other, and count who noticed.

    Exit codes: 0 nobody noticed, 1 somebody did or a roll did not end, 64 bad usage.
    """
    options = read_options(argv)
    with (
        Told() as told,
        tempfile.TemporaryDirectory(prefix="flashproof-rolling-") as folder,
        Deployment(Path(folder), workers=options.workers) as deployment,
    ):
        deployment.wait_ready()
        set_stage(deployment.settings, STOCK, 0, lambda words: None, HOLD_MS)
        rolls, seen = asyncio.run(_measure(deployment, options, told))
        told.words = lambda: "stopping"
    for words in seen.faults:
        sys.stderr.write(words + "\n")
    sys.stdout.write(
        f"rolls {rolls} of {options.rolls}  workers {options.workers}  requests {seen.requests:,}  failed {seen.failed}"
        f"  reset {seen.reset}  slowest answer {seen.slowest_s * 1000:,.0f} ms  not ready {seen.not_ready}"
        f"  connections closed with an answer {seen.told_to_leave:,}, without {seen.closed_idle}\n"
    )
    return 0 if seen.is_clean and rolls == options.rolls else 1


def read_options(argv: Sequence[str]) -> Options:
    """Return the checked options.

    Raises:
        BadInput: one is out of bounds.
    """
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = Arguments(prog="python -m loadtests rolling", description=about, epilog=" ".join(codes.split()))
    parser.add_argument("--rolls", type=int, default=20, help="how often all workers are replaced (default 20)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the server (default 2)")
    parser.add_argument("--seconds-most", type=float, default=240.0, help="the rolls end by then (default 240)")
    said = parser.parse_args(argv)
    for name, value, most in (("rolls", said.rolls, 1_000), ("workers", said.workers, 64)):
        if not 1 <= value <= most:
            raise BadInput(f"--{name} must be from 1 to {most:,}, not {value}")
    if not 1 <= said.seconds_most <= 36_000:  # also refuses nan
        raise BadInput(f"--seconds-most must be from 1 to 36,000, not {said.seconds_most}")
    return Options(rolls=said.rolls, workers=said.workers, seconds_most=said.seconds_most)


async def _measure(deployment: Deployment, options: Options, told: Told) -> tuple[int, Seen]:
    """Roll under load; return how many rolls ended and what was seen."""
    settings, log_file = deployment.settings, deployment.directory / "logs" / "serve.log"
    parent = deployment.pid("serve")
    assert parent is not None, "it was ready a moment ago"
    buyers = Buyers(settings.host, settings.port, HOT_SKU)
    seen, rolls, until = buyers.seen, 0, time.monotonic() + options.seconds_most
    told.words = lambda: (
        f"rolls {rolls} of {options.rolls}  requests {seen.requests:,}  failed {seen.failed}  reset {seen.reset}"
        f"  slowest answer {seen.slowest_s * 1000:,.0f} ms"
    )
    load = asyncio.create_task(buyers.run(kept=12, thinking=12, fresh=8))
    readiness = asyncio.create_task(watch_readiness(settings.ops_host, settings.ops_port, seen))
    try:
        while rolls < options.rolls:
            await asyncio.sleep(PAUSE_S)
            await roll_once(parent, log_file, until - time.monotonic())
            rolls += 1
    except Fault as fault:
        seen.fault(fault)
    await asyncio.sleep(PAUSE_S)
    buyers.end()
    await load
    readiness.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await readiness
    return rolls, seen
