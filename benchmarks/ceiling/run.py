"""``flashproof ceiling``: the hot path beside nginx, a bare protocol and aiohttp, in one run on one machine.

Every round measures every row once, in an order that is drawn anew, so that what the machine does meanwhile meets all
of them alike; a ratio is taken inside a round, and the median over the rounds is told with its spread. The server has
one core for itself, Valkey and the driver share the other. The projector is held while rows are measured (its own rate
is another row's business): what is told is the path to *accepted*, fsync included.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import pinned
from benchmarks.ceiling import references
from benchmarks.ceiling.asks import HOST
from benchmarks.ceiling.result import Window, ceiling_of, table
from benchmarks.pinned import ORDERS_MOST, Progress
from benchmarks.rows import ROUNDS_MOST, run_folder
from core.arguments import Arguments
from core.errors import BadInput, Fault
from loadtests.machine import point_latest
from loadtests.shop.deployment import Deployment, free_ports

REFERENCES: Final = ("nginx", "protocol", "aiohttp")
CORE: Final = ("place_accepted", "place_sold_out", "callback", "status")
CONNECTIONS: Final = (64, 256)
_KINDS: Final = {
    "place_accepted": ("order", 201),
    "place_sold_out": ("sold_out", 409),
    "callback": ("callback", 200),
    "status": ("status", 200),
}
_SCRIPT_ORDERS: Final = 60_000
_STARTS_S: Final = 10.0


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
        first, most, orders = self._next, ORDERS_MOST, 0
        if name in ("callback", "status"):
            # An order is paid once, and asked about as often as one likes.
            first, end = self._payable.pop() if name == "callback" else self._placed
            orders = end - first
            most = orders if name == "callback" else ORDERS_MOST
        spec = pinned.spec(
            self._shop.settings,
            kind,
            first,
            connections=connections,
            seconds=seconds,
            expect=expect,
            watch=self._watch,
            port=self._ports.get(name),
            most=most,
            orders=orders,
        )
        done = pinned.drive("benchmarks.ceiling.driver", spec, self._cores[1])
        if name not in ("callback", "status"):
            self._next = done.next
        if name == "place_accepted":
            self._placed = (first, done.next - connections)  # the last of each connection may not have been decided
            self._payable.append(self._placed)
        return Window.of(name, connections, done, "core" if name in CORE else name)

    def _script(self, seconds: float) -> Window:
        settings = self._shop.settings
        spec = pinned.spec(
            settings,
            "order",
            self._next,
            connections=0,
            seconds=seconds,
            expect=0,
            watch=self._watch,
            most=_SCRIPT_ORDERS,
        )
        done = pinned.drive("benchmarks.ceiling.script", spec, self._cores[1], settings.valkey_url)
        self._next = done.next
        return Window.of("valkey_script", None, done, "")


@contextlib.contextmanager
def _servers(folder: Path, cores: tuple[int, int], say: Progress) -> Iterator[Bench]:
    """Start everything, pin it, and stop it again."""
    ports = dict(zip(REFERENCES, free_ports(len(REFERENCES)), strict=True))
    with contextlib.ExitStack() as stack:
        say("starting the shop")
        shop, watch = stack.enter_context(pinned.shop(folder, cores))
        for name in REFERENCES:
            say(f"starting {name}")
            room = folder / name
            room.mkdir()
            process = stack.enter_context(_server(references.command(name, room, ports[name]), room / "log"))
            _wait_for(ports[name], name)
            watch[name] = pinned.pin(process.pid, cores[0])
        stack.enter_context(pinned.held(shop.pid("work")))
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
    parser = Arguments(prog="flashproof ceiling", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds, each with every row (default 3)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="seconds of one window (default 1.5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws the order of the rows (default 1)")
    options = parser.parse_args(argv)
    if not 1 <= options.rounds <= ROUNDS_MOST or not 0.2 <= options.seconds <= 30:
        raise BadInput(f"--rounds must be from 1 to {ROUNDS_MOST} and --seconds from 0.2 to 30")
    cores = pinned.two_cores()
    out = run_folder("ceiling")
    with (
        Progress() as say,
        tempfile.TemporaryDirectory(prefix="flashproof-ceiling-") as folder,
        _servers(Path(folder), cores, say) as bench,
    ):
        rounds = measure(bench, options.rounds, options.seconds, say, options.seed)
    result = ceiling_of(rounds, options.seconds)
    (out / "ceiling.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    point_latest(out)
    sys.stdout.write(table(result) + f"\n\n  written to {out / 'ceiling.json'}\n")
    missed = sum(not ratio.met for ratio in result.ratios)
    if missed:
        sys.stdout.write(f"  exit code 1: of {len(result.ratios)} bars {missed} were missed\n")
    return 1 if missed else 0
