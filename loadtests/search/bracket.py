"""The search for the highest rate that keeps a budget: the trials so far in, the next rate or the answer out.
Pure.

Method, in three parts:

- *Geometric bracketing*: from the lowest rate, doubled after each trial that passes, until one breaks the budget.
- *Bisection* of the bracket at its geometric middle, until its ends lie within the tolerance of each other.
- Each rate is judged by Wald's *sequential probability ratio test* (A. Wald, "Sequential Tests of Statistical
  Hypotheses", Annals of Mathematical Statistics 16, 1945): trials are repeated until passes or fails lead by two.
  If a rate below the limit passes at least 8 trials in 10 and one above it at most 2 in 10, such a word is wrong 1
  time in 17 (1 / (1 + (0.8 / 0.2)²)).

A fail is repeated at once, for it would close everything above it. A pass is believed until the end: the rate that
is to be the answer is then tried until it leads by two, and if it does not, the search goes on below it. A void
trial says nothing of the server; a rate that gave three of them bounds the search as *not judged*, never as broken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Judgement = Literal["pass", "fail", "void"]
Standing = Literal["open", "kept", "broken", "not_judged"]
End = Literal["bracketed", "at_least", "generator", "none_kept", "out_of_bounds"]

LEAD: Final = 2  # passes ahead of fails, or behind, that decide a rate
WRONG_SHARE: Final = 1 / (1 + (0.8 / 0.2) ** LEAD)
JUDGED_MOST: Final = 5  # trials of one rate; one that is torn after so many is not kept
VOIDS_MOST: Final = 3  # void trials of one rate before the search leaves it
STEP: Final = 2.0  # of the geometric bracketing


class Tried(msgspec.Struct, frozen=True):
    """One trial: the rate asked for, arrivals a second, and how it was judged."""

    rate: float
    judgement: Judgement


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Where to search: rates a second, how close is close enough (a ratio above 1), and how many trials at most."""

    lowest: float
    highest: float
    tolerance: float = 1.1
    trials_most: int = 40


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the search found."""

    rate: float | None  # the highest rate that keeps the budget; None: none does
    confirmed: bool  # it led by two passes
    above: float | None  # the lowest rate above it that is not kept, or could not be judged
    end: End


def standing(judgements: Sequence[Judgement]) -> Standing:
    """Return what the trials of one rate say together."""
    lead, judged = _lead(judgements), sum(one != "void" for one in judgements)
    if lead >= LEAD:
        return "kept"
    if lead <= -LEAD or judged >= JUDGED_MOST:
        return "broken"
    return "not_judged" if len(judgements) - judged >= VOIDS_MOST else "open"


def search(tried: Sequence[Tried], bounds: Bounds, *, out_of_time: bool = False) -> float | Answer:
    """Return the rate to try next, or the answer.

    Args:
        tried: every trial so far, in order.
        bounds: where to search.
        out_of_time: no further trial may be made.
    """
    if not tried:
        return bounds.lowest
    by_rate: dict[float, list[Judgement]] = {}
    for one in tried:
        by_rate.setdefault(one.rate, []).append(one.judgement)
    standings = {rate: standing(judgements) for rate, judgements in by_rate.items()}
    ceiling = min((rate for rate, says in standings.items() if says in ("broken", "not_judged")), default=None)
    passed = [
        rate
        for rate, judgements in by_rate.items()
        if _lead(judgements) > 0 and standings[rate] != "broken" and (ceiling is None or rate < ceiling)
    ]
    low = max(passed, default=None)
    following = _following(tried[-1].rate, by_rate, standings, low, ceiling, bounds)
    if following is None:
        return _answer(low, ceiling, standings, bounds)
    if out_of_time or len(tried) >= bounds.trials_most:
        sure = [rate for rate in passed if standings[rate] == "kept"]
        best = max(sure, default=low)
        return Answer(rate=best, confirmed=bool(sure), above=ceiling, end="out_of_bounds")
    return following


def _following(
    last: float,
    by_rate: dict[float, list[Judgement]],
    standings: dict[float, Standing],
    low: float | None,
    ceiling: float | None,
    bounds: Bounds,
) -> float | None:
    """Return the next rate, or None when there is nothing left to try."""
    reachable = ceiling is None or last < ceiling
    if reachable and standings[last] == "open" and _lead(by_rate[last]) <= 0:
        return last
    if low is None:
        return None if ceiling == bounds.lowest else bounds.lowest
    if ceiling is None and low < bounds.highest:
        return min(low * STEP, bounds.highest)
    if ceiling is not None and ceiling / low > bounds.tolerance:
        middle = between(low, ceiling)
        if low < middle < ceiling:
            return middle
    return low if standings[low] == "open" else None


def _answer(low: float | None, ceiling: float | None, standings: dict[float, Standing], bounds: Bounds) -> Answer:
    end: End = "bracketed"
    if ceiling is not None and standings[ceiling] == "not_judged":
        end = "generator"
    elif low is None:
        end = "none_kept"
    elif ceiling is None:
        end = "at_least"
    return Answer(rate=low, confirmed=low is not None and standings[low] == "kept", above=ceiling, end=end)


def between(low: float, high: float) -> float:
    """Return the geometric middle of two rates, rounded to two digits of the gap between them."""
    middle = math.sqrt(low * high)
    digit = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return round(round(middle / digit) * digit, 6)


def _lead(judgements: Sequence[Judgement]) -> int:
    return sum({"pass": 1, "fail": -1, "void": 0}[one] for one in judgements)
