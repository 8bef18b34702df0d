"""A budget for retries, shared by all clients that have one: a storm of retries ends before it begins.

As in Finagle's RetryBudget: every first request deposits a fraction of a retry, every retry withdraws a whole one.
While all is well there is always one to be had; when everything fails, retries are that fraction of the requests.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.2  # retries a first request
SAVED_MOST: Final = 100.0  # what quiet times may save up


class RetryBudget:
    """The balance, in retries."""

    __slots__ = ("_saved",)

    def __init__(self, saved: float = 10.0) -> None:
        """Begin with some retries saved, so that the first failure is not the last word."""
        self._saved = saved

    def deposit(self) -> None:
        """Put in a first request's fraction."""
        self._saved = min(SAVED_MOST, self._saved + SHARE)

    def withdraw(self) -> bool:
        """Take one retry out, if there is one."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
