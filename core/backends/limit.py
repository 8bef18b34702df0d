"""How many orders one worker may have under way, found from measured time.

The method is Gradient2 of Netflix's concurrency-limits (Apache-2.0): after each answer

    new = limit * gradient + sqrt(limit),   gradient = clamp(target / latency, 1/2, 1),   limit += (new - limit) * 0.2

and only while at least half of the limit is used: what nobody asks for proves nothing, in either direction. sqrt(limit)
is the queue that is always allowed, so the limit finds its way up; at rest latency is a little over the target.

Three things differ, each for a failure that the original has here:

- The target is a figure (``TARGET_S``), not the long-term average of the latency: in a long flood the average follows
  the queue it should judge, and the limit grows without end.
- A store may be slower than the figure by itself (a disk with a slow fsync). No limit makes it faster, and one that
  shrinks for it would only empty the batches that carry it. So the target is never below three times what the call
  alone takes at its best lately; a call is bounded by its batch, so this cannot run away as the average does.
- The lateness of the event loop is part of the latency: for so long a request lay in the kernel before anyone saw it.

It begins at the ceiling: a limit is for a server that was seen to be slow.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

TARGET_S: Final = 0.025  # a quarter of the 100 ms a buyer's order may take; the rest is for the answer and its way
_CALLS: Final = 3.0  # an order waits for the call under way and for its own; the third is room
_BEST_FORGETS: Final = 0.03  # how far the best call moves towards a slower one: some thirty batches
_GRADIENT_LEAST: Final = 0.5
_SMOOTHING: Final = 0.2


class Limit:
    """One lane's limit. Pure: it is told what was measured; seconds on any one clock."""

    __slots__ = ("_best_s", "_exact", "ceiling", "floor", "late_s", "most")

    def __init__(self, floor: int, ceiling: int) -> None:
        """Allow from ``floor`` to ``ceiling``; begin at the ceiling."""
        self.floor, self.ceiling = floor, ceiling
        self.most = ceiling  # that may be under way now
        self.late_s = 0.0  # of the event loop, lately; see ``loop_was_late``
        self._exact = float(ceiling)
        self._best_s: float | None = None

    def loop_was_late(self, late_s: float) -> None:
        """Take how much later than asked a timer came; a great lateness is forgotten by halves."""
        self.late_s = max(late_s, self.late_s / 2, 0.0)

    def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
        """Take a batch: age of its oldest item at the answer, time of the call alone, how many were under way then."""
        best = self._best_s
        if best is None or call_s < best:
            best = call_s
        self._best_s = best = best + (call_s - best) * _BEST_FORGETS
        if under_way < self._exact / 2:
            return
        latency_s = waited_s + self.late_s
        target_s = max(TARGET_S, _CALLS * best)
        gradient = 1.0 if latency_s <= target_s else max(_GRADIENT_LEAST, target_s / latency_s)
        wanted = self._exact * gradient + sqrt(self._exact)
        moved = self._exact + (wanted - self._exact) * _SMOOTHING
        self._exact = min(max(moved, self.floor), self.ceiling)
        self.most = int(self._exact)
