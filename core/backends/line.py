"""After how long whoever is refused for overload should return: each gets a turn in a line that nobody stands in.

A fixed pause sends a flood back as it came. Here each of the refused is told to return when there will be room for
them: turns follow each other by virtual scheduling (ITU-T I.371), at a share of what is sold now. A burst is told to
come back within a few seconds, at half of what is sold; a flood of ten times what can be sold is spread over as long as
selling to it takes, and leaves room for those who come for the first time.

No places are held free: who comes anew is let in whenever there is room. A turn that nobody takes stays empty. Behind a
full line nobody can be promised anything; they are spread over all of it, for all at its end were the flood again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from typing import Final

from core.settings import RETRY_AFTER_MOST_S

_BURST_S: Final = 2.0  # turns within this follow each other
_BURST_SHARE: Final = 0.5  # at this share of what is sold
# And all later ones at this: half of what can be sold asked for anew and this together are two thirds of it. With three
# tenths it was four fifths and more, and a weak store's hiccups refused one in ten of those who had come back.
_SHARE: Final = 0.15
_LOOK_S: Final = 0.25  # a store that is weak is asked a few times a second
_STALE_S: Final = 1.0  # between refusals further apart than this the lane was not full all the time
_SMOOTHING: Final = 0.2
_AT_FIRST_PER_S: Final = 10_000.0  # of a worker that has refused nobody yet: too soon rather than too late
_LEAST_PER_S: Final = 50.0  # a store that hangs for a moment is no reason to send anybody away for minutes
_JITTER_S: Final = 2.0  # who is refused in the same moment has a turn in the same second


class Line:
    """The line of one worker. Refusals only come while its lane is full, so what it sends then is all that is sold."""

    __slots__ = ("_last_s", "_looked_s", "_now_s", "_per_s", "_sent", "_sent_before", "_weight")

    def __init__(self, sent: Callable[[], int], now_s: Callable[[], float] = time.monotonic) -> None:
        """``sent`` counts the orders sent to the store so far."""
        self._sent, self._now_s = sent, now_s
        self._per_s, self._weight = _AT_FIRST_PER_S, 1.0
        self._last_s = self._looked_s = now_s()  # the last turn that was given
        self._sent_before = sent()

    def join(self, count: int) -> list[int]:
        """Give so many a turn; return after how many whole seconds each is to come back.

        From 1 to ``RETRY_AFTER_MOST_S``. Those who join together stand together, and are spread by chance.
        """
        now_s = self._now_s()
        if now_s - self._looked_s >= _LOOK_S:
            self._look(now_s)
        begin_s = max(self._last_s - now_s, 0.0)
        soon = min(float(count), max(_BURST_S - begin_s, 0.0) * self._per_s * _BURST_SHARE)
        end_s = begin_s + soon / (self._per_s * _BURST_SHARE) + (count - soon) / (self._per_s * _SHARE)
        self._last_s = now_s + min(end_s, RETRY_AFTER_MOST_S)
        if end_s > RETRY_AFTER_MOST_S:
            begin_s = 0.0
        span_s = end_s - begin_s + _JITTER_S
        return [min(int(1 + begin_s + random() * span_s), RETRY_AFTER_MOST_S) for _ in range(count)]

    def _look(self, now_s: float) -> None:
        elapsed_s, sent, before = now_s - self._looked_s, self._sent(), self._per_s
        if elapsed_s <= _STALE_S:
            seen = max((sent - self._sent_before) / elapsed_s, _LEAST_PER_S)
            self._per_s += (seen - self._per_s) * self._weight
            self._weight = _SMOOTHING
        else:  # what was long ago may have been a weak hour
            self._per_s, self._weight = max(before, _AT_FIRST_PER_S), 1.0
        self._last_s = now_s + max(self._last_s - now_s, 0.0) * before / self._per_s  # as many stand in it as before
        self._looked_s, self._sent_before = now_s, sent
