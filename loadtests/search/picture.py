"""The two pictures of a sweep as SVG text: latency against load with the knee, throughput against concurrency. Pure.

No script and no address: lines in the colours of the page's classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from loadtests.search.law import Law, Point
from loadtests.search.result import Level

WIDTH: Final = 720
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 16, 18, 44
_CURVE_POINTS: Final = 80
Scale = Callable[[float], float]


def latency_against_load(levels: Sequence[Level], budget_us: int, knee: float | None, answer: float | None) -> str:
    """Return p50 and p99 (with its 95 % interval) at each rate, both axes logarithmic."""
    shown = [one for one in levels if one.orders]
    if not shown:
        return ""
    values = [value for one in shown for value in (one.p50_us, one.p99_us, *(one.p99_interval_us or ()))]
    x = _logarithmic(shown[0].rate / 1.1, shown[-1].rate * 1.1, _LEFT, WIDTH - _RIGHT)
    low, high = min(*values, budget_us), max(*values, budget_us)
    y = _logarithmic(max(low, 1) / 1.3, high * 1.3, HEIGHT - _BOTTOM, _TOP)
    body = [_grid_y(y, value, f"{value / 1000:g} ms") for value in _decades(max(low, 1), high)]
    body += [_grid_x(x, one.rate, "") for one in shown]
    body += [_x_name(x(rate), f"{rate:,.0f}") for rate in _apart([one.rate for one in shown], x)]
    body.append(_across(y(budget_us), "budget", f"budget {budget_us / 1000:g} ms"))
    for name, rate in (("answer", answer), ("knee", knee)):
        if rate is not None and shown[0].rate <= rate <= shown[-1].rate:
            body.append(_upright(x(rate), name))
    for number, line in enumerate(([one.p50_us for one in shown], [one.p99_us for one in shown])):
        points = [(x(one.rate), y(max(value, 1))) for one, value in zip(shown, line, strict=True)]
        body.append(f'<path class="line s{number}" d="{_path(points)}"/>')
        body += [f'<circle class="dot s{number}" r="3" cx="{px:.1f}" cy="{py:.1f}"/>' for px, py in points]
    for one in shown:
        if one.p99_interval_us:
            ends = [y(max(value, 1)) for value in one.p99_interval_us]
            body.append(f'<path class="line s1 thin" d="M{x(one.rate):.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>')
    return _svg("Latency of accepted orders against load, both axes logarithmic", body, "arrivals a second")


def throughput_against_concurrency(points: Sequence[Point], law: Law | None) -> str:
    """Return every judged trial as a dot, and the fitted law as a line; the concurrency's axis is logarithmic."""
    shown = [point for point in points if point.concurrency > 0]
    if not shown:
        return ""
    low, high = min(one.concurrency for one in shown), max(one.concurrency for one in shown)
    most = max(one.throughput for one in shown) * 1.15
    x = _logarithmic(low / 1.2, high * 1.2, _LEFT, WIDTH - _RIGHT)
    y = _linear(0, most, HEIGHT - _BOTTOM, _TOP)
    step = _step(most)
    body = [_grid_y(y, step * n, f"{step * n:,.0f}/s") for n in range(int(most / step) + 1)]
    for value in _decades(low, high):
        body += [_grid_x(x, value, ""), _x_name(x(value), f"{value:g}")]
    if law is not None:
        ratio = (high / low) ** (1 / (_CURVE_POINTS - 1)) if high > low else 1.0
        at = [low * ratio**n for n in range(_CURVE_POINTS)]
        line = [(x(n), y(min(max(law.throughput(n), 0), most))) for n in at]
        body.append(f'<path class="line s1" d="{_path(line)}"/>')
    body += [
        f'<circle class="dot s0" r="3" cx="{x(one.concurrency):.1f}" cy="{y(one.throughput):.1f}"/>' for one in shown
    ]
    return _svg("Throughput against concurrency: trials and the fitted law", body, "requests under way at once")


def _linear(low: float, high: float, begin: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _logarithmic(low: float, high: float, begin: float, end: float) -> Scale:
    inner = _linear(math.log(low), math.log(high), begin, end)
    return lambda value: inner(math.log(value))


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within a range, only the powers where those would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [n * 10.0**power for power in powers for n in times if low <= n * 10.0**power <= high]


def _step(most: float) -> float:
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= most / 6)


def _apart(rates: Sequence[float], x: Scale) -> list[float]:
    """Return those whose names do not run into each other."""
    found: list[float] = []
    for rate in rates:
        if not found or x(rate) - x(found[-1]) > 46:
            found.append(rate)
    return found


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if n else 'M'}{px:.1f} {py:.1f}" for n, (px, py) in enumerate(points))


def _grid_y(y: Scale, value: float, name: str) -> str:
    level = y(value)
    return (
        f'<path class="grid" d="M{_LEFT} {level:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="tick" text-anchor="end" x="{_LEFT - 7}" y="{level + 4:.1f}">{escape(name)}</text>'
    )


def _grid_x(x: Scale, value: float, name: str) -> str:
    return f'<path class="grid" d="M{x(value):.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>' + (
        _x_name(x(value), name) if name else ""
    )


def _x_name(px: float, name: str) -> str:
    return f'<text class="tick" text-anchor="middle" x="{px:.1f}" y="{HEIGHT - _BOTTOM + 17}">{escape(name)}</text>'


def _across(level: float, kind: str, name: str) -> str:
    return (
        f'<path class="{kind}" d="M{_LEFT} {level:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="{kind}-name" x="{_LEFT + 6}" y="{level - 5:.1f}">{escape(name)}</text>'
    )


def _upright(px: float, name: str) -> str:
    return (
        f'<path class="mark" d="M{px:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="mark-name" text-anchor="end" x="{px - 5:.1f}" y="{_TOP + (12 if name == "knee" else 26)}">'
        f"{escape(name)}</text>"
    )


def _svg(title: str, body: Sequence[str], below: str) -> str:
    name = (
        f'<text class="tick" text-anchor="middle" x="{(_LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}">{escape(below)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}{name}</svg>"
    )
