"""A worker under load, as a simulation in made-up time: the real limit, line and pace of refusing, nothing else.

One thread does, in turns as an event loop does, all that costs time: reading, placing, answering, telling a refusal.
The store works beside it, one call at a time. Buyers come at a rate, whatever becomes of them, over so many connections
with one request on each; who finds none free asks nothing. Who is refused returns when the line says, twice at most.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from core.backends.limit import Limit
from core.backends.line import Line
from core.settings import BATCH_MOST, ORDERS_LEAST, REQUEST_DEADLINE_S, WAITING_MOST
from core.web.refusing import may_be_told

READ_S: Final = 4e-6
ORDER_S: Final = 8e-6  # beyond the reading: decoding, names, a place in the list
ANSWER_S: Final = 13e-6
TELL_S: Final = 5e-6
CALL_S: Final = 1e-3
CALL_ORDER_S: Final = 7e-6
CAPACITY: Final = 1 / (READ_S + ORDER_S + ANSWER_S)
TIMER_S: Final = 0.002
LOOK_S: Final = 0.025
TRIES: Final = 3


class Answer(NamedTuple):
    """One answer."""

    at_s: float
    took_s: float  # since it was sent
    accepted: bool


class Flooded:
    """The worker, its store and its buyers."""

    def __init__(
        self,
        *,
        limit: Limit | None = None,
        told: Callable[[float, float, int, float], int] = may_be_told,
        connections: int = 1_500,
        slow: float = 1.0,
        call_s: float = CALL_S,
        call_order_s: float = CALL_ORDER_S,
        waited: float = 1.0,
    ) -> None:
        """``slow``: all of the worker's work takes so many times as long; ``told``, ``waited``: as ``may_be_told``."""
        self.limit = limit or Limit(ORDERS_LEAST, WAITING_MOST)
        self.now_s, self.answers = 0.0, list[Answer]()
        self.limits: list[int] = []
        self.sent = 0
        self._told, self._slow, self._waited = told, slow, waited
        self._call_s, self._call_order_s = call_s, call_order_s
        self._free = connections
        self._unread: deque[tuple[float, int]] = deque()
        self._retries: list[tuple[float, int]] = []
        self._refused: deque[tuple[float, float, int]] = deque()
        self._items: deque[tuple[float, float]] = deque()
        self._call: list[tuple[float, float]] = []
        self._called_s = self._done_s = self._turned_s = self._due_s = 0.0
        self._look_s = LOOK_S
        self._owed = 0.0
        self._orders = 0  # called since refusals were told last
        self._called = 0  # ever
        self._line = Line(lambda: self._called, lambda: self.now_s)
        self._stall = (0.0, 0.0)

    def stall(self, seconds: float) -> None:
        """Have the store stand still from now on for so long."""
        self._stall = (self.now_s, self.now_s + seconds)

    def run(self, rate: float, seconds: float) -> list[Answer]:
        """Let buyers come at a rate for some seconds; return what was answered."""
        until_s, first = self.now_s + seconds, len(self.answers)
        came_s = self.now_s
        while self.now_s < until_s:
            self._come((self.now_s - came_s) * rate)
            came_s = began_s = self.now_s
            self._look()
            self._read()
            self._tell()
            self._store()
            if self.now_s == began_s:
                self.now_s = self._next(came_s + max(0.0, 1.0 - self._owed) / rate)
        return self.answers[first:]

    def _work(self, seconds: float) -> None:
        self.now_s += seconds * self._slow

    def _come(self, fresh: float) -> None:
        self._owed += fresh
        while self._retries and self._retries[0][0] <= self.now_s and self._free:
            self._send(heapq.heappop(self._retries)[1])
        while self._owed >= 1.0 and self._free:
            self._owed -= 1.0
            self._send(TRIES)
        self._owed = min(self._owed, 1.0)

    def _send(self, tries: int) -> None:
        self._free -= 1
        self.sent += 1
        self._unread.append((self.now_s, tries))

    def _look(self) -> None:
        if self.now_s >= self._look_s:
            self.limit.loop_was_late(self.now_s - self._look_s)
            self._look_s = self.now_s + LOOK_S

    def _read(self) -> None:
        for _ in range(len(self._unread)):
            sent_s, tries = self._unread.popleft()
            self._work(READ_S)
            if len(self._items) + len(self._call) >= self.limit.most:
                if not self._refused:
                    self._turned_s, self._due_s, self._orders = self.now_s, self.now_s + TIMER_S, 0
                self._refused.append((self.now_s, sent_s, tries))
            else:
                self._work(ORDER_S)
                self._items.append((self.now_s, sent_s))

    def _tell(self) -> None:
        if not self._refused or self.now_s < self._due_s:
            return
        most = self._told(self.now_s - self._due_s, self.now_s - self._turned_s, self._orders, self._waited)
        self._turned_s, self._orders = self.now_s, 0
        began_s = self.now_s
        while self._refused and (most > 0 or began_s - self._refused[0][0] > REQUEST_DEADLINE_S):
            most -= 1
            _, sent_s, tries = self._refused.popleft()
            self._work(TELL_S)
            self._answered(sent_s, accepted=False)
            if tries > 1:
                heapq.heappush(self._retries, (self.now_s + self._line.join(1)[0], tries - 1))
        self._due_s = began_s + TIMER_S

    def _store(self) -> None:
        answered: list[tuple[float, float]] = []
        if self._call and self.now_s >= self._done_s:
            answered, self._call = self._call, []
            under_way = len(answered) + len(self._items)
            self.limit.answered(self.now_s - answered[0][0], self.now_s - self._called_s, under_way)
            self.limits.append(self.limit.most)
        if not self._call and self._items:
            self._call = [self._items.popleft() for _ in range(min(BATCH_MOST, len(self._items)))]
            self._orders += len(self._call)
            self._called += len(self._call)
            self._called_s = begins_s = self.now_s
            if self._stall[0] <= begins_s < self._stall[1]:
                begins_s = self._stall[1]
            self._done_s = begins_s + self._call_s + len(self._call) * self._call_order_s
        for _, sent_s in answered:
            self._work(ANSWER_S)
            self._answered(sent_s, accepted=True)

    def _answered(self, sent_s: float, *, accepted: bool) -> None:
        self._free += 1
        self.answers.append(Answer(self.now_s, self.now_s - sent_s, accepted))

    def _next(self, arrival_s: float) -> float:
        due = [self._look_s]
        if self._free:
            due.append(arrival_s)
            if self._retries:
                due.append(self._retries[0][0])
        if self._refused:
            due.append(self._due_s)
        if self._call:
            due.append(self._done_s)
        return max(min(due), self.now_s + 1e-6)


def goodput(answers: list[Answer], seconds: float) -> float:
    """Return the accepted orders a second."""
    return sum(answer.accepted for answer in answers) / seconds


def percentile(answers: list[Answer], share: float, *, accepted: bool) -> float:
    """Return how long such a share of the accepted, or of the refused, took at most."""
    took = sorted(answer.took_s for answer in answers if answer.accepted is accepted)
    return took[min(len(took) - 1, int(len(took) * share))] if took else 0.0
