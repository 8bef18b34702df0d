"""``flashproof sweep``: the highest rate that keeps a budget, where the knee is, and what keeps the shop from
twice that.

One shop is kept up over all trials and stocked anew before each; a trial is the scenario's own generator process
for a few seconds. ``loadtests.search`` decides: ``bracket`` which rate is next, ``trial`` what a trial says,
``limiter`` why not double.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from core.arguments import Arguments
from core.errors import BadInput, FlashproofError
from loadtests.generator.arrivals import parse_arrivals
from loadtests.generator.scenario import Scenario
from loadtests.machine import describe_machine, git_commit, point_latest
from loadtests.progress import Progress
from loadtests.record.folder import SWEEP, directory, occupied
from loadtests.record.run_files import write_json
from loadtests.scenarios import NAMES, find
from loadtests.search import page, result
from loadtests.search.bracket import Answer, Bounds, search
from loadtests.search.law import Fit
from loadtests.search.limiter import Sizes
from loadtests.search.sketch import sketch
from loadtests.search.stand import AROUND_S, STOCK_SHARE, Stand, Trial
from loadtests.search.trial import Budget
from loadtests.shop.deployment import Deployment
from loadtests.shop.quiet import versions as stores_versions

SCHEMA: Final = 1
EXIT_VOID: Final = 3
P99_MS: Final = 100.0
_PACKAGES: Final = ("locust", "aiohttp", "uvloop", "redis", "asyncpg")
_EPILOG: Final = """
method: rates are doubled from --from until one breaks the budget, then the bracket is halved (geometrically) until
its ends lie within --tolerance. A rate is kept when passes lead by two, broken when fails do (Wald's sequential
probability ratio test). A trial is void if the load was not put on (an arrival never sent, the rate not made), or if
it breaks the budget while the load generator was not fit to judge: it is said and tried again, and counts neither for
the shop nor against it. A budget kept in spite of a late generator is kept: lateness only makes latency longer.

written to --report: sweep.html, sweep.json, and one folder a trial with its raw history.

exit codes: 0 a confirmed rate was found; 1 even --from breaks the budget; 3 nothing could be confirmed; 64 bad usage.

examples:
  flashproof sweep                                        up to 3 minutes
  flashproof sweep --p99-ms 20 --errors 0.001 --from 500  a tighter budget
  flashproof sweep --workers 2 --to 8000 --minutes 5      more workers, more time
