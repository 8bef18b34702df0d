"""Kills on a timetable: which process gets ``kill -9`` at which second of the sale."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from core.errors import BadInput

PARTS: Final = ("serve", "work", "valkey", "postgres")
_KILL: Final = re.compile(rf"({'|'.join(PARTS)})@([0-9]{{1,4}}(?:\.[0-9]{{1,3}})?)")
KILLS_MOST: Final = 50


class Kill(NamedTuple):
    """One kill, seconds after the first arrival."""

    what: str
    at_s: float


def parse_kills(text: str) -> tuple[Kill, ...]:
    """Return the timetable of ``serve@3,valkey@5.5``, by time.

    Raises:
        BadInput: a part or a second is not understood.
    """
    kills = []
    for word in filter(None, text.split(",")):
        match = _KILL.fullmatch(word.strip())
        if match is None:
            raise BadInput(f"--kill: {word.strip()!r} is not like serve@3; the parts are {', '.join(PARTS)}")
        kills.append(Kill(match.group(1), float(match.group(2))))
    if len(kills) > KILLS_MOST:
        raise BadInput(f"--kill: at most {KILLS_MOST} kills")
    return tuple(sorted(kills, key=lambda kill: kill.at_s))


class Timetable:
    """Carries out what is due, once."""

    def __init__(self, kills: tuple[Kill, ...], kill: Callable[[str], bool]) -> None:
        self._left, self._kill = list(kills), kill

    def due(self, elapsed_s: float) -> None:
        """Kill what is due by now; a part that is down just then is tried again at the next call."""
        while self._left and self._left[0].at_s <= elapsed_s:
            if not self._kill(self._left[0].what):
                return
            self._left.pop(0)

    @property
    def left(self) -> list[Kill]:
        """The kills still to come."""
        return list(self._left)
