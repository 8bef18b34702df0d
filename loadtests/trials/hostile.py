"""``python -m loadtests hostile``: what honest buyers notice of clients that hold connections and give nothing.

Honest buyers order at a fixed rate all the time. Calm and siege alternate, several times, so that what else the
machine does meets both alike; how far the calm phases are apart tells how much of a difference is chance. In a siege
thousands of hostile sockets are kept open, each that is cut off replaced, and it is measured once all of them are
there. Real clients bring processors of their own. Here the server has a core and all else shares another, as in
``ceiling``; there the buyers run as soon as they have something to do, and the hostile ones when nobody else has (see
``paced.py`` and ``siege.py``). With both cores shared by all, a siege of another shop beside this one was noticed as
much as one of this: what was measured was how long the buyers and Valkey waited for a processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust

from benchmarks import pinned
from core.arguments import Arguments
from core.errors import BadInput, Fault
from loadtests.generator.scenario import HOT_SKU
from loadtests.shop.deployment import Deployment
from loadtests.shop.stage import set_stage
from loadtests.trials.paced import Order
from loadtests.trials.rolling import Told, workers_of
from loadtests.trials.siege import LIFE_S, Fate

NUMBERS: Final = {"slow_head": 2_000, "slow_body": 500, "slow_read": 500}
FULL_S: Final = max(LIFE_S[kind] for kind in NUMBERS) + 0.5  # after so long all are there
# The bars.
P99_UP_MOST: Final = 0.10
MEMORY_UP_MOST_MIB: Final = 64.0
AGE_MOST_S: Final = 10.0
MISSING_MOST: Final = 0.03  # of a kind, who are not there: just cut off, or knocking

SETTLE_S: Final = 3.0  # before the first phase: caches warm, statistics written
CLEAR_S: Final = 1.0  # after a siege: the last of it is closed
SIEGE_LEAST_S: Final = AGE_MOST_S + 1 - FULL_S  # else nobody could grow too old in it
SECONDS_MOST: Final = 240.0
LOOK_S: Final = 0.2
HOLD_MS: Final = 3_600_000  # no reservation ends during the run
_ENDS_S: Final = 20.0


class Phase(NamedTuple):
    """One stretch of time, in monotonic seconds."""

    kind: str  # calm or siege
    began_s: float
    ended_s: float
    memory_mib: float  # of all workers, the most that was seen


class Bar(NamedTuple):
    """One figure, what it must not exceed, and the words around it."""

    what: str
    value: float
    most: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bar."""
        return self.value <= self.most


class Measured(NamedTuple):
    """All that was seen."""

    phases: list[Phase]
    orders: list[Order]
    fates: dict[str, Fate]
    counted: dict[str, int]  # by the server, by reason
    real_time: bool  # the buyers ran as soon as they had something to do


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    pairs: int
    calm_s: float
    siege_s: float
    rate: float


def main(argv: Sequence[str]) -> int:
    """Besiege a private shop with hostile sockets and measure what honest buyers notice.

    Exit codes: 0 every bar holds, 1 one does not, 64 bad usage.
    """
    options, cores = read_options(argv), pinned.two_cores()
    with (
        Told() as told,
        tempfile.TemporaryDirectory(prefix="flashproof-hostile-") as folder,
        Deployment(Path(folder)) as deployment,
    ):
        deployment.wait_ready()
        seconds = options.pairs * (options.calm_s + FULL_S + options.siege_s + CLEAR_S) + 2 * SETTLE_S
        set_stage(deployment.settings, round(options.rate * seconds), 0, lambda words: None, HOLD_MS)
        for part in ("serve", "valkey", "postgres", "work"):
            pinned.pin(deployment.pid(part), cores[part != "serve"])
        with pinned.on(cores[1]):  # buyers and besiegers inherit it
            measured = measure(deployment, options, told)
        told.words = lambda: "stopping"
    found = bars(measured)
    sys.stdout.write(table(measured, found))
    return 0 if all(bar.holds for bar in found) else 1


