"""Batches: many callers, one call.

Callers put an item and await its answer. One task takes all that waits (up to a limit), makes one call for it, hands
out the answers, and takes the next list when the reply is back. Under light load a batch holds one item and waits for
nothing; as load rises batches grow by themselves, so the cost of a call and of its fsync is shared by more and more.
Where calls follow each other with little in each, they keep a distance (``SPACING_S``): a call costs server and store
together some 400 µs of processor whatever it holds.

Several calls may be under way (``at_once``), so that the store finds the next one before it when it has answered the
last, and does not wait for a loop that is busy with others: a turn of it takes a third of a call. Another goes when
``BESIDE`` items wait, and as many as a call under way holds; with less, calls would only become smaller.

A lane whose items have keys is fair between them: see ``core/backends/shares.py``.

Always true: an item is in at most one call; every caller gets an answer or a named error; no more than ``waiting_most``
items wait, and with a limit no more than it allows, and its reserve, wait or are in the call; what waits longer than
the deadline is not sent, and its caller told that surely nothing was done, within ``_LOOK_S`` also while a call hangs.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from core.backends.limit import TARGET_S, Limit
from core.backends.shares import Shares, reserve
from core.errors import Overloaded, StoreUnknown
from core.settings import BATCH_MOST, REQUEST_DEADLINE_S, WAITING_MOST
from core.telemetry import log

FEW: Final = 16  # items that are not worth a call of their own straight after another
SPACING_S: Final = 0.002
CALM_SPACING_S: Final = 0.01  # the same where nobody minds 5 ms: a payment's report, a look at an order
# Items that are worth a call beside others, if as many as those hold: then the next is at hand when a sync ends.
# Behind 64 buyers that is a tenth to a third more orders a second; with three quarters of what is under way a tenth
# less, and a third call changes nothing. (It did not pay while a call cost Valkey 456,000 instructions and each of its
# orders 39,000, where it is 392,000 and 22,000 now.)
BESIDE: Final = 20

_LOOK_S: Final = 0.1  # how often, while a call is under way, somebody looks who has waited too long

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Sink(Protocol):
    """Where an answer goes: a future, or something lighter that takes it at once and without a turn of the loop.

    Nothing of it may raise, but for a future that was cancelled: its neighbours in the batch wait behind it. A result
    may come when nobody wants it any more, and is then to be passed over.
    """

    def done(self) -> bool:
        """Say whether nobody wants the answer any more."""

    def set_result(self, answer: Any, /) -> None:
        """Take the answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Take the error."""


class Batches(Generic[Item, Answer]):
    """One lane of batched calls. ``send`` gets a list and returns as many answers, in the same order."""

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Answer]]],
        *,
        most: int = BATCH_MOST,
        waiting_most: int = WAITING_MOST,
        sent: Callable[[int], None] = lambda size: None,
        limit: Limit | None = None,
        now_s: Callable[[], float] = time.monotonic,
        spacing_s: float = SPACING_S,
        at_once: int = 1,
        key: Callable[[Item], str] | None = None,
    ) -> None:
        """``sent`` is told the size of every batch, ``limit`` the time it took; ``at_once`` calls may be under way.

        ``key``: of which thing an item asks for; with a limit, one thing's flood leaves room for the others.
        """
        self._send, self._most, self._waiting_most, self._sent = send, most, waiting_most, sent
        self._limit, self._now_s = limit, now_s
        self._items: list[Item] = []
        self._sinks: list[Sink] = []
        self._since_s: list[float] = []
        self._calls = self._in_call = 0  # under way, and the items in them
        self._spacing_s, self._at_once = spacing_s, at_once
        self._began_s = now_s() - spacing_s  # the last call
        self._answered_s = float("-inf")  # when a call was answered last
        self._key, self._shares = key, Shares()
        # How many more may be put; counted down by each, counted anew when a batch goes or comes.
        self._room = self._reserve = 0
        self._count_room()
        self.called = 0  # items so far that went out with a call
        self.when_rested: Callable[[], None] = _nothing  # called when none is under way any more
        self._runs: set[asyncio.Task[None]] = set()
        self._starting = False  # one of them, in this turn of the loop
        self._look: asyncio.TimerHandle | None = None  # while a call is under way, and a moment longer

    @property
    def waiting(self) -> int:
        """How many items wait for their batch."""
        return len(self._items)

    @property
    def is_under_way(self) -> bool:
        """Whether any item waits or is in a call."""
        return self._calls > 0 or len(self._items) > 0

    def room(self) -> int:
        """Return how many items may be put now; so cheap that it may be asked before any work is done for an item."""
        return self._room

    def lets_in(self, key: str) -> bool:
        """Return whether an item of this key may be put though there is no room."""
        limit = self._limit
        return limit is not None and self._room + self._reserve > 0 and self._shares.has_little(key, limit.most)

    def _count_room(self) -> None:
        waiting = len(self._items)
        self._room = most = self._waiting_most - waiting
        if self._limit is not None:
            self._room = min(most, self._limit.most - waiting - self._in_call)
            self._reserve = min(most - self._room, reserve(self._limit.most)) if self._key is not None else 0

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Add an item; await the future for its answer.

        Raises:
            Overloaded: too many wait already; surely nothing was done.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look_at)
        self.put_for(item, future)
        return future

    def put_for(self, item: Item, sink: Sink) -> None:
        """Add an item whose answer goes to ``sink``.

        Raises:
            Overloaded: too many wait already; surely nothing was done.
        """
        if self._room <= 0 and (self._key is None or not self.lets_in(self._key(item))):
            raise Overloaded
        self._room -= 1
        if self._key is not None:
            self._shares.came((self._key(item),))
        self._items.append(item)
        self._sinks.append(sink)
        self._since_s.append(self._now_s())
        self._begin()

    def put_all(self, items: list[Item], sinks: Sequence[Sink]) -> None:
        """Add items that came together, no more than there is ``room`` for, each with the sink of its answer."""
        count = len(items)
        self._room -= count
        if self._key is not None:
            self._shares.came(map(self._key, items))
        self._items += items
        self._sinks += sinks
        self._since_s += [self._now_s()] * count
        self._begin()

    def _begin(self) -> None:
        if self._starting or len(self._runs) >= self._at_once or not self._is_due():
            return
        # The task begins after the callbacks that are ready now, so one turn of the loop fills the first batch.
        self._starting = True
        task = asyncio.create_task(self._run())
        self._runs.add(task)
        task.add_done_callback(self._forget)

    def _is_due(self) -> bool:
        """Say whether what waits should go out, if there is somebody to carry it."""
        waiting = len(self._items)
        if not self._calls:
            return waiting > 0
        if self._limit is not None and self._limit.is_slow:
            return False  # another call only moves the queue to where nobody is refused
        return waiting >= BESIDE and waiting * self._calls >= self._in_call

    def _forget(self, task: asyncio.Task[None]) -> None:
        if task in self._runs:  # it was cancelled before it began
            self._runs.discard(task)
            self._starting = False

    async def _run(self) -> None:
        self._starting = False
        try:
            while self._is_due():
                rest_s = self._began_s + self._spacing_s - self._now_s()
                while rest_s > 0 and not self._calls and len(self._items) < FEW:  # a long one ends when enough came
                    await asyncio.sleep(min(rest_s, SPACING_S))
                    rest_s -= SPACING_S
                    if not self._is_due():  # the other call has taken it
                        return
                self._began_s = began_s = self._now_s()
                self._give_up(began_s - REQUEST_DEADLINE_S)
                if self._items:
                    await self._call(began_s)
        finally:  # at once: whoever comes next looks whether there is somebody
            self._runs.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _call(self, began_s: float) -> None:
        waited_s = began_s - self._since_s[0]
        items, sinks = self._cut()
        size = len(items)
        self._sent(size)
        self.called += size
        try:
            answers = await self._ask(items)
        except Exception as error:  # noqa: BLE001  # every caller gets it
            if self._now_s() - began_s > TARGET_S:  # one that failed at once says nothing of how much can be borne
                self._learn(waited_s, began_s)
            self._is_over(items)
            _fail(sinks, error)
        except BaseException:
            self._is_over(items)
            _fail(sinks, StoreUnknown("the worker was stopped in the call"))
            raise
        else:
            self._learn(waited_s, began_s)
            self._is_over(items)
            # Where others wait already, their call goes out first: the store works on it while these answers are
            # written, instead of one waiting for the other in turn.
            if self._items:
                asyncio.get_running_loop().call_soon(_hand_out, sinks, answers)
            else:
                _hand_out(sinks, answers)
        if not self._calls and not self._items:
            self.when_rested()

    def _learn(self, waited_s: float, began_s: float) -> None:
        """Tell the limit what a call took that began at ``began_s``, when its oldest item had waited so long."""
        if self._limit is not None:
            now_s = self._now_s()
            alone_s = now_s - max(began_s, self._answered_s)  # behind another call it has waited for that one too
            self._limit.answered(waited_s + now_s - began_s, alone_s, self._in_call + len(self._items))
            self._answered_s = now_s

    async def _ask(self, items: list[Item]) -> Sequence[Answer]:
        answers = await self._send(items)
        if len(answers) != len(items):
            raise StoreUnknown(f"{len(items)} were asked about and {len(answers)} answers came")
        return answers

    def _look_around(self) -> None:
        """Refuse who has waited too long behind a call that hangs; look again as long as one is under way."""
        self._look = None
        if self._calls:  # not taken back when a call ends: a timer for each, nearly always in vain, costs more
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_around)
            self._give_up(self._now_s() - REQUEST_DEADLINE_S)

    def _is_over(self, items: list[Item]) -> None:
        self._calls -= 1
        self._in_call -= len(items)
        if self._key is not None:
            self._shares.went(map(self._key, items))
        self._count_room()

    def _give_up(self, before_s: float) -> None:
        """Refuse what waits since before an instant; it was not sent."""
        late = bisect_left(self._since_s, before_s)
        if late:
            sinks = self._sinks[:late]
            if self._key is not None:
                self._shares.went(map(self._key, self._items[:late]))
            del self._items[:late], self._sinks[:late], self._since_s[:late]
            self._count_room()
            _fail(sinks, Overloaded())

    def _cut(self) -> tuple[list[Item], list[Sink]]:
        most = self._most
        items, sinks = self._items[:most], self._sinks[:most]
        del self._items[:most], self._sinks[:most], self._since_s[:most]
        self._calls += 1
        self._in_call += len(items)
        self._count_room()
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_around)
        return items, sinks


def _nothing() -> None:
    """Be called by nobody who cares."""


def _hand_out(sinks: list[Sink], answers: Sequence[Any]) -> None:
    for sink, answer in zip(sinks, answers, strict=True):
        try:  # not `done` first: that is a call for each, and nearly nobody has gone
            sink.set_result(answer)
        except asyncio.InvalidStateError:
            continue
        except Exception as error:  # noqa: BLE001  # its neighbours must not wait for ever
            log("error", "answer_failed", error=error)


def _fail(sinks: list[Sink], error: Exception) -> None:
    for sink in sinks:
        if not sink.done():
            sink.set_exception(error)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Fetch an error, so that a caller that went away does not make the loop complain."""
    if not future.cancelled():
        future.exception()
