"""Deadlines of connections, kept by one look every hundredth of a second instead of by a timer each.

A connection that owes something (its first byte, the rest of a head, the reading of an answer) stands in the queue of
that debt. All debts of a kind have the same length, so who stands first in a queue is the first to be late: a look
costs what is late, not what is open. Entering and leaving are one dictionary operation each. A request that comes
whole, and whose answer the kernel takes at once, never enters a queue: the hot path pays for none of this.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

from core.errors import AnswerNotTaken, BodyTimeout, ConnectionSilent, FlashproofError, HeadTimeout
from core.settings import ANSWER_DEADLINE_S, BODY_DEADLINE_S, FIRST_BYTE_DEADLINE_S, HEAD_DEADLINE_S, LINGER_S
from core.telemetry import log
from core.web.leisure import Leisure
from core.web.share import Share

# At half a second 3,000 slow clients were cut off in crowds, and honest buyers waited 25 ms.
_LOOK_S: Final = 0.01
_CUT_MOST: Final = 16  # of a kind, in one turn of the loop; as a rule its share of the turn is used up before


class Debtor(Protocol):
    """A connection: see ``core/web/protocol.py``."""

    def cut(self, why: type[FlashproofError]) -> None:
        """End the connection for this reason."""


class Debt:
    """One kind of debt, and who owes it."""

    __slots__ = ("_deadlines", "_due", "kind", "seconds")

    def __init__(self, deadlines: Deadlines, kind: type[FlashproofError], seconds: float) -> None:
        self._deadlines, self.kind, self.seconds = deadlines, kind, seconds
        # In the order of entering, which is the order of becoming late. Not a plain dictionary: looking for the first
        # of one whose first thousands were taken out steps over all their places.
        self._due: OrderedDict[Debtor, float] = OrderedDict()

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

    def has_late(self, now: float) -> bool:
        """Say whether anybody is late."""
        return bool(self._due) and next(iter(self._due.values())) <= now

    def late(self, now: float) -> Debtor | None:
        """Take out the first who is late, if there is one."""
        return self._due.popitem(last=False)[0] if self.has_late(now) else None


class Deadlines:
    """The debts of all connections of a worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, leisure: Leisure | None = None, share: Share | None = None
    ) -> None:
        """Watch nobody yet; while nobody owes anything, nothing wakes the worker.

        ``leisure``: when there is time for cuts; ``share``: how much of each turn.
        """
        self._loop, self.now, self._share = loop, loop.time, share or Share()
        self._leisure = leisure or Leisure()
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
        """See to it that who is late is cut off; look again while anybody owes anything."""
        now = self.now()
        if any(debt.has_late(now) for debt in self._debts):
            if not self._leisure.do(self._cut_off):
                self._share.rest()
        else:
            self._rest()

    def _rest(self) -> None:
        self._watching = False
        if any(self._debts):
            self.watch()

    def _cut_off(self) -> None:
        """Cut off who is late, as far as the turn's share goes."""
        if self._cut(self.now()):
            self._rest()
        else:
            self._loop.call_soon(self._look)

    def _cut(self, now: float) -> bool:
        """Return whether nobody is late any more.

        One of each kind in turn: a crowd that owes one thing hides nobody who owes another.
        """
        self._share.begin()
        for _ in range(_CUT_MOST):
            late = [(debtor, debt.kind) for debt in self._debts if (debtor := debt.late(now)) is not None]
            for debtor, kind in late:
                try:
                    debtor.cut(kind)
                except Exception as error:  # noqa: BLE001  # a fault of ours at one saves nobody else
                    log("error", "cut_failed", error=error)
            if not late:
                return True
            if self._share.is_over():
                break
        self._share.leave_off()  # the next turn comes here again, be there more or not
        return False