def read_options(argv: Sequence[str]) -> Options:
    """Return the checked options.

    Raises:
        BadInput: one is out of bounds.
    """
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = Arguments(prog="python -m loadtests hostile", description=about, epilog=" ".join(codes.split()))
    parser.add_argument("--pairs", type=int, default=6, help="how often calm and siege alternate (default 6)")
    parser.add_argument("--calm", type=float, default=8.0, help="seconds of a calm phase (default 8)")
    parser.add_argument("--siege", type=float, default=8.0, help="seconds of a siege, once full (default 8)")
    parser.add_argument("--rate", type=float, default=200.0, help="honest orders a second (default 200)")
    said = parser.parse_args(argv)
    if said.pairs < 1 or not said.calm >= 1 or not said.siege >= SIEGE_LEAST_S:
        raise BadInput(f"at least 1 pair, 1 s of calm and {SIEGE_LEAST_S:g} s of siege are needed")
    if not 1 <= said.rate <= 2_000:
        raise BadInput("--rate must be from 1 to 2,000")
    if not said.pairs * (said.calm + FULL_S + said.siege + CLEAR_S) <= SECONDS_MOST:
        raise BadInput(f"the phases must not take more than {SECONDS_MOST:g} s in all")
    return Options(pairs=said.pairs, calm_s=said.calm, siege_s=said.siege, rate=said.rate)


