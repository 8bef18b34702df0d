"""``flashproof ceiling``: the hot path beside nginx, a bare protocol and aiohttp, in one run on one machine.

Every round measures every row once, in an order that is drawn anew, so that what the machine does meanwhile meets all
of them alike; a ratio is taken inside a round, and the median over the rounds is told with its spread. The server has
one core for itself, Valkey and the driver share the other. The projector is held while rows are measured (its own rate
is another row's business): what is told is the path to *accepted*, fsync included.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.ceiling import references, stage
from benchmarks.ceiling.asks import HOST, Spec
from benchmarks.ceiling.driver import Done
from benchmarks.ceiling.result import Window, ceiling_of, table
from core.errors import BadInput, Fault
from loadtests.deployment import Deployment, free_ports
from loadtests.machine import point_latest

REFERENCES: Final = ("nginx", "protocol", "aiohttp")
CORE: Final = ("place_accepted", "place_sold_out", "callback", "status")
CONNECTIONS: Final = (64, 256)
_KINDS: Final = {
    "place_accepted": ("order", 201),
    "place_sold_out": ("sold_out", 409),
    "callback": ("callback", 200),
    "status": ("status", 200),
}
_ORDERS_MOST: Final = 400_000  # in one window
_SCRIPT_ORDERS: Final = 60_000
_STARTS_S: Final = 10.0
_ROUNDS_MOST: Final = 20


class Bench:
    """The servers, pinned, and the windows measured on them."""

    def __init__(
        self, shop: Deployment, ports: dict[str, int], watch: dict[str, list[int]], cores: tuple[int, int]
    ) -> None:
        self._shop, self._ports, self._watch, self._cores = shop, ports, watch, cores
        self._next = 0  # number of the next order nobody has placed
        self._placed = (0, 0)  # orders of the last window: [first, end)
        self._payable: list[tuple[int, int]] = []  # those that nobody has paid

    def window(self, name: str, connections: int, seconds: float) -> Window:
        """Measure one row once."""
        if name == "valkey_script":
            return self._script(seconds)
        kind, expect = _KINDS.get(name, ("order", 200))
        first, most, orders = self._next, _ORDERS_MOST, 0
        if name in ("callback", "status"):
            # An order is paid once, and asked about as often as one likes.
            first, end = self._payable.pop() if name == "callback" else self._placed
            orders = end - first
            most = orders if name == "callback" else _ORDERS_MOST
        spec = self._spec(name, kind, first, connections, seconds, most, expect, orders)
        done = self._run(["-m", "benchmarks.ceiling.driver", msgspec.json.encode(spec).decode()], name)
        if name not in ("callback", "status"):
            self._next = done.next
        if name == "place_accepted":
            self._placed = (first, done.next - connections)  # the last of each connection may not have been decided
            self._payable.append(self._placed)
        return Window.of(name, connections, done, "core" if name in CORE else name)

    def _script(self, seconds: float) -> Window:
        spec = self._spec("valkey_script", "order", self._next, 0, seconds, _SCRIPT_ORDERS, 0, 0)
        url = self._shop.settings.valkey_url
        done = self._run(["-m", "benchmarks.ceiling.script", msgspec.json.encode(spec).decode(), url], "valkey_script")
        self._next = done.next
        return Window.of("valkey_script", None, done, "")

    def _spec(
        self, name: str, kind: str, first: int, connections: int, seconds: float, most: int, expect: int, orders: int
    ) -> Spec:
        settings = self._shop.settings
        return Spec(
            port=self._ports.get(name, settings.port),
            kind=kind,
            first=first,
            connections=connections,
            seconds=seconds,
            most=most,
            orders=orders,
            expect=expect,
            secret=base64.b64encode(settings.secret).decode(),
            sandbox_secret=base64.b64encode(settings.sandbox_secret).decode(),
            watch=self._watch,
        )

    def _run(self, arguments: list[str], name: str) -> Done:
        ran = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            timeout=120,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, {self._cores[1]}),
        )
        if ran.returncode != 0:
            raise Fault(f"the row {name} could not be measured: {ran.stderr.decode(errors='replace')[-600:]}")
        done = msgspec.json.decode(ran.stdout, type=Done)
        if done.wrong:
            raise Fault(f"the row {name} got answers it must not get: {done.wrong}")
        return done


@contextlib.contextmanager
def _servers(folder: Path, cores: tuple[int, int], say: Progress) -> Iterator[Bench]:
    """Start everything, pin it, and stop it again."""
    ports = dict(zip(REFERENCES, free_ports(len(REFERENCES)), strict=True))
    with contextlib.ExitStack() as stack:
        say("starting the shop")
        shop = stack.enter_context(Deployment(folder))
        shop.wait_ready()
        stage.set_stage(shop.settings)
        watch: dict[str, list[int]] = {}
        for name in REFERENCES:
            say(f"starting {name}")
            room = folder / name
            room.mkdir()
            process = stack.enter_context(_server(references.command(name, room, ports[name]), room / "log"))
            _wait_for(ports[name], name)
            watch[name] = _pin(process.pid, cores[0])
        watch["core"] = _pin(shop.pid("serve"), cores[0])
        watch["valkey"] = _pin(shop.pid("valkey"), cores[1])
        _pin(shop.pid("postgres"), cores[1])
        stack.enter_context(_held(shop.pid("work")))
        yield Bench(shop, ports, watch, cores)


@contextlib.contextmanager
def _server(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _held(pid: int | None) -> Iterator[None]:
    """Hold a process still."""
    if pid is None:
        raise Fault("the projector is not running")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _wait_for(port: int, name: str) -> None:
    import socket

    until = time.monotonic() + _STARTS_S
    while True:
        try:
            socket.create_connection((HOST, port), 1.0).close()
        except OSError as error:
            if time.monotonic() > until:
                raise Fault(f"{name} did not start: {error}") from error
            time.sleep(0.05)
        else:
            return


def _pin(pid: int | None, core: int) -> list[int]:
    """Give a process and all below it one core; return their ids."""
    if pid is None:
        raise Fault("a part of the shop is not running")
    pids = [pid, *[child.pid for child in psutil.Process(pid).children(recursive=True)]]
    for one in pids:
        for task in Path(f"/proc/{one}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {core})
    return pids


class Progress:
    """A line whenever something begins."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        """Say what begins now."""
        sys.stderr.write(f"[{time.monotonic() - self._began:5.1f} s] {what}\n")
        sys.stderr.flush()


def measure(bench: Bench, rounds: int, seconds: float, say: Progress, seed: int) -> list[list[Window]]:
    """Return the windows of every round, each round in an order of its own."""
    bench.window("place_accepted", CONNECTIONS[0], min(seconds, 0.5))  # so that there is an order to ask about
    draw = random.Random(seed)
    found = []
    for number in range(1, rounds + 1):
        rows: list[tuple[str, int]] = [
            (name, c) for c in CONNECTIONS for name in (*REFERENCES, *CORE) if name != "callback"
        ]
        draw.shuffle(rows)
        for at in reversed([at for at, (name, _) in enumerate(rows) if name == "place_accepted"]):
            rows.insert(at + 1, ("callback", rows[at][1]))  # it pays what was placed just before
        windows = []
        for name, connections in rows:
            say(f"round {number} of {rounds}: {name}, {connections} connections")
            windows.append(bench.window(name, connections, seconds))
        say(f"round {number} of {rounds}: valkey_script")
        windows.append(bench.window("valkey_script", 0, seconds))
        found.append(windows)
    return found


def main(argv: Sequence[str]) -> int:
    """Measure what an accepted order costs beside nginx, a bare protocol and an aiohttp application, as ratios.

    Exit code 0: every bar is met; 1: one is missed; 64: bad usage.
    """
    parser = argparse.ArgumentParser(prog="flashproof ceiling", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds, each with every row (default 3)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="seconds of one window (default 1.5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws the order of the rows (default 1)")
    options = parser.parse_args(argv)
    if not 1 <= options.rounds <= _ROUNDS_MOST or not 0.2 <= options.seconds <= 30:
        raise BadInput(f"--rounds must be from 1 to {_ROUNDS_MOST} and --seconds from 0.2 to 30")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BadInput("two cores are needed: one for the server, one for Valkey and the driver")
    out = Path("out/ceiling") / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror}") from error
    say = Progress()
    with (
        tempfile.TemporaryDirectory(prefix="flashproof-ceiling-") as folder,
        _servers(Path(folder), (cores[0], cores[1]), say) as bench,
    ):
        rounds = measure(bench, options.rounds, options.seconds, say, options.seed)
    result = ceiling_of(rounds, options.seconds)
    (out / "ceiling.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    point_latest(out)
    sys.stdout.write(table(result) + f"\n\n  written to {out / 'ceiling.json'}\n")
    return 0 if all(ratio.met for ratio in result.ratios) else 1
