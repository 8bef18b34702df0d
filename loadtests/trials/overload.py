"""``python -m loadtests overload``: what is sold while many times the capacity is asked for, and how soon it is over.

The server's worker has one core, the load the other. One core cannot send many times what another sells, so the shop is
made small: see ``loadtests/trials/slices.py``. As a rule it is the store that is weak, and has its slices on the load's
core; with ``--small core`` worker and stores share the first core and all of it is slowed. The projector is held still,
as in ``flashproof ceiling``: the path to *accepted* is judged, fsync included. 135,000 orders are there before, so that
no table of the store doubles meanwhile. First the peak: as many orders as can be had with 512 connections. Then, of a
fresh worker (whom the peak turned away will not return, and shall not stand in its line), in turn: half of the peak; a
flood of so many times the peak; half of the peak again, while the refused come back after their Retry-After, with
jitter, twice at most (or at once, nine times at most: ``--manners ignore``). Beside it one client sends payment
callbacks and asks for orders.

How a flood is told: *asked* are the requests of a second, those of returning buyers among them, *sent* those that found
a connection free. A server that tells the refused in its own time leaves their connections waiting, so less is sent
than asked; a run that did not send what it is named for is void. *shop* is the processor time of server and store.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import pinned
from core.arguments import Arguments
from core.errors import BadInput, Fault
from loadtests.machine import describe_machine, git_commit, point_latest
from loadtests.shop.deployment import Deployment
from loadtests.trials.beside import Beside
from loadtests.trials.flood import BUCKET_S, HONOUR, IGNORE, Done, Phase, Plan, Told
from loadtests.trials.flood_bars import Result, bars_of, table, void_of
from loadtests.trials.rolling import roll_once
from loadtests.trials.slices import Slices, sliced

PEAK_CONNECTIONS: Final = 512  # with 256 a flood sold up to a third more than the peak: it keeps more under way
PEAK_S: Final = 8.0
CALM_S: Final = 3.0
AFTER_S: Final = 8.0
SHARES: Final = {"store": 0.05, "core": 0.08}  # so small that the load can send ten times the peak
_DRIVER_MOST_S: Final = 150.0
_ROLL_MOST_S: Final = 30.0
# Valkey's tables double at 115,000 and 131,000 entries and at 229,000 again. While they do, an order costs it twice as
# much, which a store of a twentieth of a core feels for many seconds: 65 % of the peak was seen in one flood, 113 % in
# the next. So that all phases have the same store, they lie between the two.
_ORDERS_BEFORE: Final = 135_000
_FILL_MOST_S: Final = 60.0
_SURPLUS: Final = 1.02  # asked beyond the multiple, so that it is reached


def _fill(shop: Deployment, watch: dict[str, list[int]], core: int) -> int:
    """Place orders as fast as the shop can; return the number of the next."""
    told = pinned.spec(
        shop.settings, "order", 0, connections=256, seconds=_FILL_MOST_S, expect=201, watch=watch, most=_ORDERS_BEFORE
    )
    done = pinned.drive("benchmarks.ceiling.driver", told, core)
    if done.next < _ORDERS_BEFORE:
        raise Fault(f"only {done.next:,} of {_ORDERS_BEFORE:,} orders were placed within {_FILL_MOST_S:g} s")
    return done.next


def _drive(
    shop: Deployment, watch: list[int], connections: int, first: int, phases: list[Phase], manners: str = HONOUR
) -> Done:
    secret = base64.b64encode(shop.settings.secret).decode()
    plan = Plan(shop.settings.port, connections, first, secret, phases, watch, manners)
    ran = subprocess.run(
        [sys.executable, "-m", "loadtests.trials.flood", msgspec.json.encode(plan).decode()],
        stdout=subprocess.PIPE,
        timeout=_DRIVER_MOST_S,
        check=False,
    )
    if ran.returncode != 0:
        raise Fault("the load failed; its own words are above")
    return msgspec.json.decode(ran.stdout, type=Done)


def _measure(
    shop: Deployment, cores: tuple[int, int], first: int, options: Options, say: Progress
) -> tuple[float, list[Told], Slices]:
    """Return the peak, what each phase showed (the peak's own first), and how small the shop was made."""
    parent = shop.pid("serve")
    assert parent is not None, "it was ready a moment ago"
    # A weak store has its slices beside the load, as on a machine of its own: the worker takes nothing from it.
    where = cores[1] if options.small == "store" else cores[0]
    store = pinned.pin(shop.pid("valkey"), where)
    say("the peak")
    with sliced(options.small, options.share, where, store) as slices:
        watch = [*pinned.pin(parent, cores[0]), *store]
        peak_of = _drive(shop, watch, PEAK_CONNECTIONS, first, [Phase("peak", 0.0, PEAK_S)])
    # The mean, not the median: a weak store answers in a few large batches, and half a second holds three or four.
    full = peak_of.phases[0].buckets[1:]
    peak = sum(bucket.accepted for bucket in full) / (BUCKET_S * len(full))
    say(f"the peak is {peak:,.0f} orders/s; a fresh worker")
    asyncio.run(roll_once(parent, shop.log_file("serve"), _ROLL_MOST_S))
    phases = [Phase("calm", peak / 2, CALM_S)]
    for factor in options.times:
        phases.append(Phase(f"flood {factor:g}x", peak * factor * _SURPLUS, options.seconds, whole=True))
        phases.append(Phase(f"after {factor:g}x", peak / 2, AFTER_S))
    say("half of the peak, and the floods")
    late = slices[0].late
    with sliced(options.small, options.share, where, store) as slices:
        watch = [*pinned.pin(parent, cores[0]), *store]
        told = _drive(shop, watch, options.connections, peak_of.next, phases, options.manners).phases
    small = msgspec.structs.replace(slices[0], late=max(late, slices[0].late))
    return peak, [peak_of.phases[0], *told], small


@contextlib.contextmanager
def _beside(shop: Deployment, say: Progress) -> Iterator[Beside]:
    """The client beside it all, the peak too: what it takes from a small shop, peak and flood are without alike."""
    say("placing what is paid and asked for beside the flood")
    with Beside(shop.settings) as beside:
        while beside.is_alive() and not beside.took:
            time.sleep(0.1)
        yield beside
    if beside.fault:
        raise Fault(beside.fault)


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
    small: str
    share: float
    manners: str


def read_options(argv: Sequence[str]) -> Options:
    """Return the options, or raise BadInput."""
    parser = Arguments(prog="python -m loadtests overload", description=main.__doc__)
    parser.add_argument(
        "--times", default="5,10", metavar="N,…", help="floods, in multiples of the peak (default 5,10)"
    )
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="of one flood (default 6)")
    parser.add_argument("--connections", type=int, default=2_000, metavar="N", help="of the floods (default 2000)")
    parser.add_argument("--small", choices=list(SHARES), default="store", help="what is made small (default store)")
    parser.add_argument(
        "--share", type=float, metavar="S", help="of the time that is left to it (default 0.05 store, 0.08 core)"
    )
    parser.add_argument(
        "--manners",
        choices=[HONOUR, IGNORE],
        default=HONOUR,
        help="of the refused, towards Retry-After (default honour)",
    )
    said = parser.parse_args(argv)
    try:
        times = [float(one) for one in said.times.split(",")]
    except ValueError as error:
        raise BadInput("--times must be numbers with commas between them") from error
    if not 1 <= len(times) <= 3 or not all(1 <= one <= 100 for one in times):
        raise BadInput("--times must be one to three numbers from 1 to 100")
    if not 1 <= said.seconds <= 12 or not 1 <= said.connections <= 15_000:
        raise BadInput("--seconds must be from 1 to 12 and --connections from 1 to 15000")
    share = SHARES[said.small] if said.share is None else said.share
    if not 0.01 <= share <= 1:
        raise BadInput("--share must be from 0.01 to 1")
    return Options(times, said.seconds, said.connections, said.small, share, said.manners)


