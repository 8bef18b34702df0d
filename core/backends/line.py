"""After how long whoever is refused for overload should return: each gets a place in a line that nobody stands in.

A fixed pause sends a flood back as it came. Here each of the refused is told to return when there will be room for
them: the line is a leaky bucket (Turner 1986) into which every refusal puts one, and which runs out at a share of what
is sold now. So a short burst is told to come back in a second or two and finds room; a flood of ten times what can be
sold is spread over as long as selling to it takes, and leaves room for those who come for the first time meanwhile.

It holds no places free: who comes anew is let in whenever there is room, and who does not return costs nothing. Behind
a full line nobody can be promised anything; they are spread over all of it, for all at its end were the flood again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from typing import Final

from core.settings import RETRY_AFTER_MOST_S

# Of what is sold. Half of what can be sold asked for anew and this together are two thirds: with three tenths it was
# four fifths and more, and a weak store's hiccups refused one in ten of those who had come back.
_SHARE: Final = 0.15
_LOOK_S: Final = 0.25  # a store that is weak is asked a few times a second
_STALE_S: Final = 1.0  # between refusals further apart than this the lane was not full all the time
_SMOOTHING: Final = 0.2
_AT_FIRST_PER_S: Final = 1_000.0
_LEAST_PER_S: Final = 50.0  # a store that hangs for a moment is no reason to send anybody away for minutes
_JITTER_S: Final = 2.0  # who is refused in the same moment stands in the same second of the line


class Line:
    """The line of one worker. Refusals only come while its lane is full, so what it sells then is all it can."""

    __slots__ = ("_ahead", "_joined_s", "_looked_s", "_now_s", "_per_s", "_sold", "_sold_before")

    def __init__(self, sold: Callable[[], int], now_s: Callable[[], float] = time.monotonic) -> None:
        """``sold`` counts what was sold so far."""
        self._sold, self._now_s = sold, now_s
        self._per_s = _AT_FIRST_PER_S
        self._ahead = 0.0
        self._joined_s = self._looked_s = now_s()
        self._sold_before = sold()

    def join(self, count: int) -> list[int]:
        """Put so many into the line; return after how many whole seconds each is to come back.

        From 1 to ``RETRY_AFTER_MOST_S``. Those who join together stand together, and are spread by chance.
        """
        now_s = self._now_s()
        if now_s - self._looked_s >= _LOOK_S:
            self._look(now_s)
        per_s = self._per_s * _SHARE
        ahead = max(0.0, self._ahead - (now_s - self._joined_s) * per_s)
        longest = RETRY_AFTER_MOST_S * per_s
        self._joined_s, self._ahead = now_s, min(ahead + count, longest)
        begin_s, span_s = 1 + ahead / per_s, count / per_s + _JITTER_S
        if ahead + count > longest:
            begin_s, span_s = 1.0, float(RETRY_AFTER_MOST_S)
        return [min(int(begin_s + random() * span_s), RETRY_AFTER_MOST_S) for _ in range(count)]

    def _look(self, now_s: float) -> None:
        elapsed_s, sold = now_s - self._looked_s, self._sold()
        if elapsed_s <= _STALE_S:
            seen = max((sold - self._sold_before) / elapsed_s, _LEAST_PER_S)
            self._per_s += (seen - self._per_s) * _SMOOTHING
        self._looked_s, self._sold_before = now_s, sold
