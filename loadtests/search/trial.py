"""One trial of a sweep: its figures from the raw history, and whether it kept the budget. Pure.

The budget is *p99 ≤ X* and *errors ≤ Y*. Of a short trial the first is judged as what it means: at most 1 % of the
accepted orders took longer than X from the instant they were due. An error is an arrival that got no decision:
unknown, timed out, failed, or refused because the shop was overloaded; a refusal that is the shop's right answer
(sold out, limit reached) is none.

What an unfit generator may still say:

- *Nothing*, if the load was not put on: an arrival was shed, never sent, or is missing from the history, or the
  generator took longer over them than planned, so that the rate was not made (less than ``ACHIEVED_LEAST`` of it).
  Such a trial is void, however fast its answers: a rate that was not offered was not kept.
- *Kept*, if the whole load was put on and the budget was kept although the generator was late: lateness makes
  latency from the due instant longer, never shorter, and sends what it delayed in heaps, which is harder on the shop.
  So believing it is conservative, and the trial passes. Its figures are no measurement of the shop, though: they hold
  the generator's own time, and are left out of the knee and of the scalability law.
- *Broken* only if the budget is broken even after the generator's own lateness at p99 is taken off twice, at sending
  and at reading, with its processor below the limit. Otherwise such a trial is void. Orders under way while the
  generator stood still never speak against the shop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from loadtests.checkers.answers import CONFLICT, DECIDED, has_order, is_refused, is_sent
from loadtests.record import fitness
from loadtests.record.figures import read_lags
from loadtests.record.history import Attempt
from loadtests.record.identity import first_places, identity_of, violations
from loadtests.record.latency import latency_of_values, quantile
from loadtests.record.summary import Generator
from loadtests.search.bracket import Judgement
from loadtests.search.law import Point

SLOW_SHARE: Final = 0.01  # of accepted orders may be slower than the budget: that is what a p99 says
ACCEPTED_LEAST: Final = 100  # a trial with fewer says nothing about a p99
ACHIEVED_LEAST: Final = 0.98  # of the rate planned


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What must be kept."""

    p99_us: int
    errors: float  # share of arrivals


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial measured."""

    rate: float  # asked for, arrivals a second
    seconds: float
    seed: int
    scheduled: int
    unsent: int  # with those shed
    offered: float = 1.0  # the rate made, as a share of the rate planned; what the shop kept waiting counts as made
    unaccounted: list[str] = []  # where plan, generator and history disagree on what was sent
    accepted: int
    refused: int
    errors: int
    slow: int  # accepted orders over the budget
    certainly_slow: int  # over it even without the generator's lateness, and not while it stood still
    unfit: list[str]  # why the generator was not fit to judge; empty: it was
    p50_us: int
    p99_us: int  # nearest rank, of `accepted` values
    max_us: int
    concurrency: float  # mean place requests under way: their summed latency over the window (Little's law)
    throughput: float  # place answers a second of the window
    wake_lag_p99_us: int
    read_lag_p99_us: int | None = None  # None: not measured
    generator_cpu: float  # of a core, the highest sample
    cpu: dict[str, float] = {}  # cores by role, mean while orders came
    gauges: dict[str, float] = {}  # of the timeline, mean while orders came

    @property
    def point(self) -> Point:
        """Return the trial as a point for the scalability law."""
        return Point(self.concurrency, self.throughput)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A trial's judgement with its reason."""

    judgement: Judgement
    why: str


