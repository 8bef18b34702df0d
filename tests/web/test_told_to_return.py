"""Whoever finds no room for an order is told when there will be some, by whichever way the order was refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import pytest
from spoken import place
from two_lanes import Two

from core.errors import Overloaded, StoreUnavailable
from core.web.orders import Order, Orders
from core.web.plain import Answers

AGAIN_S: Final = 77


class Client:
    """A connection that keeps its answer, or cannot be answered."""

    ticket = None

    def __init__(self, broken: bool = False) -> None:
        """Take whether answering fails."""
        self.said, self.failed, self._broken = b"", False, broken

    def answered(self, raw: bytes | None, data: bytes) -> None:
        """Keep it."""
        if self._broken:
            raise RuntimeError("a fault of ours")
        self.said += raw or b""

    def fail(self) -> None:
        """Note that it was ended."""
        self.failed = True


def orders_of(*clients: Client) -> tuple[Orders, list[Order]]:
    """Return a lane's orders, and one under way for each client."""
    answers = Answers()
    placing: Any = SimpleNamespace(called=lambda: 0, come_again_s=lambda count: [AGAIN_S] * count)
    orders = Orders(placing, answers)
    lane: Any = SimpleNamespace(answers=answers, under_way=len(clients))
    return orders, [Order(lane, client, place(), orders, "key", b"") for client in clients]


def test_an_order_that_waited_too_long_behind_a_call_is_told_by_the_line_too() -> None:
    """Stops: those who waited for a second behind a hung store sent back as one flood a second later."""
    late, unlucky = Client(), Client()
    _, (first, second) = orders_of(late, unlucky)
    first.set_exception(Overloaded())
    second.set_exception(StoreUnavailable())
    assert b"\r\nRetry-After: %d\r\n" % AGAIN_S in late.said
    assert b"\r\nRetry-After: 1\r\n" in unlucky.said, "another refusal keeps its own"


def test_one_that_cannot_be_told_is_ended_and_the_others_hear_theirs() -> None:
    """Stops: a client that never hears, and one fault that silences all who were refused in the same turn."""
    clients = [Client(), Client(broken=True), Client()]
    orders, refused = orders_of(*clients)
    orders._tell(refused)
    assert [b"Retry-After: %d" % AGAIN_S in client.said for client in clients] == [True, False, True]
    assert [client.failed for client in clients] == [False, True, False]
    assert refused[0].lane.under_way == 0


@pytest.fixture
def two() -> Iterator[Two]:
    """Both servers."""
    both = Two()
    yield both
    both.close()


def test_aiohttps_way_tells_it_too(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a Retry-After of a second for those who come the slow way, whatever the line says."""

    async def too_late(*_: object) -> None:
        raise Overloaded

    placing = two.plain.shop._placing
    monkeypatch.setattr(placing, "come_again_s", lambda count: [AGAIN_S] * count)
    monkeypatch.setattr(placing, "place", too_late)

    async def story() -> Any:
        line = two.plain.connect()
        line.feed(place())
        await two.loop.rest()
        sent = bytes(line.sent)
        line.lose()
        await two.loop.rest()
        return sent

    sent = two.run(story())
    assert sent.startswith(b"HTTP/1.1 503") and b"\r\nRetry-After: %d\r\n" % AGAIN_S in sent