class _Child:
    """A process of the harness that is told by lines and answers by lines."""

    def __init__(self, *argv: str) -> None:
        self._name = argv[0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def runs_real_time(self) -> bool:
        """Say whether the system runs it at once when it has something to do."""
        if not hasattr(os, "SCHED_RESET_ON_FORK"):
            return False
        return os.sched_getscheduler(self._process.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO

    def say(self, word: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()

    def line(self) -> bytes:
        """Return the next line it wrote.

        Raises:
            Fault: it ended instead; the message is what it said last.
        """
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            assert self._process.stderr is not None
            words = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise Fault(f"{self._name} ended: {words[-1] if words else 'without a word'}")
        return said

    def end(self) -> bytes:
        """Close its standard input, and return what it writes until it ends.

        Raises:
            Fault: it failed; the message is what it said last.
        """
        said, words = self._process.communicate(timeout=_ENDS_S)
        if self._process.returncode != 0:
            raise Fault(f"{self._name} failed: {words.decode(errors='replace').strip()[-300:]}")
        return said

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def measure(deployment: Deployment, options: Options, told: Told) -> Measured:
    """Alternate calm and siege; return what was seen."""
    settings = deployment.settings
    where = (settings.host, str(settings.port))
    numbers = msgspec.json.encode(NUMBERS).decode()
    parent = deployment.pid("serve")
    assert parent is not None, "it was ready a moment ago"
    phases: list[Phase] = []
    fates: dict[str, Fate] = {}
    with (
        _Child("loadtests.trials.siege", *where, numbers) as siege,
        _Child("loadtests.trials.paced", *where, HOT_SKU, str(options.rate)) as buyers,
    ):
        siege.line()
        told.words = lambda: "warming up"
        time.sleep(SETTLE_S)
        for number in range(options.pairs):
            for kind, seconds in (("calm", options.calm_s), ("siege", options.siege_s)):
                words = f"{kind} {number + 1} of {options.pairs}"
                told.words = lambda words=words: words  # type: ignore[misc]
                if kind == "siege":
                    siege.say("begin")
                    time.sleep(FULL_S)
                phases.append(_phase(kind, seconds, parent))
                if kind == "siege":
                    siege.say("end")
                    _add(fates, msgspec.json.decode(siege.line(), type=dict[str, Fate]))
                    time.sleep(CLEAR_S)
        real_time = buyers.runs_real_time()
        orders = msgspec.json.decode(buyers.end(), type=list[Order])
        siege.end()
    return Measured(phases, orders, fates, _counted(deployment.metrics("serve")), real_time)


def _phase(kind: str, seconds: float, parent: int) -> Phase:
    began, memory_mib = time.monotonic(), 0.0
    while time.monotonic() < began + seconds:
        memory_mib = max(memory_mib, _memory_mib(parent))
        time.sleep(LOOK_S)
    return Phase(kind, began, time.monotonic(), memory_mib)


def _memory_mib(parent: int) -> float:
    return float(sum(psutil.Process(pid).memory_info().rss for pid in workers_of(parent))) / 2**20


def _add(fates: dict[str, Fate], more: dict[str, Fate]) -> None:
    for kind, fate in more.items():
        sum_ = fates.setdefault(kind, Fate(held=fate.held))
        sum_.held = min(sum_.held, fate.held)
        for name in ("opened", "cut", "refused", "ages_s"):
            setattr(sum_, name, getattr(sum_, name) + getattr(fate, name))
        sum_.oldest_s = max(sum_.oldest_s, fate.oldest_s)
        for status, number in fate.answers.items():
            sum_.answers[status] = sum_.answers.get(status, 0) + number


def _counted(metrics: str) -> dict[str, int]:
    head = 'flashproof_connections_cut_total{reason="'
    lines = [line[len(head) :] for line in metrics.splitlines() if line.startswith(head)]
    return {line.partition('"')[0]: round(float(line.rpartition(" ")[2])) for line in lines}


# --- what it means --------------------------------------------------------------------------------------------


def latencies(measured: Measured, phases: Sequence[Phase]) -> list[float]:
    """Return the latencies, in ms and in order, of the orders that were due in these phases."""
    return sorted(
        order.latency_ms for order in measured.orders if any(p.began_s <= order.due_s < p.ended_s for p in phases)
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    if not ordered:
        return float("nan")
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def bars(measured: Measured) -> list[Bar]:
    """Return every figure that has a bar."""
    calm = [phase for phase in measured.phases if phase.kind == "calm"]
    siege = [phase for phase in measured.phases if phase.kind == "siege"]
    before, during = (percentile(latencies(measured, phases), 0.99) for phases in (calm, siege))
    failed = sum(1 for order in measured.orders if order.status != 201)
    found = [
        Bar("honest p99, up by", (during / before - 1) * 100, P99_UP_MOST * 100, "%"),
        Bar("honest orders not accepted", float(failed), 0, ""),
        # Against the first calm: what a siege leaves behind is charged to it too.
        Bar("workers' memory, up by", max(p.memory_mib for p in siege) - calm[0].memory_mib, MEMORY_UP_MOST_MIB, "MiB"),
    ]
    found += [Bar(f"oldest {kind}", fate.oldest_s, AGE_MOST_S, "s") for kind, fate in measured.fates.items()]
    found += [
        Bar(f"{kind} not there", (1 - fate.held / NUMBERS[kind]) * 100, MISSING_MOST * 100, "%")
        for kind, fate in measured.fates.items()
    ]
    return found


def table(measured: Measured, found: Sequence[Bar]) -> str:
    """Return the result as text."""
    lines = ["", f"  {'phase':<12}{'orders':>8}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'max ms':>9}"]
    calm = [phase for phase in measured.phases if phase.kind == "calm"]
    groups = {"calm": calm, "siege": [phase for phase in measured.phases if phase.kind == "siege"]}
    groups |= {f"{phase.kind} {number // 2 + 1}": [phase] for number, phase in enumerate(measured.phases)}
    for name, phases in groups.items():
        seen = latencies(measured, phases)
        figures = [percentile(seen, share) for share in (0.5, 0.9, 0.99, 1.0)]
        lines.append(f"  {name:<12}{len(seen):>8,}" + "".join(f"{figure:>9.1f}" for figure in figures))
    calms, sieges = (
        [percentile(latencies(measured, [phase]), 0.99) for phase in groups[kind]] for kind in ("calm", "siege")
    )
    middle, besieged = median(calms), median(sieges)
    lines += [
        f"  chance alone moves p99 from {min(calms):.1f} to {max(calms):.1f} ms: so far apart are the calm phases",
        f"  without the odd phase: the median of their p99 is {middle:.1f} ms calm and {besieged:.1f} besieged,"
        f" {(besieged / middle - 1) * 100:+.0f} %",
    ]
    if not measured.real_time:
        lines.append("  the buyers waited for a processor as all do, and that counts: SCHED_FIFO needs CAP_SYS_NICE")
    lines += ["", f"  {'hostile':<12}{'opened':>8}{'cut off':>9}{'refused':>9}{'mean s':>9}{'oldest s':>9}  answers"]
    for kind, fate in measured.fates.items():
        mean = fate.ages_s / max(fate.cut, 1)
        answers = " ".join(f"{status}: {number:,}" for status, number in sorted(fate.answers.items()))
        lines.append(
            f"  {kind:<12}{fate.opened:>8,}{fate.cut:>9,}{fate.refused:>9,}{mean:>9.2f}{fate.oldest_s:>9.2f}  {answers}"
        )
    counted = ", ".join(f"{reason} {number:,}" for reason, number in sorted(measured.counted.items()))
    lines += ["", f"  cut off by the server's own count: {counted}", ""]
    for bar in found:
        word = "holds" if bar.holds else "MISSED"
        lines.append(f"  {bar.what:<28}{bar.value:>9.1f} {bar.unit:<4} at most {bar.most:g} {bar.unit:<4} {word}")
    return "\n".join(lines) + "\n"
