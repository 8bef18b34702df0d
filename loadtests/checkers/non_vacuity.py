"""The run went where it gets interesting; a sale in which nothing ran out proves nothing about running out.

Evidence: for each name the scenario wants, how often the thing happened. A name with none makes the run
*void*, never wrong: the shop did nothing bad, it was only not put to the test. That is why this stands apart
from the invariants.

``resale`` is exact by counting: once the units ever reserved of the hot SKU exceed the units raised (while
``no_oversell`` holds), at least one of them was reserved, given back, and reserved again. ``delivery`` wants
keys a buyer really saw.

It cannot say how *hard* each state was hit; the counts in the report do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from loadtests.checkers.answers import CONFLICT
from loadtests.checkers.case import Case
from loadtests.checkers.journal import moves_with_order, units_taken
from loadtests.record.evidence import Evidence, Finding


def _place_outcomes(evidence: Evidence, outcomes: frozenset[str], sku: str | None = None) -> int:
    return sum(
        1
        for a in evidence.attempts
        if a.op == "place" and a.outcome in outcomes and a.result in ("ok", "fail") and sku in (None, a.sku)
    )


def _moves(evidence: Evidence, before: tuple[str | None, ...], after: tuple[str, ...]) -> int:
    return sum(1 for e in evidence.postgres.events if e.after in after and e.before in before)


def _resold(evidence: Evidence) -> int:
    raised = sum(p.raised for p in evidence.postgres.products if p.sku == evidence.hot_sku)
    reserved = 0
    for event, order in moves_with_order(evidence.postgres.events, evidence.postgres.orders):
        if order.sku == evidence.hot_sku:
            reserved += max(0, units_taken(event)) * order.quantity
    return max(0, reserved - raised)


# name -> how often it happened, and the sentence that says it did not
_SEEN: Final[dict[str, tuple[Callable[[Evidence], int], str]]] = {
    "sold_out": (
        lambda e: _place_outcomes(e, frozenset({"sold_out"}), e.hot_sku),
        "No buyer was told sold_out: the hot product never ran out. Raise the rate or the time, or lower the stock.",
    ),
    "replay": (
        lambda e: _place_outcomes(e, frozenset({"replayed"})),
        "No retry was answered with its order again.",
    ),
    "conflict": (
        lambda e: _place_outcomes(e, CONFLICT),
        "No idempotency key was used for two different requests.",
    ),
    "limit": (lambda e: _place_outcomes(e, frozenset({"limit_reached"})), "No buyer ever reached the limit."),
    "expiry": (lambda e: _moves(e, ("reserved",), ("expired",)), "No reservation expired."),
    "cancel": (lambda e: _moves(e, ("reserved",), ("cancelled",)), "No buyer cancelled."),
    "late_payment": (
        lambda e: _moves(e, ("expired", "cancelled"), ("paid", "refund_due")),
        "Nobody paid after the reservation had ended.",
    ),
    "resale": (_resold, "No unit of the hot product was given back and sold again."),
    "delivery": (
        lambda e: min(len(e.postgres.deliveries), sum(len(a.keys) for a in e.attempts)),
        "No buyer was shown a card key.",
    ),
}


def reached(evidence: Evidence) -> dict[str, int]:
    """Return how often each interesting thing happened, wanted or not."""
    return {name: count(evidence) for name, (count, _) in _SEEN.items()}


def check(evidence: Evidence) -> Finding:
    """Return whether everything the scenario wants to have seen was seen."""
    case = Case("non_vacuity")
    for name in evidence.wanted:
        case.checked += 1
        count, missing = _SEEN.get(
            name, (lambda _: 0, f"The scenario wants {name!r}, which nobody knows how to look for.")
        )
        if not count(evidence):
            case.against(missing)
    return case.close()
