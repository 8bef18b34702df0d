"""How much the memory of each part grew while the sale ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from loadtests.record.summary import Budgets, Window
from loadtests.record.timeline import Sample

LOOKS_LEAST: Final = 3  # in each of the two quarters


def growth(samples: Sequence[Sample], window: Window) -> dict[str, int]:
    """Return by role how many bytes of resident memory came on from the second quarter of the sale to the last.

    The first quarter is left out: caches and pools fill then. Medians, so that one look does not decide.
    """
    quarter = (window.end_us - window.begin_us) / 4
    early: dict[str, list[int]] = {}
    late: dict[str, list[int]] = {}
    for sample in samples:
        part = (sample.at_us - window.begin_us) / max(quarter, 1)
        into = early if 1 <= part < 2 else late if 3 <= part < 4 else None
        if into is not None:
            for role, rss in sample.rss_bytes.items():
                into.setdefault(role, []).append(rss)
    return {
        role: round(median(late[role]) - median(early[role]))
        for role in sorted(early.keys() & late.keys())
        if min(len(early[role]), len(late[role])) >= LOOKS_LEAST
    }


def grown(budgets: Budgets, found: dict[str, int]) -> Iterable[str]:
    """Yield a sentence for each part that grew beyond its budget, or whose memory nobody saw."""
    for role, most in budgets.rss_growth_bytes.items():
        came = found.get(role)
        if came is None:
            yield f"The memory of {role}, which has a budget, was not measured often enough."
        elif came > most:
            yield f"{role} grew by {came / 2**20:.1f} MiB while the sale ran; the budget is {most / 2**20:.1f} MiB."
