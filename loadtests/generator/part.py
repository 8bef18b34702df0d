"""The part of a run that one process plays: every ``of``-th arrival of the same absolute plan.

Worker ``index`` of ``of`` takes the arrivals whose number leaves ``index`` when divided by ``of``. Numbers, instants
and what each arrival does are those of the whole plan, so the parts together are the run of one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from loadtests.generator.arrivals import Arrivals
from loadtests.generator.generated import Progress
from loadtests.generator.plan import Plan

AHEAD_MOST: Final = 200_000  # arrivals planned before the start, some 300 bytes each
AHEAD_S: Final = 2.0  # the time for it
AHEAD_OF_START_S: Final = 0.2  # the same where others wait too and the start is fixed


class CannotPlay(Exception):
    """A process cannot play its part; the text says why and what to do."""

    def __init__(self, why: str, code: int) -> None:
        """Take the reason and the exit code of its kind."""
        super().__init__(why)
        self.code = code


class Part(msgspec.Struct, frozen=True):
    """Which arrivals, and when the run's clock begins."""

    index: int = 0
    of: int = 1
    start_us: int = 0  # on this process's monotonic clock; 0: when the dispatcher starts
    start_unix_us: int = 0  # the same instant in µs since 1970, by the master's clock


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


def plan_of(part: Part, plan: Callable[[int], Plan], arrivals: int) -> Callable[[int], Plan]:
    """Return what an arrival of this part does, by its number in the part; the plan keeps the run's number.

    The first of the ``arrivals`` are planned here and now, within a time that is bounded: in the rush, between other
    work, each would cost twice as much and be late for it.
    """
    until_ns = time.monotonic_ns() + int((AHEAD_S if part.of == 1 else AHEAD_OF_START_S) * 1e9)
    known: list[Plan] = []
    while len(known) < min(arrivals, AHEAD_MOST) and time.monotonic_ns() < until_ns:
        known.append(plan(part.index + len(known) * part.of))
    count, index, of = len(known), part.index, part.of
    return lambda number: known[number] if number < count else plan(index + number * of)


def together(told: list[Progress]) -> Progress:
    """Return the progress of all workers as one: sums, and of what cannot be summed the worst."""
    return Progress(
        elapsed_s=max(one.elapsed_s for one in told),
        phase="sale" if any(one.phase == "sale" for one in told) else "drain",
        scheduled=sum(one.scheduled for one in told),
        sent=sum(one.sent for one in told),
        under_way=sum(one.under_way for one in told),
        accepted=sum(one.accepted for one in told),
        refused=sum(one.refused for one in told),
        sold=sum(one.sold for one in told),
        p99_us=max(one.p99_us for one in told),
        shed=sum(one.shed for one in told),
        cpu=max(one.cpu for one in told),
    )
