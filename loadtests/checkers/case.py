"""A case under examination: what a checker counts and what it holds against the shop, kept short enough to
read.
"""

from __future__ import annotations

from typing import Final

from loadtests.record.evidence import Finding

VIOLATIONS_MOST: Final = 20  # sentences kept; one broken line of code breaks ten thousand orders in the same way


class Case:
    """Collects one checker's count and violations, and closes into its ``Finding``."""

    __slots__ = ("_broken", "_sentences", "checked", "name")

    def __init__(self, name: str) -> None:
        """Open the case of the invariant ``name``."""
        self.name = name
        self.checked = 0
        self._broken = 0
        self._sentences: list[str] = []

    def against(self, sentence: str) -> None:
        """Hold one thing against the shop; beyond the first 20 only their number is kept."""
        self._broken += 1
        if len(self._sentences) < VIOLATIONS_MOST:
            self._sentences.append(sentence)

    def must_equal(self, what: str, found: object, expected: object) -> None:
        """Look at one thing that must be as expected."""
        self.checked += 1
        if found != expected:
            self.against(f"{what}: {found!r}, but it must be {expected!r}.")

    def close(self) -> Finding:
        """Return the finding."""
        rest = self._broken - len(self._sentences)
        more = [f"… and {rest} more of the kind."] if rest else []
        return Finding(name=self.name, holds=not self._broken, checked=self.checked, violations=self._sentences + more)
