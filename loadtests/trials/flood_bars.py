"""What a flood is judged by: the bars, what makes a run void, and how both are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from loadtests.machine import Machine
from loadtests.trials.flood import BUCKET_S, Told
from loadtests.trials.slices import PERIOD_S, Slices

REFUSED_P99_MS: Final = 50.0
NORMAL_S: Final = 5.0
DRIVER_MOST: Final = 0.85  # of its core; beyond it the load is late by itself
_NORMAL_MS: Final = 50.0  # accepted p99 of half a second, unless it was three times that before the flood
_PEAK_DOUBT: Final = 1.1
_SLICES_LATE_MOST: Final = 0.05
_WORDS: Final = {"store": "the store", "core": "the shop, all of it,"}


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
    manners: str
    slices: Slices
    peak_per_s: float
    phases: list[Told]
    beside: dict[str, dict[str, list[float]]]  # phase -> callback and status -> count, p50, p99, greatest (ms)
    bars: list[Bar]
    void: list[str]  # why nothing can be said; empty: it can


def bars_of(peak: float, phases: Sequence[Told], times: Sequence[float], beside_refused: int) -> list[Bar]:
    """Return what is judged: goodput of each flood, how soon the refused were told, how soon all was normal again.

    ``beside_refused``: of the payments and questions beside it all, none of which a flood of orders may turn away.
    """
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
    bars.append(Bar("payments and questions refused", float(beside_refused), 0.0, True))
    bars.append(Bar("answers that were neither", float(sum(sum(one.others.values()) for one in phases)), 0.0, True))
    return bars


def void_of(peak: float, phases: Sequence[Told], times: Sequence[float], slices: Slices) -> list[str]:
    """Return why nothing can be said: the flood was none, or the load or the slices were not what was asked for."""
    why = []
    if slices.late > _SLICES_LATE_MOST:
        why.append(f"{slices.late:.0%} of the slices began or ended more than a millisecond late")
    for at, factor in enumerate(times):
        flood = phases[2 + 2 * at]
        sent = flood.sent / flood.seconds / peak
        if sent < factor:
            why.append(f"{flood.name}: only {sent:.1f} times the peak was sent; every connection waited for an answer")
        if flood.driver_share > DRIVER_MOST:
            why.append(f"{flood.name}: the load used {flood.driver_share:.0%} of its core")
        if not flood.refused:
            why.append(f"{flood.name}: nobody was refused, so nothing is known of refusals")
        if flood.accepted / flood.seconds > _PEAK_DOUBT * peak:
            why.append(
                f"{flood.name}: it sold more than the peak: that was taken in a slow moment, or too few asked then"
            )
    return why


def _least(factor: float) -> float:
    return 0.9 if factor <= 5 else 0.8


def table(result: Result) -> str:
    """Return the result for a terminal."""
    peak, lines, slices = result.peak_per_s, [], result.slices
    lines.append(f"  {result.machine.cpu}, {result.machine.cores} cores; the shop on one, the load on the other")
    lines.append(f"  {_WORDS[slices.small]} has {slices.given:.1%} of the time, in slices of {1000 * PERIOD_S:g} ms")
    lines.append(
        f"  peak {peak:,.0f} orders/s; floods over {result.connections:,} connections; who is refused "
        f"{'comes back after Retry-After' if result.manners == 'honour' else 'comes back at once'}"
    )
    lines.append("")
    lines.append("                                             accepted, ms     refused, ms    of a core      p99, ms")
    lines.append(
        "  phase        asked   sent   sold refused/s    p50    p99      p50    p99   shop  load   paid status"
        "  waiting  return   in s"
    )
    for one in result.phases:
        beside = result.beside.get(one.name, {})
        paid, status = (beside.get(kind, [0.0] * 3)[2] for kind in ("callback", "status"))
        lines.append(
            f"  {one.name:<11} {one.asked / one.seconds / peak:5.2f}x {one.sent / one.seconds / peak:5.2f}x "
            f"{one.accepted / one.seconds / peak:5.2f}x {one.refused / one.seconds:8,.0f} "
            f"{one.accepted_ms[0]:7.1f} {one.accepted_ms[1]:6.1f} {one.refused_ms[0]:8.1f} {one.refused_ms[1]:6.1f} "
            f"{one.shop_share:6.0%} {one.driver_share:5.0%} {paid:6.1f} {status:6.1f} "
            f"{one.waiting:8,} {one.returning:7,} {one.again_s:6.0f}"
        )
    lines.append("")
    for bar in result.bars:
        sign, word = ("<=" if bar.at_most else ">="), ("met" if bar.met else "MISSED")
        lines.append(f"  {bar.name:<44} {bar.value:8.2f}   {sign} {bar.bar:<5g} {word}")
    lines += [f"  VOID: {why}" for why in result.void]
    return "\n".join(lines)
