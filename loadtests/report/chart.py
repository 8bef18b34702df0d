"""Charts as SVG text, by small pure functions: no script, no font, no address; colours come from the page's
classes.

A chart is a box of 720 by 260 units with its axes drawn for the data. Series are ``s0`` to ``s6`` in the
page's style, so light and dark are the page's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 34
COLOURS: Final = 7  # classes s0..s6
Point = tuple[float, float]
Scale = Callable[[float], float]


def linear(low: float, high: float, begin: float, end: float) -> Scale:
    """Return the scale that maps low..high onto begin..end."""
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def logarithmic(low: float, high: float, begin: float, end: float) -> Scale:
    """Return the scale that maps the logarithms of low..high onto begin..end."""
    inner = linear(math.log10(low), math.log10(high), begin, end)
    return lambda value: inner(math.log10(min(max(value, low), high)))


def nice_ticks(high: float, most: int = 5) -> list[float]:
    """Return round numbers from 0 to at least ``high``, a few of them."""
    if high <= 0:
        return [0.0, 1.0]
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * base for base in (1, 2, 2.5, 5, 10) if power * base >= rough * 0.999)
    return [step * n for n in range(math.ceil(high / step - 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number as an axis says it: 1,500 as 1.5k."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def duration(us: float | None) -> str:
    """Return microseconds with a fitting unit; a dash where there is no figure to print."""
    if us is None:
        return "–"
    if us < 1_000:
        return f"{us:.0f} µs"
    if us < 1_000_000:
        return f"{us / 1000:.3g} ms" if us < 999_500 else "1 s"
    return f"{us / 1_000_000:.3g} s"


def stacked(
    bands: Sequence[tuple[str, Sequence[float]]], at_s: Sequence[float], marks_s: Sequence[float], title: str
) -> str:
    """Return a chart of bands on top of each other over time.

    Args:
        bands: (name, value in each bucket), the lowest first.
        at_s: where each bucket begins, in seconds, and the end of the last.
        marks_s: instants to mark.
        title: what a screen reader says.
    """
    buckets = len(at_s) - 1
    totals = [sum(values[n] for _, values in bands) for n in range(buckets)]
    ticks = nice_ticks(max(totals, default=0.0))
    x, y = _plane(at_s[0], at_s[-1], ticks[-1])
    body = [_y_axis([(y(tick), short(tick)) for tick in ticks]), _seconds_axis(at_s, x)]
    floor = [0.0] * buckets
    for number, (name, values) in enumerate(bands):
        roof = [low + value for low, value in zip(floor, values, strict=True)]
        upper = [(x(at_s[n + side]), y(roof[n])) for n in range(buckets) for side in (0, 1)]
        lower = [(x(at_s[n + side]), y(floor[n])) for n in range(buckets) for side in (0, 1)]
        path = _path([*upper, *reversed(lower)])
        body.append(f'<path class="area s{number % COLOURS}" d="{path}Z"><title>{escape(name)}</title></path>')
        floor = roof
    return _svg(title, [*body, *_marks(marks_s, at_s, x)])


def lines_over_time(
    lines: Sequence[tuple[str, Sequence[float | None]]], at_s: Sequence[float], marks_s: Sequence[float], title: str
) -> str:
    """Return a chart of latencies in µs over time, on a log axis; None leaves a gap."""
    known = [value for _, values in lines for value in values if value is not None and value > 0]
    x, y, ticks = _latency_plane(at_s[0], at_s[-1], known)
    body = [_y_axis([(y(tick), duration(tick)) for tick in ticks]), _seconds_axis(at_s, x)]
    middle = [(a + b) / 2 for a, b in pairwise(at_s)]
    for number, (name, values) in enumerate(lines):
        for piece in _pieces(middle, values):
            path = _path([(x(second), y(value)) for second, value in piece])
            body.append(f'<path class="line s{number % COLOURS}" d="{path}"><title>{escape(name)}</title></path>')
            if len(piece) == 1:
                body.append(f'<circle class="dot s{number % COLOURS}" r="2" {_at(x(piece[0][0]), y(piece[0][1]))}/>')
    return _svg(title, [*body, *_marks(marks_s, at_s, x)])


def spectrum(lines: Sequence[tuple[str, Sequence[Point]]], budget_us: float | None, title: str) -> str:
    """Return the percentile spectrum: (1 / (1 - quantile), µs), on two log axes."""
    points = [point for _, line in lines for point in line]
    nines = max((point[0] for point in points), default=10.0)
    known = [point[1] for point in points if point[1] > 0] + ([budget_us] if budget_us else [])
    _, y, ticks = _latency_plane(0, 1, known)
    x = logarithmic(1, max(nines, 10.0), _LEFT, WIDTH - _RIGHT)
    names = [(1.0, "0 %"), (2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %")]
    names += [(1e5, "99.999 %")]
    body = [_y_axis([(y(tick), duration(tick)) for tick in ticks])]
    body += [_x_tick(x(at), name) for at, name in names if at <= max(nines, 10.0)]
    for number, (name, line) in enumerate(lines):
        path = _path([(x(at), y(value)) for at, value in line if value > 0])
        if path:
            body.append(f'<path class="line s{number % COLOURS}" d="{path}"><title>{escape(name)}</title></path>')
    if budget_us and max(nines, 10.0) >= 100.0:
        left, right, level = x(50.0), x(min(200.0, max(nines, 10.0))), y(budget_us)
        body.append(f'<path class="budget" d="{_path([(left, level), (right, level)])}"/>')
        body.append(f'<text class="budget-name" text-anchor="end" {_at(left - 4, level + 4, "")}>budget</text>')
    return _svg(title, body)


# --- the pieces ---------------------------------------------------------------------------------------------------


def _plane(x_low: float, x_high: float, y_high: float) -> tuple[Scale, Scale]:
    return linear(x_low, x_high, _LEFT, WIDTH - _RIGHT), linear(0, y_high, HEIGHT - _BOTTOM, _TOP)


def _latency_plane(x_low: float, x_high: float, known: Sequence[float]) -> tuple[Scale, Scale, list[float]]:
    low = 10.0 ** math.floor(math.log10(min(known, default=1_000.0)))
    high = 10.0 ** math.ceil(math.log10(max(known, default=100_000.0)))
    high = max(high, low * 10)
    ticks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    x = linear(x_low, x_high, _LEFT, WIDTH - _RIGHT)
    return x, logarithmic(low, high, HEIGHT - _BOTTOM, _TOP), ticks


def _pieces(at: Sequence[float], values: Sequence[float | None]) -> list[list[Point]]:
    """Return the runs of values between gaps."""
    runs: list[list[Point]] = [[]]
    for second, value in zip(at, values, strict=True):
        if value is not None and value > 0:
            runs[-1].append((second, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(points: Sequence[Point]) -> str:
    return "".join(f"{'L' if n else 'M'}{px:.1f} {py:.1f}" for n, (px, py) in enumerate(points))


def _at(px: float, py: float, circle: str = "c") -> str:
    return f'{circle}x="{px:.1f}" {circle}y="{py:.1f}"'


def _y_axis(ticks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for level, name in ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {level:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" text-anchor="end" {_at(_LEFT - 7, level + 4, "")}>{escape(name)}</text>')
    return "".join(parts)


def _x_tick(px: float, name: str) -> str:
    return (
        f'<path class="grid" d="M{px:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="tick" text-anchor="middle" {_at(px, HEIGHT - _BOTTOM + 18, "")}>{escape(name)}</text>'
    )


def _seconds_axis(at_s: Sequence[float], x: Scale) -> str:
    high = at_s[-1]
    return "".join(_x_tick(x(tick), f"{tick:g} s") for tick in nice_ticks(high, 8) if tick <= high)


def _marks(marks_s: Sequence[float], at_s: Sequence[float], x: Scale) -> list[str]:
    inside = [(n, second) for n, second in enumerate(marks_s, 1) if at_s[0] <= second <= at_s[-1]]
    return [
        f'<path class="mark" d="M{x(second):.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="mark-name" text-anchor="middle" {_at(x(second), _TOP - 3, "")}>{n}</text>'
        for n, second in inside
    ]


def _svg(title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )
