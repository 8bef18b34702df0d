"""A shop on two cores and the load on it: the server has one for itself, Valkey, PostgreSQL and the driver the other.

Nothing else of a measurement is here: which rows there are, and what they mean, is each benchmark's own business.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.ceiling import stage
from benchmarks.ceiling.asks import Spec
from benchmarks.ceiling.driver import Done
from core.errors import BadInput, Fault
from core.settings import Settings
from loadtests.shop.deployment import Deployment

ORDERS_MOST: Final = 400_000  # in one window
_DRIVE_MOST_S: Final = 120.0
_SILENCE_MOST_S: Final = 1.5


class Progress:
    """A line whenever something begins, and one when nothing was said for a while. Use it as a context manager."""

    def __init__(self, limit_s: float = float("inf")) -> None:
        """``limit_s``: a run older than that fails at the next word, instead of going on and on."""
        self._began, self._limit_s = time.monotonic(), limit_s
        self._what, self._said_at = "", self._began
        self._over, self._lock = threading.Event(), threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def __call__(self, what: str) -> None:
        """Say what begins now, or how far it is.

        Raises:
            Fault: the run has taken too long.
        """
        self._what = what
        self._write(what)
        if self.elapsed_s > self._limit_s:
            raise Fault(f"{what}: not done within {self._limit_s:g} s; the machine is too busy, or ask for less")

    def about(self, what: str) -> None:
        """Say how far something is, if nothing was said for a while."""
        self._what = what
        if self._silent():
            self(what)

    def _silent(self) -> bool:
        return time.monotonic() - self._said_at >= _SILENCE_MOST_S

    def _write(self, what: str) -> None:
        with self._lock:
            self._said_at = time.monotonic()
            sys.stderr.write(f"[{self.elapsed_s:5.1f} s] {what}\n")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        """Begin to break the silence."""
        threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be silent."""
        self._over.set()

    def _break_silence(self) -> None:
        while not self._over.wait(_SILENCE_MOST_S / 3):
            if self._silent():
                self._write(f"… {self._what}")


def two_cores() -> tuple[int, int]:
    """Return the server's core, and the one that all else shares.

    Raises:
        BadInput: there is only one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BadInput("two cores are needed: one for the server, one for Valkey and the driver")
    return cores[0], cores[1]


def pin(pid: int | None, core: int) -> list[int]:
    """Give a process and all below it one core; return their ids."""
    if pid is None:
        raise Fault("a part of the shop is not running")
    pids = [pid, *[child.pid for child in psutil.Process(pid).children(recursive=True)]]
    for one in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child that is gone since
            for task in Path(f"/proc/{one}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})
    return pids


@contextlib.contextmanager
def on(core: int) -> Iterator[None]:
    """Run this thread, and the processes it starts, on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def held(pid: int | None) -> Iterator[None]:
    """Hold a process still."""
    if pid is None:
        raise Fault("the projector is not running")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def shop(folder: Path, cores: tuple[int, int]) -> Iterator[tuple[Deployment, dict[str, list[int]]]]:
    """Start a shop, set the stage, pin it; give the deployment and the process ids of its server and its Valkey.

    The projector runs, on the core that all but the server share; who does not want it holds it (``held``).
    """
    with Deployment(folder) as deployment:
        deployment.wait_ready()
        stage.set_stage(deployment.settings)
        watch = {"core": pin(deployment.pid("serve"), cores[0]), "valkey": pin(deployment.pid("valkey"), cores[1])}
        for name in ("postgres", "work"):
            pin(deployment.pid(name), cores[1])
        yield deployment, watch


def spec(
    settings: Settings,
    kind: str,
    first: int,
    *,
    connections: int,
    seconds: float,
    expect: int,
    watch: dict[str, list[int]],
    port: int | None = None,
    most: int = ORDERS_MOST,
    orders: int = 0,
) -> Spec:
    """Return what a driver is told about one window on a shop (or on the server at ``port``)."""
    return Spec(
        port=port or settings.port,
        kind=kind,
        first=first,
        connections=connections,
        seconds=seconds,
        most=most,
        orders=orders,
        expect=expect,
        secret=base64.b64encode(settings.secret).decode(),
        sandbox_secret=base64.b64encode(settings.sandbox_secret).decode(),
        watch=watch,
    )


def drive(module: str, told: Spec, core: int, *more: str) -> Done:
    """Run a driver in a process of its own on one core and return what it did.

    Raises:
        Fault: it failed, or got an answer it must not get.
    """
    arguments: Sequence[str] = ("-m", module, msgspec.json.encode(told).decode(), *more)
    try:
        ran = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            timeout=_DRIVE_MOST_S,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired as error:
        raise Fault(f"{told.kind} was not measured within {_DRIVE_MOST_S:g} s") from error
    if ran.returncode != 0:
        raise Fault(f"{told.kind} could not be measured: {ran.stderr.decode(errors='replace')[-600:]}")
    done = msgspec.json.decode(ran.stdout, type=Done)
    if done.wrong:
        raise Fault(f"{told.kind} got answers it must not get: {done.wrong}")
    return done


class Orders:
    """Windows of accepted orders on one shop, each order another one."""

    def __init__(
        self, deployment: Deployment, watch: dict[str, list[int]], core: int, *, connections: int = 64
    ) -> None:
        self._settings, self._watch, self._core, self._connections = deployment.settings, watch, core, connections
        self._next = 0

    def window(self, seconds: float) -> Done:
        """Place orders for so many seconds (after a moment of warming up) and return what was accepted."""
        told = spec(
            self._settings,
            "order",
            self._next,
            connections=self._connections,
            seconds=seconds,
            expect=201,
            watch=self._watch,
        )
        done = drive("benchmarks.ceiling.driver", told, self._core)
        self._next = done.next
        return done
