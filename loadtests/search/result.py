"""What a sweep found, from its trials alone: the answer, the curve, the knee, the law and the limiter. Pure.

``sweep.json`` is this, beside one folder a trial with its raw history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from loadtests.machine import Machine
from loadtests.record.latency import BEYOND_LEAST, interval_ranks, quantile
from loadtests.search import knee, law
from loadtests.search.bracket import Answer, Bounds, Standing, Tried, search, standing
from loadtests.search.limiter import Limiter, Sizes, Usage, name_limiter
from loadtests.search.stand import Trial
from loadtests.search.trial import Budget, Figures

METHOD: Final = (
    "Geometric bracketing, then bisection; each rate judged by Wald's sequential probability ratio test over short "
    "trials (two passes ahead: kept; two fails ahead: broken), a void trial counting for neither."
)


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """All judged trials of one rate, pooled; latency from those with a fit generator, if there is one."""

    rate: float
    standing: Standing
    passes: int
    fails: int
    voids: int
    orders: int
    p50_us: int
    p99_us: int
    p99_sure: bool  # 100 orders or more are beyond it; fewer, and its interval alone is said
    p99_interval_us: tuple[int, int] | None  # 95 %, where the orders allow one
    errors: float  # share of arrivals
    inflated: bool = False  # no trial had a fit generator: the latency holds the generator's own time


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as ``sweep.json`` has it."""

    number: int
    rate: float
    judgement: str
    why: str
    figures: Figures | None


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """``sweep.json``."""

    schema: int
    run_id: str
    scenario: str
    command: str
    again: str  # the command that proves the answer
    started_at: str
    elapsed_s: float
    git_commit: str
    machine: Machine
    versions: dict[str, str]
    method: str
    budget: Budget
    bounds: Bounds
    sizes: Sizes
    answer: Answer
    levels: list[Level]
    knee: float | None  # the rate after which latency climbs
    law: law.Fit | None
    law_why_not: str
    limiter: Limiter
    trials: list[Outcome]
    not_tested: list[str]


def tried(trials: Sequence[Trial]) -> list[Tried]:
    """Return the trials as the search sees them."""
    return [Tried(one.rate, one.judgement) for one in trials]


def answer_of(trials: Sequence[Trial], bounds: Bounds) -> Answer:
    """Return what the trials say when no more will be made."""
    said = search(tried(trials), bounds, out_of_time=True)
    if isinstance(said, Answer):
        return said
    return Answer(rate=None, confirmed=False, above=None, end="out_of_bounds")


def levels(trials: Sequence[Trial]) -> list[Level]:
    """Return each rate's judged trials pooled, rising; a rate that has only void ones shows no latency."""
    found = []
    for rate in sorted({one.rate for one in trials}):
        same = [one for one in trials if one.rate == rate]
        judged = [one for one in same if one.judgement != "void"]
        clean = [one for one in judged if is_clean(one)]
        took = sorted(latency for one in clean or judged for latency in one.latencies_us)
        ranks = interval_ranks(len(took), 0.99) if took else None
        arrivals = sum(one.figures.scheduled for one in judged if one.figures)
        found.append(
            Level(
                rate=rate,
                standing=standing([one.judgement for one in same]),
                passes=sum(one.judgement == "pass" for one in same),
                fails=sum(one.judgement == "fail" for one in same),
                voids=len(same) - len(judged),
                orders=len(took),
                p50_us=quantile(took, 0.5),
                p99_us=quantile(took, 0.99),
                p99_sure=len(took) * 0.01 >= BEYOND_LEAST,
                p99_interval_us=(took[ranks[0] - 1], took[ranks[1] - 1]) if ranks else None,
                inflated=bool(judged) and not clean,
                errors=sum(one.figures.errors for one in judged if one.figures) / max(1, arrivals),
            )
        )
    return found


def find_knee(found: Sequence[Level]) -> float | None:
    """Return the rate after which the p99 climbs, by levels whose latency is the shop's alone."""
    return knee.knee([(one.rate, one.p99_us) for one in found if one.orders and not one.inflated])


def find_law(trials: Sequence[Trial]) -> law.Fit | str:
    """Return the scalability law of the judged trials whose generator was fit, or why there is none."""
    return law.fit([one.figures.point for one in trials if one.figures and is_clean(one)])


def is_clean(trial: Trial) -> bool:
    """Return whether a trial was judged and its figures are the shop's: they hold no lateness of the generator."""
    return trial.judgement != "void" and trial.figures is not None and not trial.figures.unfit


def find_limiter(trials: Sequence[Trial], answer: Answer, sizes: Sizes) -> Limiter:
    """Return what keeps the shop from twice the rate. A void trial's figures count where the generator gave out."""
    usages = [
        Usage(rate=one.rate, kept=one.judgement == "pass", cpu=one.figures.cpu, gauges=one.figures.gauges)
        for one in trials
        if one.figures and (one.judgement != "void" or answer.end == "generator")
    ]
    return name_limiter(usages, answer.rate, sizes)


def sentence(answer: Answer, budget: Budget) -> str:
    """Return the answer in one sentence."""
    kept = f"p99 ≤ {budget.p99_us / 1000:g} ms and errors ≤ {budget.errors:.2%}"
    if answer.rate is None and answer.above is not None and answer.end == "none_kept":
        return f"Even {answer.above:,.0f} arrivals/s break {kept}: begin lower, with --from."
    if answer.rate is None:
        return "Nothing could be judged: no rate is known to keep the budget."
    said = f"{answer.rate:,.0f} arrivals/s keep {kept}"
    if not answer.confirmed:
        said += " (one trial: not confirmed)"
    if answer.end == "at_least":
        return f"At least {said}; higher rates were not asked for (--to)."
    if answer.end == "generator":
        return f"At least {said}; {answer.above:,.0f}/s could not be judged: the generator was not fit there."
    if answer.end == "out_of_bounds":
        above = f"; {answer.above:,.0f}/s do not" if answer.above else ""
        return f"At least {said}{above}. The search ended early: no time or no trials were left (--minutes, --trials)."
    return f"{said}; {answer.above:,.0f}/s do not."


def exit_code(answer: Answer) -> int:
    """Return 0 for a confirmed rate, 1 when even the lowest breaks the budget, 3 when nothing is sure."""
    if answer.end == "none_kept":
        return 1
    return 0 if answer.rate is not None and answer.confirmed else 3
