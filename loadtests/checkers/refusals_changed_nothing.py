"""A refusal changed nothing: who was only refused holds nothing, is counted for nothing, and lost nothing.

Evidence: for each buyer and SKU with a refused place, the most units that the accepted and the unknown
requests can explain (one order an idempotency key) against the order rows and against Valkey's count of the
buyer. A refused cancellation must have left its order uncancelled.

It stops the half-done refusal: a decrement before the check that is given back in an error path, or not; a
count raised for a request that was then refused (a Lua error half way keeps the earlier writes); sold-out
answers that still close orders as paid (acg-faka: 14 to 15 a run, without a key).

It cannot see a refusal that should have been a sale (that is honesty, not harmlessness), nor one whose
effect was undone before the end; ``no_oversell`` looks at the journal in between.
"""

from __future__ import annotations

from loadtests.checkers.answers import has_order, is_open, is_refused
from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding
from loadtests.record.history import Attempt


def check(evidence: Evidence) -> Finding:
    """Return whether refused requests left no trace."""
    case = Case("refusals_changed_nothing")
    refused: set[tuple[str, str]] = set()
    may: dict[tuple[str, str], dict[str, int]] = {}  # (buyer, sku) -> idempotency key -> units it can explain
    cancels: dict[str, list[Attempt]] = {}
    for attempt in evidence.attempts:
        if attempt.op == "place":
            if is_refused(attempt):
                case.checked += 1
                refused.add((attempt.buyer, attempt.sku))
            elif has_order(attempt) or is_open(attempt):
                keys = may.setdefault((attempt.buyer, attempt.sku), {})
                key = attempt.idempotency_key
                keys[key] = max(keys.get(key, 0), attempt.quantity)
        elif attempt.op == "cancel" and attempt.result in ("ok", "fail", "unknown"):
            cancels.setdefault(attempt.order_id, []).append(attempt)
    _places(case, evidence, refused, may)
    _cancels(case, evidence, cancels)
    return case.close()


def _places(
    case: Case, evidence: Evidence, refused: set[tuple[str, str]], may: dict[tuple[str, str], dict[str, int]]
) -> None:
    ordered: dict[tuple[str, str], int] = {}
    for order in evidence.postgres.orders:
        ordered[order.buyer, order.sku] = ordered.get((order.buyer, order.sku), 0) + order.quantity
    for buyer, sku in refused:
        most = sum(may.get((buyer, sku), {}).values())
        units = ordered.get((buyer, sku), 0)
        if units > most:
            case.against(
                f"Buyer {buyer} was refused {sku} and has orders of {units} units; "
                f"the requests that may have worked explain {most}."
            )
        counted = evidence.valkey.bought.get(sku, {}).get(buyer, 0)
        if counted > most:
            case.against(
                f"Buyer {buyer} was refused {sku} and is counted for {counted} units; "
                f"the requests that may have worked explain {most}."
            )


def _cancels(case: Case, evidence: Evidence, cancels: dict[str, list[Attempt]]) -> None:
    refused = {id_ for id_, asked in cancels.items() if all(is_refused(a) for a in asked)}
    case.checked += len(refused)
    for event in evidence.postgres.events:
        if event.after == "cancelled" and event.order_id in refused:
            case.against(f"Order {event.order_id} is cancelled, though every request to cancel it was refused.")
