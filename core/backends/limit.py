"""How many orders one worker may have under way, found from measured time.

The method is Gradient2 of Netflix's concurrency-limits (Apache-2.0): after each answer

    new = limit * gradient + sqrt(limit),   gradient = clamp(target / latency, 1/2, 1),   limit += (new - limit) * 0.2

and only while the limit is used: what nobody asks for proves nothing. sqrt(limit) is the queue that is always allowed,
so the limit finds its way up; at rest latency is a little over the target.

Six things differ, each for a failure that the original has here:

- The target is a figure (``TARGET_S``), not the long-term average of the latency: in a long flood the average follows
  the queue it should judge, and the limit grows without end.
- A call may be slower than the figure allows by itself (a slow fsync, a core shared with others). No limit makes it
  faster, and one that shrinks for it only empties the batches that carry it. So the target is not below 2.5 times what
  a call alone took on average lately, and of a store that is slow by itself 4 times: its calls are uneven, a limit
  shrinks for each that took longer than usual and grows by its root only, and so it came to rest at a third of what
  the store could carry, or not, by chance. There is an end to it (``TARGET_MOST_S``).
- The lateness of the event loop is part of the latency: for so long a request lay in the kernel before anyone saw it.
  It is no part of the call: a busy loop sees a reply late, and would take its own slowness for the store's.
- A step is for so much time, not for a call (``_STEP_S``): with a store that takes half a second for a call, a fifth of
  the way at each would let buyers wait for ten seconds before the limit has found its place. How long a call takes is
  the average, so that one stall is not taken for a slow store.
- With a store that was seen to be slow by itself, or nearly so, the limit is never more than four times what was under
  way lately, as in RFC 7661 a window that is not used is not kept: a flood would fill it with buyers who wait for
  seconds before the first call that is judged has come back.
- It moves while a fourth of it is used: with the high limit of a quiet day a slow machine would let buyers wait for
  half of it. Below a fourth a hiccup of a machine at rest changes nothing.

It begins at the ceiling: a limit is for a server that was seen to be slow.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

TARGET_S: Final = 0.04  # two fifths of the 100 ms within which 99 of 100 orders shall be answered in full load
TARGET_MOST_S: Final = 0.2
_CALLS: Final = 2.5  # an order waits for the call under way and for its own; the rest is room
_CALLS_SLOW: Final = 4.0  # the same of a slow store
_CALL_SMOOTHING: Final = 0.1
_USED: Final = 0.25  # less proves nothing
_GRADIENT_LEAST: Final = 0.5
_SMOOTHING: Final = 0.2
_SPARE: Final = 4
_SPARE_FROM_S: Final = 0.03  # sooner than what counts as slow: a calm store at 38 ms let in 2,000 of a flood at once
_USED_KEPT: Final = 0.9  # a call
_STEP_S: Final = 0.02  # calls that take longer are worth several steps


class Limit:
    """One lane's limit. Pure: it is told what was measured; seconds on any one clock."""

    __slots__ = ("_call_s", "_exact", "_used", "ceiling", "floor", "late_s", "most")

    def __init__(self, floor: int, ceiling: int) -> None:
        """Allow from ``floor`` to ``ceiling``; begin at the ceiling."""
        self.floor, self.ceiling = floor, ceiling
        self.most = ceiling  # that may be under way now
        self.late_s = 0.0  # of the event loop, lately; see ``loop_was_late``
        self._exact = float(ceiling)
        self._call_s: float | None = None
        self._used = 0.0  # the most that was under way lately

    @property
    def is_slow(self) -> bool:
        """Whether a call alone took longer on average lately than an order may take in all."""
        return self._call_s is not None and self._call_s > TARGET_S

    def loop_was_late(self, late_s: float) -> None:
        """Take how much later than asked a timer came; a great lateness is forgotten by halves."""
        self.late_s = max(late_s, self.late_s / 2, 0.0)

    def answered(self, waited_s: float, call_s: float, under_way: int) -> None:
        """Take a batch: age of its oldest item at the answer, time of the call alone, how many were under way then."""
        call_s = max(call_s - self.late_s, 0.0)
        usual_s = call_s if self._call_s is None else self._call_s
        self._call_s = usual_s = usual_s + (call_s - usual_s) * _CALL_SMOOTHING
        self._used = max(float(under_way), self._used * _USED_KEPT)
        moved = self._exact
        if under_way >= self._exact * _USED:
            calls = _CALLS_SLOW if self.is_slow else _CALLS
            target_s = max(TARGET_S, min(calls * usual_s, TARGET_MOST_S))
            gradient = max(_GRADIENT_LEAST, min(1.0, target_s / max(waited_s + self.late_s, 1e-9)))
            wanted = self._exact * gradient + sqrt(self._exact)
            part = 1 - (1 - _SMOOTHING) ** max(1.0, usual_s / _STEP_S)
            moved += (wanted - self._exact) * part
        if usual_s > _SPARE_FROM_S:
            moved = min(moved, max(self._used, self.floor / 2) * _SPARE)
        self._exact = min(max(moved, self.floor), self.ceiling)
        self.most = int(self._exact)
