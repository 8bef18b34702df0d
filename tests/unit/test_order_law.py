"""The law of an order's life: one table, and what it must say about stock and money."""

from __future__ import annotations

from itertools import pairwise

import pytest

from core.sale.orders.order import HOLDING, LEGAL, MOVES, SETTLED, STOCK_OF_MOVE, State, is_legal


def test_no_move_stands_in_the_table_twice() -> None:
    """Stops: two lines for one move that say different things about the stock."""
    assert len(LEGAL) == len(MOVES) == len(STOCK_OF_MOVE)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move.before}-{move.after}")
def test_a_move_changes_the_stock_exactly_when_the_order_begins_or_ends_to_hold_units(move: object) -> None:
    """Stops: a unit that is given back twice, or never: held units and free units must add up on every path."""
    before, after, stock = move.before, move.after, move.stock  # type: ignore[attr-defined]
    assert stock == (before in HOLDING) - (after in HOLDING)


def test_an_order_begins_reserved_and_in_no_other_way() -> None:
    """Stops: an order that exists paid or delivered without ever having been accepted."""
    assert {after for before, after in LEGAL if before is None} == {State.RESERVED}


def test_keys_are_given_only_to_an_order_that_was_paid() -> None:
    """Stops: a way to `delivered` that does not lead over `paid`."""
    without_payment = reachable({(a, b) for a, b in LEGAL if State.PAID not in (a, b)})
    assert not without_payment & {State.DELIVERED, State.HELD, State.IN_REVIEW, State.FROZEN, State.PAID}


def test_a_delivered_order_stays_delivered() -> None:
    """Stops: units of a sold key going back on sale."""
    assert not [after for before, after in LEGAL if before in (State.DELIVERED, State.REFUNDED)]


def test_every_state_can_be_reached_and_every_charge_ends_with_a_cure() -> None:
    """Stops: a state nobody can enter; an order with money from which neither keys nor the money can be had."""
    assert reachable(LEGAL) == set(State)
    for state in (State.PAID, State.HELD, State.IN_REVIEW, State.FROZEN, State.REFUND_DUE):
        assert reachable(LEGAL, state) & {State.DELIVERED, State.REFUNDED}, state


def test_only_the_pairs_in_the_table_are_legal() -> None:
    """Stops: a check that says yes to everything, or takes words for states by chance."""
    said = {(before, after) for before in (None, *State) for after in State if is_legal(before, after)}
    assert said == LEGAL
    assert not is_legal(State.EXPIRED, State.DELIVERED)
    assert not is_legal(State.RESERVED, State.DELIVERED)
    assert is_legal("reserved", "paid")  # type: ignore[arg-type]  # rows of PostgreSQL hold plain words


def test_the_life_everyone_knows_is_legal_step_by_step() -> None:
    """Stops: a table edited so that the main road is closed."""
    for life in (
        [None, State.RESERVED, State.PAID, State.DELIVERED],
        [None, State.RESERVED, State.EXPIRED, State.PAID, State.DELIVERED],
        [None, State.RESERVED, State.CANCELLED, State.REFUND_DUE, State.REFUNDED],
    ):
        for before, after in pairwise(life):
            assert after is not None
            assert is_legal(before, after)


def test_a_buyer_waits_only_where_something_can_still_come() -> None:
    """Stops: a long poll that ends at once while the keys are on their way, or never."""
    assert not SETTLED & {State.RESERVED, State.PAID, State.HELD, State.IN_REVIEW, State.FROZEN}
    assert State.DELIVERED in SETTLED


def reachable(moves: object, start: State | None = None) -> set[State]:
    """Return every state that these moves lead to from `start`."""
    found: set[State] = set()
    todo: list[State | None] = [start]
    while todo:
        here = todo.pop()
        for before, after in moves:  # type: ignore[attr-defined]
            if before == here and after not in found:
                found.add(after)
                todo.append(after)
    return found
