"""Who owes something stands in a queue and is cut off when late, and nobody else is; looking costs what is late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from core.errors import AnswerNotTaken, BodyTimeout, ConnectionSilent, FlashproofError, HeadTimeout
from core.settings import ANSWER_DEADLINE_S, FIRST_BYTE_DEADLINE_S, HEAD_DEADLINE_S
from core.web.deadlines import Deadlines
from core.web.share import LEAST_S, Share


class Loop:
    """Time made by hand."""

    def __init__(self) -> None:
        self.now, self.timers = 0.0, list[tuple[float, Callable[[], None]]]()
        self.turns: list[int] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, what))

    def call_soon(self, what: Callable[[], None]) -> None:
        self.call_later(0, what)

    def pass_to(self, until: float) -> None:
        while self.timers:
            self.timers.sort(key=lambda timer: timer[0])
            if self.timers[0][0] > until:
                break
            self.now, what = self.timers.pop(0)
            what()
        self.now = until


class Client:
    """Remembers when and why it was cut off."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self.cuts = loop, list[tuple[float, type[FlashproofError]]]()

    def cut(self, why: type[FlashproofError]) -> None:
        self.cuts.append((self._loop.now, why))


def made() -> tuple[Loop, Deadlines]:
    """Return a loop and what watches on it."""
    loop: Any = Loop()
    return loop, Deadlines(loop)


def test_each_kind_of_debt_has_its_own_deadline_and_reason() -> None:
    """Stops: one deadline for all, or a reason that tells operators the wrong thing."""
    loop, deadlines = made()
    kinds = {
        deadlines.first_byte: (FIRST_BYTE_DEADLINE_S, ConnectionSilent),
        deadlines.head: (HEAD_DEADLINE_S, HeadTimeout),
        deadlines.answer: (ANSWER_DEADLINE_S, AnswerNotTaken),
    }
    clients = {debt: Client(loop) for debt in kinds}
    for debt, client in clients.items():
        debt.enter(client)
    loop.pass_to(60)
    for debt, (seconds, why) in kinds.items():
        ((at, reason),) = clients[debt].cuts
        assert reason is why
        assert seconds <= at <= seconds + 1


def test_who_pays_in_time_or_goes_away_is_left_alone() -> None:
    """Stops: an honest client cut off for a debt of the past; a connection kept in memory by its watcher."""
    loop, deadlines = made()
    paid, gone, late = Client(loop), Client(loop), Client(loop)
    for client in (paid, gone, late):
        deadlines.head.enter(client)
        deadlines.answer.enter(client)
    loop.pass_to(1)
    deadlines.head.leave(paid)
    deadlines.answer.leave(paid)
    deadlines.forget(gone)
    deadlines.answer.leave(late)
    loop.pass_to(60)
    assert (paid.cuts, gone.cuts, len(late.cuts)) == ([], [], 1)
    assert not deadlines.head and not deadlines.answer


def test_entering_again_gives_no_more_time() -> None:
    """Stops: a byte a second that begins its deadline anew each time."""
    loop, deadlines = made()
    client = Client(loop)
    for second in range(20):
        loop.pass_to(second)
        if not client.cuts:
            deadlines.head.enter(client)
    assert client.cuts[0][0] <= HEAD_DEADLINE_S + 1


def test_thousands_are_cut_off_a_few_at_a_time() -> None:
    """Stops: one long turn of the loop in which no honest request is answered."""
    loop, deadlines = made()
    clients = [Client(loop) for _ in range(1_000)]
    for client in clients:
        deadlines.head.enter(client)
    seen: list[int] = []
    real = loop.call_soon

    def counting(what: Callable[[], None]) -> None:
        seen.append(sum(len(client.cuts) for client in clients) - sum(seen))
        real(what)

    loop.call_soon = counting  # type: ignore[method-assign]
    loop.pass_to(60)
    assert all(len(client.cuts) == 1 for client in clients)
    assert max(seen) <= 50


def test_cuts_that_take_long_are_fewer_a_turn_and_one_of_each_kind_in_turn() -> None:
    """Stops: a burst of cuts that honest requests wait behind; a crowd that owes one thing and hides another debt."""
    loop: Any = Loop()
    clock = [0.0]
    deadlines = Deadlines(loop, share=Share(lambda: clock[0]))
    deadlines.body.seconds = deadlines.head.seconds
    order, turns = list[str](), list[int]()

    class Slow(Client):
        def cut(self, why: type[FlashproofError]) -> None:
            order.append(why.code)
            clock[0] += 2 * LEAST_S

    clients = [Slow(loop) for _ in range(20)]
    for client in clients[:15]:
        deadlines.head.enter(client)
    for client in clients[15:]:
        deadlines.body.enter(client)
    real = loop.call_soon
    loop.call_soon = lambda what: (turns.append(len(order)), real(what))
    loop.pass_to(60)
    assert order == [HeadTimeout.code, BodyTimeout.code] * 5 + [HeadTimeout.code] * 10
    assert max(after - before for before, after in pairwise([0, *turns])) <= 2


def test_one_that_cannot_be_cut_off_saves_nobody_else() -> None:
    """Stops: a fault at one connection, after which no deadline of the worker is kept any more."""
    loop, deadlines = made()

    class Broken(Client):
        def cut(self, why: type[FlashproofError]) -> None:
            raise OSError("the kernel's fault")

    clients = [Client(loop) for _ in range(3)]
    deadlines.head.seconds = deadlines.first_byte.seconds  # late in the same look
    deadlines.first_byte.enter(Broken(loop))
    for client in (Broken(loop), *clients):
        deadlines.head.enter(client)
    loop.pass_to(60)
    assert [len(client.cuts) for client in clients] == [1, 1, 1]


def test_nothing_wakes_a_worker_of_which_nobody_owes_anything() -> None:
    """Stops: an idle worker that looks around twice a second for ever."""
    loop, deadlines = made()
    assert not loop.timers
    client = Client(loop)
    deadlines.head.enter(client)
    deadlines.head.leave(client)
    loop.pass_to(2)
    assert not loop.timers
    deadlines.head.enter(client)
    assert loop.timers


def test_it_runs_on_a_real_loop() -> None:
    """Stops: a look that is never called."""

    async def run() -> list[tuple[float, type[FlashproofError]]]:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        deadlines.head.seconds = 0.0
        client = Client(loop)  # type: ignore[arg-type]
        client._loop = type("Now", (), {"now": 0.0})()
        deadlines.head.enter(client)
        await asyncio.sleep(1)
        return client.cuts

    assert [why for _, why in asyncio.run(run())] == [HeadTimeout]
