"""The part of a run that one process plays: every ``of``-th arrival of the same absolute plan.

Worker ``index`` of ``of`` takes the arrivals whose number leaves ``index`` when divided by ``of``. Numbers, instants
and what each arrival does are those of the whole plan, so the parts together are the run of one process.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from loadtests.generator.arrivals import Arrivals
from loadtests.generator.plan import Plan


class Part(msgspec.Struct, frozen=True):
    """Which arrivals, and when the run's clock begins."""

    index: int = 0
    of: int = 1
    start_unix_us: int = 0  # µs since 1970; 0: when the dispatcher starts


class PartOfArrivals:
    """The plan of one part, numbered from 0."""

    __slots__ = ("_index", "_of", "_whole", "total")

    def __init__(self, whole: Arrivals, part: Part) -> None:
        """Take the whole plan and the part."""
        self._whole, self._index, self._of = whole, part.index, part.of
        self.total = len(range(part.index, whole.total, part.of))

    def due_us(self, number: int) -> int:
        """Return when an arrival of this part is due, in microseconds since the run's start."""
        return self._whole.due_us(self._index + number * self._of)

    def pace(self, elapsed_us: int, sent: int) -> tuple[int, bool]:
        """Return (µs to wait for the next arrival of this part, whether to stop)."""
        return self._whole.pace(elapsed_us, self._index + sent * self._of)


def plan_of(part: Part, plan: Callable[[int], Plan]) -> Callable[[int], Plan]:
    """Return what an arrival of this part does, by its number in the part; the plan keeps the run's number."""
    if part.of == 1:
        return plan
    return lambda number: plan(part.index + number * part.of)
