"""What the whole load generator can do on this machine: a scenario's own Locust process against the null server.

Everything a run has is there: the plan of every arrival, the dispatcher and its naps, the buyers' whole lives with
payments and long polls, history, charges, histograms, Locust's statistics. Arrivals are open, as in a run, and
rise evenly from none to far too many; so one short window goes through every rate. What counts is the same as in a
run (``loadtests.record.fitness``): in half a second of the rise the generator was fit if it used no more than 85 %
of its core in either quarter, never stood still, and was late at p99 by no more than a run may be whose p99 is the
scenario's budget. The ceiling is the most arrivals it sent in half a second in which it was fit.

A rate below the ceiling can be made here, with each on a core of its own; a run shares its cores with the shop. The
null server answers at once and keeps nobody waiting: with many under way each arrival costs more.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from core.settings import variable
from loadtests.generator.ceiling import CeilingUnknown, null_server, run_pinned
from loadtests.generator.scenario import Scenario
from loadtests.record import fitness
from loadtests.record.figures import wake_lag_p99_us
from loadtests.record.history import Attempt, read
from loadtests.record.identity import first_places
from loadtests.record.summary import Generator, Latency

PEAK_TIMES: Final = 8.0  # the rate that is to be made: arrivals a second at the end of the rise, but no fewer …
PEAK_LEAST: Final = 2_000.0
PEAK_MOST: Final = 16_000.0  # … and no more (but twice the rate): too steep a rise passes its ceiling in one sample
P99_US: Final = 100_000  # where the scenario promises none
WINDOW: Final = 2  # samples of CPU, a quarter of a second each
THINK_S: Final = 0.2  # to paying, at most: what an arrival brings with it comes within the same rise
DRAIN_S: Final = 0.5
_STARTS_S: Final = 25.0


class Whole(msgspec.Struct, frozen=True):
    """What the generator reached."""

    arrivals_per_s: float  # the most in half a second in which it was fit
    requests_per_s: float  # in the same half second
    gave_out: bool  # it was unfit at the end of the rise: the ceiling was found, and is no mere lower bound


def whole_ceiling(scenario: Scenario, rate: float, seconds: float) -> Whole:
    """Return how many arrivals a second of a scenario the whole generator makes, here and now.

    It takes some three seconds more than ``seconds``.

    Args:
        scenario: whose buyers come.
        rate: arrivals a second that are to be made.
        seconds: how long the rise takes.

    Raises:
        CeilingUnknown: it could not be measured.
    """
    peak = max(2 * rate, min(PEAK_MOST, max(PEAK_LEAST, PEAK_TIMES * rate)))
    share = scenario.manners.hot * min(1.0, scenario.stage.stock_share) + 1.0 - scenario.manners.hot
    with null_server(share) as port, tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        _play(scenario, port, peak, seconds, out)
        try:
            generator = msgspec.json.decode((out / "generator.json").read_bytes(), type=Generator)
            attempts = list(read(out / "history.jsonl"))
        except (OSError, ValueError) as error:
            raise CeilingUnknown(f"the generator left no readable files: {error}") from error
    lag_most_us = fitness.wake_lag_most_us(Latency(p99=scenario.budgets.accepted_p99_us or P99_US))
    found = ceiling_of(attempts, generator, round(seconds * 1e6), lag_most_us)
    if not found.arrivals_per_s:
        raise CeilingUnknown("the generator was fit in no half second, not even with next to nothing to do")
    return found


def ceiling_of(attempts: Sequence[Attempt], generator: Generator, end_us: int, lag_most_us: float) -> Whole:
    """Return the ceiling that the files of a rise show.

    Args:
        attempts: its history.
        generator: its ``generator.json``.
        end_us: when its last arrival was due.
        lag_most_us: how late it may be at p99.
    """
    firsts = sorted((one for one in first_places(attempts).values() if one.sent_us), key=lambda one: one.sent_us)
    sent_us = sorted(one.sent_us for one in attempts if one.sent_us)
    samples = [(0, 0.0), *(sample for sample in generator.cpu_samples if sample[0] <= end_us)]
    best, gave_out = (0.0, 0.0), False
    for begin, end in zip(samples, samples[WINDOW:], strict=False):
        window = range(begin[0], end[0])
        mine = [one for one in firsts if one.sent_us in window]
        shares = [share for at_us, share in samples if begin[0] < at_us <= end[0]]
        fit = (
            max(shares) <= fitness.CPU_MOST
            and wake_lag_p99_us(mine) <= lag_most_us
            and not any(at_us < end[0] and at_us + length_us > begin[0] for at_us, length_us in generator.stalls)
        )
        gave_out = not fit
        if fit:
            per_s = 1e6 / (end[0] - begin[0])
            best = max(best, (len(mine) * per_s, sum(at_us in window for at_us in sent_us) * per_s))
    return Whole(round(best[0], 1), round(best[1], 1), gave_out)


def _play(scenario: Scenario, port: int, peak: float, seconds: float, out: Path) -> None:
    """Let the scenario's process play the rise on the generator's core."""
    options: dict[str, Any] = {
        "--host": f"http://127.0.0.1:{port}",
        "--fp-arrivals": "ramp",
        "--fp-rate": peak / 2,  # a ramp ends at twice its rate
        "--fp-seconds": seconds,
        "--fp-think": THINK_S,
        "--fp-drain": DRAIN_S,
        "--fp-out": out,
    }
    file = Path(__file__).parent.parent / "scenarios" / f"{scenario.name}.py"
    command = [sys.executable, "-m", "locust", "-f", str(file)]
    command += ["--headless", "--only-summary", "--loglevel", "ERROR"]
    command += [str(word) for pair in options.items() for word in pair]
    secrets = {variable("secret"): bytes(32), variable("sandbox_secret"): bytes(32)}  # of a shop that checks nothing
    environment = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
    done = run_pinned(command, "the generator was", seconds + _STARTS_S, environment)
    if not (out / "generator.json").exists():  # an exit code other than 0 means that it was overwhelmed, as intended
        raise CeilingUnknown(f"the generator did not run: {done.stderr[-600:]}")
