"""The invariants, one a file: each a pure function of the evidence that counts what it looked at.

A checker never asks a store and never repairs; it reads what the run left behind. ``CHECKERS`` is the order
of the report. ``non_vacuity`` stands apart: it finds a run *void*, not wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from loadtests.checkers import (
    buyer_limit,
    delivered_exactly,
    keys_conserved,
    legal_moves,
    money_conserved,
    no_order_lost,
    no_oversell,
    no_phantom_order,
    nothing_quarantined,
    one_key_one_buyer,
    refusals_changed_nothing,
    reservations_end_once,
    retries_agree,
    stock_across_stores,
    stock_in_valkey,
)
from loadtests.record.evidence import Evidence, Finding

Checker: TypeAlias = Callable[[Evidence], Finding]

CHECKERS: Final[tuple[tuple[str, Checker], ...]] = (
    ("no_oversell", no_oversell.check),
    ("stock_in_valkey", stock_in_valkey.check),
    ("stock_across_stores", stock_across_stores.check),
    ("no_order_lost", no_order_lost.check),
    ("no_phantom_order", no_phantom_order.check),
    ("refusals_changed_nothing", refusals_changed_nothing.check),
    ("one_key_one_buyer", one_key_one_buyer.check),
    ("delivered_exactly", delivered_exactly.check),
    ("keys_conserved", keys_conserved.check),
    ("buyer_limit", buyer_limit.check),
    ("legal_moves", legal_moves.check),
    ("reservations_end_once", reservations_end_once.check),
    ("money_conserved", money_conserved.check),
    ("retries_agree", retries_agree.check),
    ("nothing_quarantined", nothing_quarantined.check),
)
# What the history alone can break; all others need PostgreSQL.
FROM_HISTORY: Final = frozenset({"one_key_one_buyer", "retries_agree"})
# What also needs Valkey.
FROM_BOTH: Final = frozenset(
    {"stock_in_valkey", "stock_across_stores", "refusals_changed_nothing", "buyer_limit", "reservations_end_once"}
)


def check_all(evidence: Evidence) -> list[Finding]:
    """Return the finding of every invariant, in the order of ``CHECKERS``; without a store it needs, not checked."""
    return [
        Finding(name=name, holds=None, checked=0) if needs(name) & evidence.unread else check(evidence)
        for name, check in CHECKERS
    ]


def needs(name: str) -> frozenset[str]:
    """Return the stores without which an invariant cannot be checked."""
    if name in FROM_HISTORY:
        return frozenset()
    return frozenset({"postgres", "valkey"}) if name in FROM_BOTH else frozenset({"postgres"})