"""
_NOT_TESTED: Final = (
    "Correctness: a sweep judges speed alone. `flashproof prove` at the rate found checks every invariant.",
    "A long run: trials are seconds long; what builds up over minutes (files rewritten, tables grown) is not seen.",
    "More than one machine: load, server and stores shared this one's cores, so the answer includes the load's part.",
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    scenario: Scenario
    budget: Budget
    bounds: Bounds
    seconds: float
    minutes: float
    arrivals: str
    workers: int
    processes: int
    stock_share: float
    seed: int
    report: Path
    command: str


def main(argv: Sequence[str]) -> int:
    """Find the highest rate that keeps a budget, by short trials on real stores; say what keeps it from twice that."""
    options = read_options(argv)
    with occupied(options.report, SWEEP):
        return _main(options)


def _main(options: Options) -> int:
    progress = Progress(options.seconds)
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        trials, versions = run_trials(options, progress, began)
        sweep = _sweep(options, trials, versions, started_at, time.monotonic() - began)
        write_json(options.report / "sweep.json", sweep)
        page.write(options.report, sweep)
    except BadInput:
        raise
    except KeyboardInterrupt:
        progress.end()
        sys.stderr.write(f"interrupted: nothing was found out, and {options.report} holds no answer\n")
        raise
    except Exception as error:  # noqa: BLE001  # whatever stood in the way, nothing was found out
        progress.end()
        said = str(error) if isinstance(error, FlashproofError | OSError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"VOID: {said}\nlogs: {options.report / 'logs'}\n")
        return EXIT_VOID
    progress.end()
    point_latest(options.report)
    sys.stdout.write(f"{sketch(sweep)}page: {options.report / page.NAME}\n")
    return result.exit_code(sweep.answer)


def read_options(argv: Sequence[str]) -> Options:
    """Return the checked options.

    Raises:
        BadInput: one is out of bounds.
    """
    given = _parser().parse_args(argv)
    scenario = find(given.scenario)
    most_us = scenario.budgets.accepted_p99_us
    p99_ms = given.p99_ms if given.p99_ms is not None else most_us / 1000 if most_us else P99_MS
    for name, value, least, most in (
        ("--p99-ms", p99_ms, 0.1, 60_000),
        ("--errors", given.errors, 0, 1),
        ("--from", given.lowest, 1, 50_000),
        ("--to", given.highest, 1, 50_000),
        ("--seconds", given.seconds, 0.5, 60),
        ("--tolerance", given.tolerance, 1.01, 2),
        ("--trials", given.trials, 1, 500),
        ("--minutes", given.minutes, 0.1, 600),
        ("--workers", given.workers, 1, 64),
        ("--stock-share", given.stock_share, 0.001, 10),
        ("--processes", given.processes, 1, 64),
        ("--seed", given.seed, 0, 2**31),
    ):
        if not least <= value <= most:  # also refuses nan
            raise BadInput(f"{name} must be from {least:,} to {most:,}, not {value}")
    if given.highest <= given.lowest:
        raise BadInput(f"--to must be above --from ({given.lowest:g}), not {given.highest:g}")
    try:
        parse_arrivals(given.arrivals, given.lowest, given.seconds, given.seed)
    except ValueError as error:
        raise BadInput(f"--arrivals: {error}") from error
    if given.arrivals.startswith("trace"):
        raise BadInput("--arrivals: a trace has its own rate; a sweep needs one that can be changed, e.g. poisson")
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{given.seed}-{os.getpid()}"
    return Options(
        scenario=scenario,
        budget=Budget(p99_us=round(p99_ms * 1000), errors=given.errors),
        bounds=Bounds(lowest=given.lowest, highest=given.highest, tolerance=given.tolerance, trials_most=given.trials),
        seconds=given.seconds,
        minutes=given.minutes,
        arrivals=given.arrivals,
        workers=given.workers,
        processes=given.processes,
        stock_share=given.stock_share,
        seed=given.seed,
        report=directory(given.report) if given.report is not None else Path("out/sweep") / run_id,
        command=shlex.join(["flashproof", "sweep", *argv]),
    )


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="flashproof sweep",
        description=main.__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--p99-ms",
        type=float,
        metavar="X",
        help=f"budget: accepted orders' p99 (default the scenario's, or {P99_MS:g})",
    )
    add("--errors", type=float, default=0.001, metavar="Y", help="budget: share of arrivals without a decision (0.001)")
    add(
        "--from",
        type=float,
        default=250,
        dest="lowest",
        metavar="RATE",
        help="the lowest rate, arrivals/s (default 250)",
    )
    add("--to", type=float, default=16_000, dest="highest", metavar="RATE", help="the highest rate (default 16000)")
    add(
        "--seconds", type=float, default=2.5, help="how long a trial's buyers arrive; longer at low rates (default 2.5)"
    )
    add("--scenario", default="flash_sale", metavar="NAME", help=f"one of {', '.join(NAMES)} (default flash_sale)")
    add("--arrivals", default="constant", metavar="SPEC", help="how they come, e.g. poisson (default constant)")
    share = f"keys of the hot product for each arrival; below 1 many are refused (default {STOCK_SHARE:g})"
    add("--stock-share", type=float, default=STOCK_SHARE, help=share)
    add("--processes", type=int, default=1, help="processes of the load generator (default 1)")
    add("--workers", type=int, default=1, help="worker processes of the server (default 1)")
    add("--tolerance", type=float, default=1.1, help="how close is close enough, as a ratio (default 1.1)")
    add("--trials", type=int, default=40, help="trials at most (default 40)")
    add("--minutes", type=float, default=2.8, help="minutes at most, start and all (default 2.8)")
    add("--seed", type=int, default=1, help="the same seed gives the same crowds (default 1)")
    add("--report", metavar="DIR", help="where it is written (default out/sweep/<run id>)")
    return parser


def run_trials(options: Options, progress: Progress, began: float) -> tuple[list[Trial], dict[str, str]]:
    """Run trials until the search has its answer or no time is left; return them with the versions of what ran.

    Raises:
        Fault: a part could not be started, or a store failed.
    """
    progress.step("starting stores and server")
    trials: list[Trial] = []
    until = began + options.minutes * 60
    with Deployment(options.report, workers=options.workers) as shop:
        shop.wait_ready()
        stand = Stand(
            shop,
            options.report,
            options.scenario,
            options.budget,
            options.seconds,
            options.seed * 1000,
            progress.step,
            arrivals=options.arrivals,
            processes=options.processes,
            stock_share=options.stock_share,
        )
        versions = stores_versions(shop.settings) | {name: version(name) for name in _PACKAGES}
        while True:
            step = search(result.tried(trials), options.bounds)
            if isinstance(step, Answer) or time.monotonic() + stand.seconds(step) + AROUND_S > until:
                return trials, versions
            trial = stand.run(len(trials) + 1, step)
            trials.append(trial)
            progress.note(f"trial {trial.number:>2}: {trial.rate:>7,.0f}/s  {trial.judgement:<4}  {trial.why}")


def _sweep(
    options: Options, trials: list[Trial], versions: dict[str, str], started_at: str, elapsed_s: float
) -> result.Sweep:
    machine = describe_machine()
    answer = result.answer_of(trials, options.bounds)
    found = result.levels(trials)
    sizes = Sizes(
        cores=machine.cores,
        workers=options.workers,
        budget_ms=options.budget.p99_us / 1000,
        generators=options.processes,
    )
    fit = result.find_law(trials)
    again = ["flashproof", "prove", "--scenario", options.scenario.name, "--rate", f"{answer.rate or 0:g}"]
    again += [
        "--arrivals",
        options.arrivals,
        "--workers",
        str(options.workers),
        "--p99-ms",
        f"{options.budget.p99_us / 1000:g}",
    ]
    return result.Sweep(
        schema=SCHEMA,
        run_id=options.report.name,
        scenario=options.scenario.name,
        command=options.command,
        again=shlex.join(again),
        started_at=started_at,
        elapsed_s=round(elapsed_s, 1),
        git_commit=git_commit(),
        machine=machine,
        versions=versions,
        method=result.METHOD,
        budget=options.budget,
        bounds=options.bounds,
        sizes=sizes,
        answer=answer,
        levels=found,
        knee=result.find_knee(found),
        law=fit if isinstance(fit, Fit) else None,
        law_why_not=fit if isinstance(fit, str) else "",
        limiter=result.find_limiter(trials, answer, sizes),
        trials=[
            result.Outcome(number=one.number, rate=one.rate, judgement=one.judgement, why=one.why, figures=one.figures)
            for one in trials
        ],
        not_tested=list(_NOT_TESTED),
    )