def figures_of(
    attempts: Sequence[Attempt],
    generator: Generator,
    budget: Budget,
    *,
    rate: float,
    seconds: float,
    seed: int,
    cpu: dict[str, float],
    gauges: dict[str, float],
) -> Figures:
    """Return a trial's figures from its raw files; what they mean stands at ``Figures``."""
    firsts = first_places(attempts).values()
    identity = identity_of(generator.scheduled, firsts)
    accepted = [one for one in firsts if one.outcome == "accepted" and has_order(one)]
    refused = sum(map(_rightly_refused, firsts))
    unsent = generator.unsent + generator.shed
    took = sorted(one.done_us - one.intended_us for one in accepted)
    lag_us = round(generator.wake_lag_us.p99)
    read_late_us = read_lags(attempts)
    read_us = quantile(read_late_us, 0.99) if read_late_us else None
    most_us = budget.p99_us + lag_us + (lag_us if read_us is None else read_us)
    certain = [one for one in accepted if one.done_us - one.intended_us > most_us and not _stalled(one, generator)]
    requests = [one for one in attempts if one.op == "place" and one.sent_us and one.done_us]
    window_us = _window_us(requests)
    return Figures(
        rate=rate,
        seconds=seconds,
        seed=seed,
        scheduled=generator.scheduled,
        unsent=max(unsent, identity.unsent + identity.shed),
        offered=_offered(firsts, seconds),
        unaccounted=[*fitness.short(generator, identity), *violations(identity, first_places(attempts))],
        accepted=len(accepted),
        refused=refused,
        errors=sum(1 for one in firsts if is_sent(one) and not _decided(one)),
        slow=sum(latency_us > budget.p99_us for latency_us in took),
        certainly_slow=len(certain),
        unfit=list(fitness.late(generator, lag_us, read_us, fitness.wake_lag_most_us(latency_of_values(took)))),
        p50_us=quantile(took, 0.5),
        p99_us=quantile(took, 0.99),
        max_us=took[-1] if took else 0,
        concurrency=sum(one.done_us - one.intended_us for one in requests) / window_us,
        throughput=len(requests) * 1e6 / window_us,
        wake_lag_p99_us=lag_us,
        read_lag_p99_us=read_us,
        generator_cpu=generator.cpu_max,
        cpu=cpu,
        gauges=gauges,
    )


def judge_trial(figures: Figures, budget: Budget) -> Said:
    """Return whether a trial kept the budget, broke it, or says nothing, with the reason in one sentence."""
    if figures.unsent:
        return Said(judgement="void", why=f"{figures.unsent} of {figures.scheduled} arrivals were never sent")
    if figures.unaccounted:
        return Said(judgement="void", why=figures.unaccounted[0])
    if figures.offered < ACHIEVED_LEAST:
        return Said(judgement="void", why=f"only {figures.offered:.1%} of the rate was made")
    if figures.errors > budget.errors * figures.scheduled:
        share = figures.errors / max(1, figures.scheduled)
        return _fail(figures, f"{figures.errors} of {figures.scheduled} arrivals ({share:.2%}) got no decision", False)
    if figures.accepted < ACCEPTED_LEAST:
        return Said(judgement="void", why=f"only {figures.accepted} orders were accepted: too few for a p99")
    most = SLOW_SHARE * figures.accepted
    why = f"{figures.slow} of {figures.accepted} orders ({figures.slow / figures.accepted:.2%}) were over the budget"
    if figures.slow > most:
        certain = figures.certainly_slow > most and figures.generator_cpu <= fitness.CPU_MOST
        return _fail(figures, why, certain)
    return Said(judgement="pass", why=why)


def _fail(figures: Figures, why: str, certain: bool) -> Said:
    if figures.unfit and not certain:
        return Said(judgement="void", why=f"{why}, but: {figures.unfit[0]}")
    return Said(judgement="fail", why=why)


def _offered(firsts: Collection[Attempt], seconds: float) -> float:
    """Return the planned length over the length it took the generator; without what the shop kept waiting."""
    sent = [one for one in firsts if is_sent(one)]
    planned_us = max([round(seconds * 1e6), *(one.intended_us for one in sent)])
    return planned_us / max([planned_us, *(one.sent_us - one.waited_us - one.connect_us for one in sent)])


def _stalled(attempt: Attempt, generator: Generator) -> bool:
    return any(at < attempt.done_us and attempt.intended_us < at + length for at, length in generator.stalls)


def accepted_us(attempts: Sequence[Attempt]) -> list[int]:
    """Return the latencies of the orders accepted at their first request, in µs from the instant each was due."""
    firsts = first_places(attempts).values()
    return [one.done_us - one.intended_us for one in firsts if one.outcome == "accepted" and has_order(one)]


def _rightly_refused(attempt: Attempt) -> bool:
    return is_refused(attempt) and attempt.outcome in DECIDED | CONFLICT


def _decided(attempt: Attempt) -> bool:
    """Return whether an arrival got what the shop owes it: an order, or a refusal by the sale's rules."""
    if attempt.op != "place":
        return attempt.result == "ok"
    return has_order(attempt) or _rightly_refused(attempt)


def _window_us(requests: Sequence[Attempt]) -> int:
    if not requests:
        return 1
    return max(1, max(one.done_us for one in requests) - min(one.intended_us for one in requests))
