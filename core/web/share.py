"""How much of one turn of the loop may go to what no order waits for: new connections, what they dribble, cutting off.

Such work comes in bursts: who is cut off comes again, and what came together ends together. Done to its end it made a
tick of a siege two milliseconds long, and honest orders waited behind it, once as they came and once as they were
answered: their median rose by a fifth and their p99 by a half. In small parts the same work costs them next to
nothing, for the loop looks at everybody in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LEAST_S: Final = 0.00012  # of a turn; two connections are accepted in it, one is cut off
# Of what the rest of a turn took, where there was more to do than the last one had time for. In a flash crowd turns are
# long, and with the same few in each of them new buyers would wait in the kernel's queue for seconds.
SHARE: Final = 0.25


class Share:
    """One such activity's time in a turn."""

    __slots__ = ("_left_off_s", "_now_s", "_until_s")

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing left over."""
        self._now_s = now_s
        self._until_s = 0.0
        self._left_off_s: float | None = None  # when the turn before stopped, with more to do

    def begin(self) -> None:
        """Begin a turn's part."""
        now_s, left_off_s = self._now_s(), self._left_off_s
        self._left_off_s = None
        self._until_s = now_s + (LEAST_S if left_off_s is None else max(LEAST_S, (now_s - left_off_s) * SHARE))

    def is_over(self) -> bool:
        """Say whether this turn's part is used up; ask between two items, the rest of them being the next turn's."""
        now_s = self._now_s()
        if now_s < self._until_s:
            return False
        self._left_off_s = now_s
        return True
