"""The law of an order's life: its states and every move between them, in one table.

The projector, the checkers, the tests and the diagram in ARCHITECTURE.md all read this table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where an order stands. The words are the same in Valkey, PostgreSQL and HTTP."""

    RESERVED = "reserved"
    PAID = "paid"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    HELD = "held"
    IN_REVIEW = "in_review"
    FROZEN = "frozen"
    REFUND_DUE = "refund_due"
    REFUNDED = "refunded"


class Move:
    """One legal step of an order, with why it happens and what it does to the free stock (+1, 0, -1 per unit)."""

    __slots__ = ("after", "before", "stock", "why")

    def __init__(self, before: State | None, after: State, stock: int, why: str) -> None:
        self.before, self.after, self.stock, self.why = before, after, stock, why


_S = State
MOVES: Final[tuple[Move, ...]] = (
    Move(None, _S.RESERVED, -1, "placed"),
    Move(_S.RESERVED, _S.PAID, 0, "paid in time"),
    Move(_S.RESERVED, _S.EXPIRED, +1, "not paid in time"),
    Move(_S.RESERVED, _S.CANCELLED, +1, "cancelled by the buyer"),
    Move(_S.EXPIRED, _S.PAID, -1, "paid late, reserved again"),
    Move(_S.CANCELLED, _S.PAID, -1, "paid after cancelling, reserved again"),
    Move(_S.EXPIRED, _S.REFUND_DUE, 0, "paid late, nothing left"),
    Move(_S.CANCELLED, _S.REFUND_DUE, 0, "paid after cancelling, nothing left"),
    Move(_S.PAID, _S.DELIVERED, 0, "keys claimed and committed"),
    Move(_S.PAID, _S.HELD, 0, "delivery delayed by rule"),
    Move(_S.PAID, _S.IN_REVIEW, 0, "marked by the risk rules"),
    Move(_S.PAID, _S.FROZEN, 0, "frozen by the risk rules"),
    Move(_S.HELD, _S.DELIVERED, 0, "the delay is over"),
    Move(_S.HELD, _S.IN_REVIEW, 0, "marked while held"),
    Move(_S.IN_REVIEW, _S.DELIVERED, 0, "approved"),
    Move(_S.IN_REVIEW, _S.FROZEN, 0, "judged risky"),
    Move(_S.IN_REVIEW, _S.REFUND_DUE, +1, "rejected"),
    Move(_S.FROZEN, _S.IN_REVIEW, 0, "thawed"),
    Move(_S.FROZEN, _S.REFUND_DUE, +1, "rejected"),
    Move(_S.REFUND_DUE, _S.REFUNDED, 0, "money returned"),
)

LEGAL: Final[frozenset[tuple[State | None, State]]] = frozenset((m.before, m.after) for m in MOVES)
STOCK_OF_MOVE: Final[dict[tuple[State | None, State], int]] = {(m.before, m.after): m.stock for m in MOVES}

# An order in one of these holds units that nobody else can have.
HOLDING: Final[frozenset[State]] = frozenset({_S.RESERVED, _S.PAID, _S.DELIVERED, _S.HELD, _S.IN_REVIEW, _S.FROZEN})
# A waiting buyer has nothing more to wait for here.
SETTLED: Final[frozenset[State]] = frozenset({_S.DELIVERED, _S.EXPIRED, _S.CANCELLED, _S.REFUND_DUE, _S.REFUNDED})


def is_legal(before: State | None, after: State) -> bool:
    """Return whether an order may go from ``before`` (None: it did not exist) to ``after``."""
    return (before, after) in LEGAL
