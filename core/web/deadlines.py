"""Deadlines of connections, kept by one look every hundredth of a second instead of by a timer each.

A connection that owes something (its first byte, the rest of a head, the reading of an answer) stands in the queue of
that debt. All debts of a kind have the same length, so who stands first in a queue is the first to be late: a look
costs what is late, not what is open. Entering and leaving are one dictionary operation each. A request that comes
whole, and whose answer the kernel takes at once, never enters a queue: the hot path pays for none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, Protocol

from core.errors import AnswerNotTaken, BodyTimeout, ConnectionSilent, FlashproofError, HeadTimeout
from core.settings import ANSWER_DEADLINE_S, BODY_DEADLINE_S, FIRST_BYTE_DEADLINE_S, HEAD_DEADLINE_S, LINGER_S

# At half a second 3,000 slow clients were cut off in crowds, and honest buyers waited 25 ms; from a twentieth to this
# their p99 fell from 7.1 to 6.5 ms.
_LOOK_S: Final = 0.01
_CUT_MOST: Final = 4  # of a kind, in one turn of the loop: honest requests are answered in between


class Debtor(Protocol):
    """A connection: see ``core/web/protocol.py``."""

    def cut(self, why: type[FlashproofError]) -> None:
        """End the connection for this reason."""


class Debt:
    """One kind of debt, and who owes it."""

    __slots__ = ("_deadlines", "_due", "kind", "seconds")

    def __init__(self, deadlines: Deadlines, kind: type[FlashproofError], seconds: float) -> None:
        self._deadlines, self.kind, self.seconds = deadlines, kind, seconds
        self._due: dict[Debtor, float] = {}  # in the order of entering, which is the order of becoming late

    def __len__(self) -> int:
        return len(self._due)

    def enter(self, debtor: Debtor) -> None:
        """Begin to count; who stands here already is not given more time."""
        if debtor not in self._due:
            self._due[debtor] = self._deadlines.now() + self.seconds
            self._deadlines.watch()

    def leave(self, debtor: Debtor) -> None:
        """The debt is paid, or nobody is left to pay it."""
        self._due.pop(debtor, None)

    def late(self, now: float, most: int) -> Iterator[Debtor]:
        """Take out, one by one, who is late, but no more than so many."""
        for _ in range(most):
            if not self._due:
                return
            debtor, due = next(iter(self._due.items()))
            if due > now:
                return
            del self._due[debtor]
            yield debtor


class Deadlines:
    """The debts of all connections of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch nobody yet; while nobody owes anything, nothing wakes the worker."""
        self._loop, self.now = loop, loop.time
        self._watching = False
        self.first_byte = Debt(self, ConnectionSilent, FIRST_BYTE_DEADLINE_S)
        self.head = Debt(self, HeadTimeout, HEAD_DEADLINE_S)
        self.answer = Debt(self, AnswerNotTaken, ANSWER_DEADLINE_S)
        self.body = Debt(self, BodyTimeout, BODY_DEADLINE_S)  # in the porch; behind it aiohttp waits for bodies
        self.leaving = Debt(self, BodyTimeout, LINGER_S)  # it was told why, and shall read it
        self._debts = (self.first_byte, self.head, self.answer, self.body, self.leaving)

    def forget(self, debtor: Debtor) -> None:
        """A connection is no more."""
        for debt in self._debts:
            debt.leave(debtor)

    def watch(self) -> None:
        """See to it that somebody looks."""
        if not self._watching:
            self._watching = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Cut off who is late; look again while anybody owes anything."""
        now, cut_most = self.now(), 0
        for debt in self._debts:  # each has its own room: a crowd that owes one thing hides nobody who owes another
            cut = 0
            for debtor in debt.late(now, _CUT_MOST):
                debtor.cut(debt.kind)
                cut += 1
            cut_most = max(cut_most, cut)
        if cut_most == _CUT_MOST:
            self._loop.call_soon(self._look)
            return
        self._watching = False
        if any(self._debts):
            self.watch()
