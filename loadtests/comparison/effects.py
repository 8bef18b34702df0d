"""The measures of two comparable runs, each with its effect, the effect's interval and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Final, Literal

import msgspec

from loadtests.checkers.answers import has_order
from loadtests.comparison.blocks import CONFIDENCE, Blocks, Figure, Totals, Values, blocks_of, interval
from loadtests.record.counted import AFTERWARDS
from loadtests.record.figures import sale_window
from loadtests.record.history import Attempt
from loadtests.record.identity import first_places, word_of
from loadtests.record.latency import PERCENTILES, printable
from loadtests.record.run_files import RunFiles

LEAST: Final = 0.05  # a smaller effect is called no difference, however sure it is
# no difference: the whole interval is smaller than the least effect that counts; unclear: it might be either.
Says = Literal["better", "worse", "no difference", "unclear", "not judged"]
Unit = Literal["us", "per_s", "us_per_order", "share"]
_TO_KEY: Final = "paid to delivered"  # by PostgreSQL's own clock, in ms
_UNDECIDED: Final = ("failed", "unknown", "timed_out", "shed", "unsent")
_ROLES: Final = ("server", "valkey", "postgres", "worker")


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of both runs."""

    name: str
    unit: Unit
    lower_is_better: bool
    before: float | None
    after: float | None
    change: float | None = None  # after / before - 1
    interval: tuple[float, float] | None = None  # of the change
    says: Says
    why: str = ""  # not judged: why


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` writes."""

    schema: int
    before: str  # run ids
    after: str
    verdict: Says
    confidence: float
    least_effect: float
    method: str
    effects: list[Effect]
    changed: list[str]


class _Measure(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unit: Unit
    before: Figure
    after: Figure
    lower_is_better: bool = True
    why_not: str = ""


class _Side:
    """One run, cut into blocks."""

    def __init__(self, files: RunFiles, blocks: Blocks) -> None:
        attempts = files.evidence.attempts
        self.files, self.blocks = files, blocks
        places = [a for a in attempts if a.op == "place" and a.why not in AFTERWARDS and a.sent_us]
        accepted = [a for a in places if has_order(a) and a.outcome == "accepted"]
        sold_out = [a for a in places if a.outcome == "sold_out"]
        self.took: dict[str, list[tuple[int, int]]] = {
            "accepted": [(a.intended_us, a.done_us - a.intended_us) for a in accepted],
            "accepted, sent": [(a.intended_us, a.done_us - a.sent_us) for a in accepted],
            "sold out": [(a.intended_us, a.done_us - a.intended_us) for a in sold_out],
            _TO_KEY: _deliveries(files, accepted),
        }
        self.values = {name: Values(blocks, pairs) for name, pairs in self.took.items()}
        self.accepted = self._counted(a.done_us for a in accepted)
        self.refused = self._counted(a.done_us for a in sold_out)
        self.delivered = self._counted(at_us for at_us, _ in self.took[_TO_KEY])
        firsts = first_places(attempts).values()
        self.arrivals = self._counted(a.intended_us for a in firsts)
        self.undecided = self._counted(a.intended_us for a in firsts if word_of(a) in _UNDECIDED)
        self.seconds = [blocks.length_us / 1_000_000] * blocks.count

    def _counted(self, instants: Iterable[int]) -> list[float]:
        count = Counter(self.blocks.of(at_us) for at_us in instants)
        return [float(count[n]) for n in range(self.blocks.count)]

    def cpu_us(self, role: str) -> list[float] | None:
        """Return the processor time of a role in each block, or None where it was not sampled."""
        spent = [0.0] * self.blocks.count
        end_us = self.blocks.begin_us + self.blocks.length_us * self.blocks.count
        samples = self.files.timeline
        seen = False
        for earlier, sample in pairwise(samples):
            if role in sample.cpu and self.blocks.begin_us <= sample.at_us < end_us:
                spent[self.blocks.of(sample.at_us)] += sample.cpu[role] * (sample.at_us - earlier.at_us)
                seen = True
        return spent if seen else None


def _deliveries(files: RunFiles, accepted: Iterable[Attempt]) -> list[tuple[int, int]]:
    """Return (when its order was due, µs from paid to delivered) of every order, by PostgreSQL's own clock."""
    due_us = {attempt.order_id: attempt.intended_us for attempt in accepted}
    paid_ms = {event.order_id: event.at_ms for event in files.evidence.postgres.events if event.after == "paid"}
    return [
        (due_us[one.order_id], max(0, one.delivered_ms - paid_ms[one.order_id]) * 1000)
        for one in files.evidence.postgres.deliveries
        if one.line == 1 and one.order_id in paid_ms and one.order_id in due_us
    ]


def effects(before: RunFiles, after: RunFiles, least: float = LEAST) -> list[Effect]:
    """Return every measure of two runs with the same arrivals; ``least`` is the smallest effect that counts."""
    windows = [sale_window(files.evidence.attempts) for files in (before, after)]
    span_us = round(before.run.seconds * 1_000_000)
    sides = [
        _Side(files, blocks_of(window.begin_us, span_us))
        for files, window in zip((before, after), windows, strict=True)
    ]
    return [_judged(one, sides[0].blocks.count, least) for one in _measures(*sides)]


def _measures(before: _Side, after: _Side) -> Iterable[_Measure]:
    for name in before.took:
        for percentile, share in PERCENTILES.items():
            few = min(len(before.took[name]), len(after.took[name]))
            if few and (percentile != "p999" or printable(few, share)):
                yield _Measure(
                    name=f"{name} {percentile.replace('p999', 'p99.9')}",
                    unit="us",
                    before=partial(before.values[name].quantile, share),
                    after=partial(after.values[name].quantile, share),
                    why_not="" if printable(few, share) else "too few values",
                )
    for name in ("accepted", "delivered"):
        yield _Measure(
            name=f"{name} / s",
            unit="per_s",
            before=Totals(getattr(before, name), before.seconds).quotient,
            after=Totals(getattr(after, name), after.seconds).quotient,
            lower_is_better=False,
        )
    yield _Measure(
        name="undecided arrivals",
        unit="share",
        before=Totals(before.undecided, before.arrivals).quotient,
        after=Totals(after.undecided, after.arrivals).quotient,
    )
    for role in _ROLES:
        spent = before.cpu_us(role), after.cpu_us(role)
        if spent[0] is not None and spent[1] is not None:
            yield _Measure(
                name=f"{role} CPU an order",
                unit="us_per_order",
                before=Totals(spent[0], before.accepted).quotient,
                after=Totals(spent[1], after.accepted).quotient,
            )


def _judged(measure: _Measure, blocks: int, least: float) -> Effect:
    before, after = (None, None) if measure.why_not else (measure.before(None), measure.after(None))
    change = after / before - 1 if before and after is not None else None
    span = None if measure.why_not or change is None else interval(measure.before, measure.after, blocks)
    why = measure.why_not
    if not why and before == after:
        change, span = 0.0, span or (0.0, 0.0)
    elif not why and span is None:
        why = "nothing to compare with" if change is None else "too short"
    says: Says = "not judged"
    if not why and change is not None and span is not None:
        says = _says(change, span, least, lower_is_better=measure.lower_is_better)
    return Effect(
        name=measure.name,
        unit=measure.unit,
        lower_is_better=measure.lower_is_better,
        before=before,
        after=after,
        change=change,
        interval=span,
        says=says,
        why=why,
    )


def _says(change: float, span: tuple[float, float], least: float, *, lower_is_better: bool) -> Says:
    low, high = span
    if abs(change) >= least and (low > 0 or high < 0):
        return "better" if (change < 0) == lower_is_better else "worse"
    return "no difference" if -least <= low and high <= least else "unclear"


def verdict(found: Iterable[Effect]) -> Says:
    """Return the first of worse, better, unclear and no difference that any measure is; not judged if none could be."""
    said = {effect.says for effect in found}
    order: tuple[Says, ...] = ("worse", "better", "unclear", "no difference")
    return next((one for one in order if one in said), "not judged")


METHOD: Final = (
    f"{CONFIDENCE:.0%} interval of the relative change by the paired block bootstrap (Künsch 1989; Davison and Hinkley "
    "1997, section 8.2; expanded percentile interval, Hesterberg 2015). It sees what varies within a run, not what "
    "varies from one run to the next: repeat what matters, in turns."
)
