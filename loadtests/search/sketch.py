"""A sweep on one screen of a terminal: latency against load as bars, the answer, and why not double. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from loadtests.search.law import Fit
from loadtests.search.result import Level, Sweep, sentence

BAR: Final = 32


def sketch(sweep: Sweep) -> str:
    """Return the lines to print, with a line feed at the end."""
    lines = [f"SWEEP   {sentence(sweep.answer, sweep.budget)}", ""]
    lines += bars(sweep.levels, sweep.budget.p99_us, sweep.answer.rate, sweep.knee)
    lines += ["", f"Why not double?  limiter: {sweep.limiter.name}"]
    lines += [f"  {said}" for said in sweep.limiter.sentences[:5]]
    lines += ["", law_line(sweep.law, sweep.law_why_not)]
    if sweep.answer.rate is not None:
        lines += ["", f"correctness at that rate: {sweep.again}"]
    return "\n".join(lines) + "\n"


def bars(levels: Sequence[Level], budget_us: int, answer: float | None, knee: float | None) -> list[str]:
    """Return a line a rate: the p99 as a bar on a log axis, with the budget as a mark in it."""
    shown = [one for one in levels if one.orders]
    low = min([one.p99_us for one in shown] + [budget_us], default=1) / 2
    high = max([one.p99_us for one in shown] + [budget_us], default=1) * 1.1
    lines = [f"{'rate':>9}  {'p50':>9}  {'p99, 95 %, of n':>22}  {'(log axis; ┆ is the budget)':<{BAR}}  passed"]
    for one in levels:
        if not one.orders:
            lines.append(f"{one.rate:>7,.0f}/s  {'–':>9}  {'–':>22}  {'':<{BAR}}  void × {one.voids}")
            continue
        cells = ["█"] * _cell(one.p99_us, low, high)
        cells += [" "] * (BAR - len(cells))
        cells[min(BAR - 1, _cell(budget_us, low, high))] = "┆"
        notes = [f"{one.passes}/{one.passes + one.fails}", found(one) if one.standing != "open" else ""]
        notes += [f"void × {one.voids}"] if one.voids else []
        notes += ["◄ answer"] if one.rate == answer else []
        notes += ["◄ knee"] if one.rate == knee else []
        p99 = f"{p99_said(one)} ms of {one.orders:,}"
        bar = "".join(cells)
        lines.append(f"{one.rate:>7,.0f}/s  {_ms(one.p50_us):>9}  {p99:>22}  {bar}  {' '.join(filter(None, notes))}")
    return lines


def p99_said(level: Level) -> str:
    """Return a p99 as its 95 % interval in ms, for a trial's orders hardly ever allow one figure; "–": no interval."""
    if level.p99_interval_us is None:
        return "–"
    low, high = level.p99_interval_us
    return f"{low / 1000:,.1f}–{high / 1000:,.1f}"


def found(level: Level) -> str:
    """Return what was found of a rate, in words."""
    if level.standing == "open":
        return "passed" if level.passes > level.fails else "open"
    return level.standing.replace("_", " ")


def law_line(fit: Fit | None, why_not: str) -> str:
    """Return the scalability law in one line, or why there is none."""
    if fit is None:
        return f"Universal scalability law: {why_not}"
    law, peak = fit.law, fit.law.peak
    low, high = fit.intervals["sigma"]
    text = f"Universal scalability law: λ {law.lambda_per_s:,.0f}/s  σ {law.sigma:.4f} ({low:.4f}–{high:.4f})"
    low, high = fit.intervals["kappa"]
    text += f"  κ {law.kappa:.2g} ({low:.2g}–{high:.2g})  residual {fit.residual:.0%} of {fit.points} trials"
    return text + (f"; peak {peak[1]:,.0f}/s at {peak[0]:,.0f} at once" if peak else "; no peak in sight")


def _cell(value_us: float, low: float, high: float) -> int:
    return max(1, min(BAR, round(math.log(max(value_us, low) / low) / math.log(high / low) * BAR)))


def _ms(value_us: float) -> str:
    return f"{value_us / 1000:,.1f} ms"
