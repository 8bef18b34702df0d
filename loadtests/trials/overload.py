"""``python -m loadtests overload``: what is sold while many times the capacity is asked for, and how soon it is over.

The server's worker and its stores share one core, the load has the other: what is measured is a shop of one core, and
the load can ask for more than it sells. The projector is held still, as in ``flashproof ceiling``: the path to
*accepted* is judged, fsync included. First the peak: as many orders as can be had with few connections. Then, in turn:
half of the peak; a flood of so many times the peak; half of the peak again, while the refused come back after their
Retry-After, with jitter, twice at most. Beside it one client sends payment callbacks and asks for orders.

How a flood is told: *asked* are the new buyers of a second, *sent* the requests that found a connection free. A server
that tells the refused in its own time leaves their connections waiting, so less is sent than asked; both stand in the
output, and neither is called the other. *core* is what the shop got of its core: where that is less than it got at the
peak while buyers wait, others took it, and the row says less about the shop than about the machine.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.ceiling import stage
from benchmarks.ceiling.asks import HOST, Spec, asks
from core.errors import BadInput, Fault
from core.settings import Settings
from loadtests.machine import Machine, describe_machine, git_commit, point_latest
from loadtests.shop.deployment import Deployment
from loadtests.trials.flood import BUCKET_S, Done, Phase, Plan, Told

PEAK_CONNECTIONS: Final = 256
PEAK_S: Final = 4.0
CALM_S: Final = 3.0
AFTER_S: Final = 8.0
REFUSED_P99_MS: Final = 50.0
NORMAL_S: Final = 5.0
_NORMAL_MS: Final = 50.0  # accepted p99 of half a second, unless it was three times that before the flood
_PEAK_DOUBT: Final = 1.1
_PROBE_FIRST: Final = 500_000_000  # orders of the probe; the flood's begin at 0
_PROBE_ORDERS: Final = 1_500
_PROBE_PAUSE_S: Final = 0.03
_DRIVER_MOST_S: Final = 150.0


class Bar(msgspec.Struct, frozen=True):
    """One figure beside its bar."""

    name: str
    value: float
    bar: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to ``overload.json``."""

    schema: int
    started_at: str
    git_commit: str
    machine: Machine
    connections: int
    peak_per_s: float
    phases: list[Told]
    beside: dict[str, dict[str, list[float]]]  # phase -> callback and status -> count, p50, p99, greatest (ms)
    bars: list[Bar]