def main(argv: Sequence[str]) -> int:
    """Flood a private shop with many times the orders it can sell, refused buyers returning, and judge what it sells.

    Exit code 0: every bar is met; 1: one is missed; 3: void, it was no flood; 64: bad usage.
    """
    options = read_options(argv)
    cores = pinned.two_cores()
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
        pinned.shop(Path(folder), cores) as (shop, watch),
        pinned.held(shop.pid("work")),
        pinned.on(cores[1]),
    ):
        say(f"placing {_ORDERS_BEFORE:,} orders before")
        first = _fill(shop, watch, cores[1])
        with _beside(shop, say) as beside:
            peak, phases, slices = _measure(shop, cores, first, options, say)
        say("stopping")
    result = Result(
        schema=1,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", started_at),
        git_commit=git_commit(),
        machine=describe_machine(),
        connections=options.connections,
        manners=options.manners,
        slices=slices,
        peak_per_s=peak,
        phases=phases,
        beside={phase.name: beside.told(phase) for phase in phases},
        bars=bars_of(peak, phases, options.times, beside.refused),
        void=void_of(peak, phases, options.times, slices),
    )
    (out / "overload.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    point_latest(out)
    sys.stdout.write(table(result) + f"\n\n  written to {out / 'overload.json'}\n")
    if result.void:
        return 3
    return 0 if all(bar.met for bar in result.bars) else 1
