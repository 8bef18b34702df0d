"""A request hidden in another is never an order in one lane only, and mostly in none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from smuggled import EITHER, HIDDEN, PLAIN, REFUSED, TWO_ORDERS
from spoken import HOST, callback, order_body, place, request, status
from two_lanes import Heard, Two, codes

from core.sale.orders.store import PlaceItem


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    """Both servers, which know the plain heads; what spoils a parser for those who come later spoils all behind."""
    both = Two()
    for _ in range(2):
        assert both.taken(PLAIN, status())[0] == 2
    yield both
    both.close()


def hidden_orders(heard: Heard) -> int:
    """How often the hidden order reached the stores."""
    return sum(isinstance(item, PlaceItem) and item.kind[0] == "hidden" for item in heard.done)


def arrivals(said: bytes) -> list[tuple[bytes, ...]]:
    """In how many ways some bytes come in: whole; cut where a reader may stumble."""
    seams = {said.find(b"\r\n\r\n") + extra for extra in (0, 2, 4)} | {said.find(HIDDEN), len(said) - 1, len(said) // 2}
    return [(said,), *[(said[:at], said[at:]) for at in sorted(seams) if 0 < at < len(said)]]


@pytest.mark.parametrize("shape", REFUSED)
def test_a_hidden_order_is_found_by_neither_lane(two: Two, shape: str) -> None:
    """Stops: a body, a folded line or a doubled length that one lane reads as a request of its own."""
    said = REFUSED[shape]
    for pieces in arrivals(said):
        assert hidden_orders(two.agree(*pieces)) == 0, pieces
    for before in ([place()], [callback(), place("sold_out")]):  # on a connection the lane has answered on
        heard = two.agree(*before, said)
        assert hidden_orders(heard) == 0
        assert codes(heard.answers)[: len(before)] == [[201], [200, 409]][len(before) - 1]


@pytest.mark.parametrize("shape", TWO_ORDERS)
def test_an_order_behind_another_request_is_taken_once_by_both_lanes(two: Two, shape: str) -> None:
    """Stops: an honest request lost behind one that the lane does not know, or made twice."""
    for pieces in [*arrivals(TWO_ORDERS[shape]), (place(), TWO_ORDERS[shape])]:
        heard = two.agree(*pieces)
        assert hidden_orders(heard) == 1, pieces
        assert codes(heard.answers)[-1] == 201


@pytest.mark.parametrize("shape", EITHER)
def test_a_switch_of_protocols_that_nobody_offers_is_declined_the_same(two: Two, shape: str) -> None:
    """Stops: bytes behind an upgrade that one lane reads on and the other does not."""
    for pieces in [*arrivals(EITHER[shape]), (place(), EITHER[shape])]:
        assert hidden_orders(two.agree(*pieces)) <= 1


@pytest.mark.parametrize("shape", [*REFUSED, *TWO_ORDERS])
def test_what_one_client_sends_spoils_nothing_for_the_next(two: Two, shape: str) -> None:
    """Stops: a parser shared by all connections that is left in the middle of something, or at its end."""
    new = request("POST /v1/orders HTTP/1.1", [HOST, ("X-Behind", shape), ("Idempotency-Key", "new")], order_body())
    two.agree({**REFUSED, **TWO_ORDERS}[shape])
    taken, heard = two.taken(new, callback())  # the first is of a shape the lane cannot know
    assert (taken, codes(heard.answers)) == (2, [201, 200])
