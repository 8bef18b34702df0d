"""The projector's pace: when its next turn begins. Pure; instants are passed in.

A turn has a price whatever its size: seven statements, a commit and a settling call cost PostgreSQL and the projector
some 2 ms of processor, so turns are spaced. How far they may be apart follows from what they are for. Whatever is
accepted just after a turn has read the journal waits for the next turn's beginning, and then for its end. So the next
one begins early enough that its end, if it takes as long as the last ones did, falls within the goal: short turns of a
calm shop are far apart, and as turns grow longer they follow each other without rest.
"""

from __future__ import annotations

from typing import Final

_FADES: Final = 0.9  # a long turn is remembered for some ten turns


class Pace:
    """Keeps what is accepted from waiting longer than ``goal_s`` for its commit, with as few turns as that takes."""

    def __init__(self, goal_s: float) -> None:
        """``goal_s``: from an entry to its commit, in seconds."""
        self._goal_s = goal_s
        self._began = 0.0
        self._expected_s = 0.0  # what the next turn may take

    def begin(self, now: float) -> None:
        """A turn has read the journal."""
        self._began = now

    def end(self, now: float) -> None:
        """What the turn read is committed and told."""
        self._expected_s = max(now - self._began, self._expected_s * _FADES)

    def rest_s(self, now: float) -> float:
        """Return the seconds until the next turn should begin, 0 when it is late already."""
        return max(0.0, self._began + self._goal_s - self._expected_s - now)