class Beside(threading.Thread):
    """The client beside the flood: pays an order, asks for it, pauses; on one connection of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings, self._over = settings, threading.Event()
        self.took: list[tuple[float, str, float]] = []  # at, what, seconds
        self.fault = ""

    def run(self) -> None:
        """Go on until told to end."""
        try:
            self._go_on()
        except (OSError, ValueError) as error:
            self.fault = f"{type(error).__name__}: {error}"

    def _go_on(self) -> None:
        settings, now_s = self._settings, int(time.time())
        sock = socket.create_connection((HOST, settings.port), 10.0)
        order, pay, look = [asks(_spec(settings, kind), now_s) for kind in ("order", "callback", "status")]
        for number in range(_PROBE_FIRST, _PROBE_FIRST + _PROBE_ORDERS):
            _ask(sock, order(number), b"201")
        number = _PROBE_FIRST
        while not self._over.wait(_PROBE_PAUSE_S):
            for what, raw in (("callback", pay(number)), ("status", look(number))):
                began = time.monotonic()
                _ask(sock, raw, b"200")
                self.took.append((began, what, time.monotonic() - began))
            number = _PROBE_FIRST + (number + 1 - _PROBE_FIRST) % _PROBE_ORDERS

    def __enter__(self) -> Self:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self.join(20.0)

    def told(self, phase: Told) -> dict[str, list[float]]:
        """Return count, p50, p99 and greatest in ms of each kind within a phase."""
        found = {}
        for kind in ("callback", "status"):
            took = sorted(
                1000 * took
                for at, what, took in self.took
                if what == kind and phase.began_s <= at < phase.began_s + phase.seconds
            )
            if took:
                found[kind] = [float(len(took)), took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]]
        return found


def _spec(settings: Settings, kind: str) -> Spec:
    secret, sandbox = (base64.b64encode(one).decode() for one in (settings.secret, settings.sandbox_secret))
    return Spec(settings.port, kind, _PROBE_FIRST, 1, 0.0, 0, _PROBE_ORDERS, 200, secret, sandbox, {})


def _ask(sock: socket.socket, raw: bytes, expect: bytes) -> None:
    """Send one request and read its whole answer; raises ValueError if its status is another one."""
    sock.sendall(raw)
    data = b""
    while True:
        part = sock.recv(16_384)
        if not part:
            raise ConnectionResetError("the server closed the connection of payments")
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.split(b"Content-Length: ")[1].split(b"\r")[0]):
            break
    if data[9:12] != expect:
        raise ValueError(f"beside the flood a {data[9:12].decode()} came: {data[-200:]!r}")


def bars_of(peak: float, phases: Sequence[Told], times: Sequence[float]) -> list[Bar]:
    """Return what is judged: goodput of each flood, how soon the refused were told, how soon all was normal again."""
    calm, bars = phases[1], []
    normal_ms = max(_NORMAL_MS, 3 * calm.accepted_ms[1])
    for at, factor in enumerate(times):
        flood, after = phases[2 + 2 * at], phases[3 + 2 * at]
        name = f"{factor:g} times the peak"
        bars.append(Bar(f"goodput at {name} / peak", flood.accepted / flood.seconds / peak, _least(factor), False))
        bars.append(Bar(f"refused p99 at {name}, ms", flood.refused_ms[1], REFUSED_P99_MS, True))
        disturbed = [
            number + 1
            for number, bucket in enumerate(after.buckets)
            if bucket.refused or bucket.accepted_p99_ms > normal_ms
        ]
        bars.append(Bar(f"normal again after {name}, s", BUCKET_S * max(disturbed, default=0), NORMAL_S, True))
    bars.append(Bar("answers that were neither", float(sum(sum(one.others.values()) for one in phases)), 0.0, True))
    return bars


def _least(factor: float) -> float:
    return 0.9 if factor <= 5 else 0.8


def table(result: Result) -> str:
    """Return the result for a terminal."""
    peak, lines = result.peak_per_s, []
    lines.append(
        f"  {result.machine.cpu}, {result.machine.cores} cores; server and stores on one, the load on the other"
    )
    lines.append(f"  peak {peak:,.0f} orders/s; floods over {result.connections:,} connections")
    lines.append("")
    lines.append("                                             accepted, ms     refused, ms    of a core      p99, ms")
    lines.append(
        "  phase        asked   sent   sold refused/s    p50    p99      p50    p99   shop  load   paid status"
    )
    for one in result.phases:
        beside = result.beside.get(one.name, {})
        paid, status = (beside.get(kind, [0.0] * 3)[2] for kind in ("callback", "status"))
        lines.append(
            f"  {one.name:<11} {one.asked / one.seconds / peak:5.2f}x {one.sent / one.seconds / peak:5.2f}x "
            f"{one.accepted / one.seconds / peak:5.2f}x {one.refused / one.seconds:8,.0f} "
            f"{one.accepted_ms[0]:7.1f} {one.accepted_ms[1]:6.1f} {one.refused_ms[0]:8.1f} {one.refused_ms[1]:6.1f} "
            f"{one.shop_share:6.0%} {one.driver_share:5.0%} {paid:6.1f} {status:6.1f}"
        )
    lines.append("")
    for bar in result.bars:
        sign, word = ("<=" if bar.at_most else ">="), ("met" if bar.met else "MISSED")
        lines.append(f"  {bar.name:<44} {bar.value:8.2f}   {sign} {bar.bar:<5g} {word}")
    floods = [one for one in result.phases if one.name.startswith("flood")]
    if max(one.accepted / one.seconds for one in floods) > _PEAK_DOUBT * peak:
        lines.append("  a flood sold more than the peak: others had the core when it was taken, so the ratios flatter")
    lines += [f"  {one.name}: nobody was refused, so nothing is known of refusals" for one in floods if not one.refused]
    lines.append("  asked beyond sent reached nobody: every connection was waiting for its answer")
    return "\n".join(lines)


@contextlib.contextmanager
def _shop(folder: Path, cores: tuple[int, int]) -> Iterator[Deployment]:
    """A shop on the first core, its projector held; this process and all it starts on the second."""
    os.sched_setaffinity(0, {cores[0]})
    with Deployment(folder) as shop:
        shop.wait_ready()
        stage.set_stage(shop.settings)
        for what in ("serve", "valkey", "postgres", "work"):
            _pin(shop.pid(what), cores[0])
        os.sched_setaffinity(0, {cores[1]})
        work = shop.pid("work")
        assert work is not None, "it was ready a moment ago"
        os.kill(work, signal.SIGSTOP)
        try:
            yield shop
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(work, signal.SIGCONT)


def _family(pid: int | None) -> list[int]:
    """Return a process and all below it."""
    if pid is None:
        raise Fault("a part of the shop is not running")
    return [pid, *[int(child.pid) for child in psutil.Process(pid).children(recursive=True)]]


def _pin(pid: int | None, core: int) -> None:
    for one in _family(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {core})


def _drive(shop: Deployment, connections: int, first: int, phases: list[Phase]) -> Done:
    watch = [one for what in ("serve", "valkey") for one in _family(shop.pid(what))]
    plan = Plan(shop.settings.port, connections, first, base64.b64encode(shop.settings.secret).decode(), phases, watch)
    ran = subprocess.run(
        [sys.executable, "-m", "loadtests.trials.flood", msgspec.json.encode(plan).decode()],
        stdout=subprocess.PIPE,
        timeout=_DRIVER_MOST_S,
        check=False,
    )
    if ran.returncode != 0:
        raise Fault("the load failed; its own words are above")
    return msgspec.json.decode(ran.stdout, type=Done)


def _measure(shop: Deployment, options: Options, say: Progress) -> tuple[float, list[Told], Beside]:
    say("the peak")
    peak_of = _drive(shop, PEAK_CONNECTIONS, 0, [Phase("peak", 0.0, PEAK_S)])
    buckets = sorted(bucket.accepted / BUCKET_S for bucket in peak_of.phases[0].buckets[1:])
    peak = buckets[len(buckets) // 2]
    phases = [Phase("calm", peak / 2, CALM_S)]
    for factor in options.times:
        phases.append(Phase(f"flood {factor:g}x", peak * factor, options.seconds))
        phases.append(Phase(f"after {factor:g}x", peak / 2, AFTER_S))
    say(f"the peak is {peak:,.0f} orders/s; placing what is paid and asked for beside the flood")
    with Beside(shop.settings) as beside:
        while beside.is_alive() and not beside.took:
            time.sleep(0.1)
        told = _drive(shop, options.connections, peak_of.next, phases).phases
    if beside.fault:
        raise Fault(beside.fault)
    return peak, [peak_of.phases[0], *told], beside


class Progress:
    """A line whenever something begins."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        """Say what begins now."""
        sys.stderr.write(f"[{time.monotonic() - self._began:5.1f} s] {what}\n")


class Options(msgspec.Struct, frozen=True):
    """What was asked for."""

    times: list[float]
    seconds: float
    connections: int


def read_options(argv: Sequence[str]) -> Options:
    """Return the options, or raise BadInput."""
    parser = argparse.ArgumentParser(prog="python -m loadtests overload", description=main.__doc__)
    parser.add_argument(
        "--times", default="5,10", metavar="N,…", help="floods, in multiples of the peak (default 5,10)"
    )
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="of one flood (default 6)")
    parser.add_argument("--connections", type=int, default=2_000, metavar="N", help="of the floods (default 2000)")
    said = parser.parse_args(argv)
    try:
        times = [float(one) for one in said.times.split(",")]
    except ValueError as error:
        raise BadInput("--times must be numbers with commas between them") from error
    if not 1 <= len(times) <= 3 or not all(1 <= one <= 100 for one in times):
        raise BadInput("--times must be one to three numbers from 1 to 100")
    if not 1 <= said.seconds <= 12 or not 1 <= said.connections <= 15_000:
        raise BadInput("--seconds must be from 1 to 12 and --connections from 1 to 15000")
    return Options(times, said.seconds, said.connections)


def main(argv: Sequence[str]) -> int:
    """Flood a private shop with many times the orders it can sell, refused buyers returning, and judge what it sells.

    Exit code 0: every bar is met; 1: one is missed; 64: bad usage.
    """
    options = read_options(argv)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BadInput("two cores are needed: one for the shop, one for the load")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # before the server starts: it gets the same
    started_at, say = time.gmtime(), Progress()
    out = Path("out/overload") / time.strftime("%Y%m%dT%H%M%S", started_at)
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror}") from error
    say("starting the shop")
    with (
        tempfile.TemporaryDirectory(prefix="flashproof-overload-") as folder,
        _shop(Path(folder), (cores[0], cores[1])) as shop,
    ):
        peak, phases, beside = _measure(shop, options, say)
        say("stopping")
    os.sched_setaffinity(0, set(cores))
    result = Result(
        schema=1,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", started_at),
        git_commit=git_commit(),
        machine=msgspec.structs.replace(describe_machine(), cores=len(cores)),
        connections=options.connections,
        peak_per_s=peak,
        phases=phases,
        beside={phase.name: beside.told(phase) for phase in phases},
        bars=bars_of(peak, phases, options.times),
    )
    (out / "overload.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    point_latest(out)
    sys.stdout.write(table(result) + f"\n\n  written to {out / 'overload.json'}\n")
    return 0 if all(bar.met for bar in result.bars) else 1
