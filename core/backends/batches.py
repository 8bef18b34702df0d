"""Batches: many callers, one call.

Callers put an item and await its answer. One task takes all that waits (up to a limit), makes one call for it, hands
out the answers, and takes the next list when the reply is back. Under light load a batch holds one item and waits for
nothing; as load rises batches grow by themselves, so the cost of a call and of its fsync is shared by more and more.

Always true: an item is in at most one call; every caller gets an answer or a named error; no more than ``waiting_most``
items wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from core.errors import Overloaded, StoreUnknown
from core.settings import BATCH_MOST, WAITING_MOST

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Sink(Protocol):
    """Where an answer goes: a future, or something lighter that takes it at once and without a turn of the loop.

    Nothing of it may raise: its neighbours in the batch wait behind it.
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
    ) -> None:
        """``sent`` is told the size of every batch."""
        self._send, self._most, self._waiting_most, self._sent = send, most, waiting_most, sent
        self._items: list[Item] = []
        self._sinks: list[Sink] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many items wait for their batch."""
        return len(self._items)

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
        if len(self._items) >= self._waiting_most:
            raise Overloaded
        self._items.append(item)
        self._sinks.append(sink)
        if self._task is None:
            # The task begins after the callbacks that are ready now, so one turn of the loop fills the first batch.
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        later = asyncio.get_running_loop().call_soon
        try:
            while self._items:
                items, sinks = self._items[: self._most], self._sinks[: self._most]
                del self._items[: self._most], self._sinks[: self._most]
                self._sent(len(items))
                try:
                    answers = await self._ask(items)
                except Exception as error:  # noqa: BLE001  # every caller gets it
                    _fail(sinks, error)
                except BaseException:
                    _fail(sinks, StoreUnknown("the worker was stopped in the call"))
                    raise
                else:
                    # Where others wait already, their call goes out first: the store works on it while these answers
                    # are written, instead of one waiting for the other in turn.
                    if self._items:
                        later(_hand_out, sinks, answers)
                    else:
                        _hand_out(sinks, answers)
        finally:
            self._task = None

    async def _ask(self, items: list[Item]) -> Sequence[Answer]:
        answers = await self._send(items)
        if len(answers) != len(items):
            raise StoreUnknown(f"{len(items)} were asked about and {len(answers)} answers came")
        return answers


def _hand_out(sinks: list[Sink], answers: Sequence[Any]) -> None:
    for sink, answer in zip(sinks, answers, strict=True):
        if not sink.done():
            sink.set_result(answer)


def _fail(sinks: list[Sink], error: Exception) -> None:
    for sink in sinks:
        if not sink.done():
            sink.set_exception(error)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Fetch an error, so that a caller that went away does not make the loop complain."""
    if not future.cancelled():
        future.exception()
