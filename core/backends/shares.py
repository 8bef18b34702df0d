"""Who may still come when a lane has no room: a flood for one thing must not shut the door on all others.

What is under way is counted by key (for orders, the SKU). A lane that is full keeps a quarter of its limit in reserve,
and lets in from there whose key has less under way than an even share of the limit: max-min fairness (Bertsekas and
Gallager, Data Networks, section 6.5), approximated at the door. The flooded key finds its share used up and is turned
away; the others never notice, until they too ask for more than their share. Behind the door all wait in one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

_RESERVE: Final = 4  # one in so many of what the limit allows


class Shares:
    """What each key has under way. A key with nothing has no entry, so there are no more of them than items."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self.under_way: dict[str, int] = {}

    def came(self, keys: Iterable[str]) -> None:
        """Count items in, by their keys."""
        # Not `Counter.update`: for the five that come together behind 64 buyers it takes twice as long.
        under_way = self.under_way
        for key in keys:
            under_way[key] = under_way.get(key, 0) + 1

    def went(self, keys: Iterable[str]) -> None:
        """Count items out."""
        under_way = self.under_way
        for key, count in Counter(keys).items():
            left = under_way[key] - count
            if left > 0:
                under_way[key] = left
            else:
                del under_way[key]

    def has_little(self, key: str, limit: int) -> bool:
        """Return whether a key has less under way than an even share of the limit among all that have something."""
        mine = self.under_way.get(key, 0)
        keys = len(self.under_way) + (not mine)
        return mine < max(1, limit // keys)


def reserve(limit: int) -> int:
    """Return how many items beyond the limit may be let in for keys that have little under way."""
    return limit // _RESERVE
