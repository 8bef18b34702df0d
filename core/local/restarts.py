"""How often a thing that keeps dying is brought back before somebody has to look."""

from __future__ import annotations

from collections import deque
from typing import Final

RESTARTS_MOST: Final = 10
RESTARTS_WITHIN_S: Final = 60.0


class Restarts:
    """A budget of restarts in a sliding window of time."""

    def __init__(self, most: int = RESTARTS_MOST, within_s: float = RESTARTS_WITHIN_S) -> None:
        """Allow `most` restarts in any `within_s` seconds."""
        self.most = most
        self.within_s = within_s
        self._times: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Tell whether one more restart is allowed at `now` (steady seconds), and count it if so."""
        while self._times and now - self._times[0] >= self.within_s:
            self._times.popleft()
        if len(self._times) >= self.most:
            return False
        self._times.append(now)
        return True
