"""How much of one turn of the loop may go to what no order waits for: new connections, and cutting off.

Such work comes in bursts: who is cut off comes again, and what came together ends together. Done to its end it made a
tick of a siege two milliseconds long, and honest orders waited behind it, once as they came and once as they were
answered. In small parts the loop looks at everybody in between (``python -m loadtests hostile``). When they have their
turn says ``core/web/leisure.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LEAST_S: Final = 0.0003  # of a turn; some eight connections are accepted in it, five are cut off
# Of what the rest of a turn took, where there was more to do than the last one had time for. In a flash crowd turns are
# long, and with the same few in each of them new buyers would wait in the kernel's queue for seconds.
SHARE: Final = 0.5
MOST_S: Final = 0.05  # of the longest turn


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
        rest_s = 0.0 if left_off_s is None else now_s - left_off_s
        self._until_s = now_s + min(max(LEAST_S, rest_s * SHARE), MOST_S)

    def is_over(self) -> bool:
        """Say whether this turn's part is used up; ask between two items."""
        return self._now_s() >= self._until_s

    def leave_off(self) -> None:
        """End a turn's part though there is more to do, which the next turn begins with.

        Only then is the time until that one a turn's: after the last item it would be a rest, however long, and the
        next burst be given half of it.
        """
        self._left_off_s = self._now_s()

    def rest(self) -> None:
        """Forget that a part was left off: the next does not begin with the next turn."""
        self._left_off_s = None
