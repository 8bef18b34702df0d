"""How the checkers read an answer: what surely happened, what surely did not, and what stays open.

A place attempt answered ``accepted`` or ``replayed`` says that an order exists. Any other answer, and every
attempt that surely changed nothing, says that *this request* made none. ``unknown`` says nothing alone: the
order may or may not exist, and a delayed request may still take effect after a later retry was refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loadtests.record.history import Attempt

WITH_ORDER: Final = frozenset({"accepted", "replayed"})
CONFLICT: Final = frozenset({"conflict", "idempotency_conflict"})
# Decided by the sale's rules on the request itself. All other refusals (overloaded, shop_recovering, …) only
# say "not now", and say nothing of whether an order exists under the same key.
DECIDED: Final = frozenset(
    {"sold_out", "limit_reached", "sale_not_open", "sale_closed", "not_open", "closed", "unknown_product"}
)


def has_order(attempt: Attempt) -> bool:
    """Return whether this answer promised an order."""
    return attempt.op == "place" and attempt.result == "ok" and attempt.outcome in WITH_ORDER


def is_refused(attempt: Attempt) -> bool:
    """Return whether this request surely changed nothing."""
    return attempt.result == "fail" or (attempt.result == "ok" and attempt.status >= 400)


def is_open(attempt: Attempt) -> bool:
    """Return whether this place may or may not have made an order; an unreadable success is one of these."""
    return attempt.result == "unknown" or (
        attempt.result == "ok" and not has_order(attempt) and not is_refused(attempt)
    )


def is_sent(attempt: Attempt) -> bool:
    """Return whether the request may have reached the shop."""
    return attempt.result in ("ok", "fail", "unknown")


def open_keys(attempts: Iterable[Attempt]) -> dict[tuple[str, str, int], set[str]]:
    """Return, by (buyer, sku, quantity), the idempotency keys left unknown and never given an order.

    Under each of them at most one order may exist that the history cannot name.
    """
    unknown: dict[tuple[str, str, int], set[str]] = {}
    settled: set[tuple[str, str]] = set()
    for attempt in attempts:
        if attempt.op != "place":
            continue
        if is_open(attempt):
            body = (attempt.buyer, attempt.sku, attempt.quantity)
            unknown.setdefault(body, set()).add(attempt.idempotency_key)
        elif has_order(attempt):
            settled.add((attempt.buyer, attempt.idempotency_key))
    left: dict[tuple[str, str, int], set[str]] = {}
    for body, keys in unknown.items():
        still = {key for key in keys if (body[0], key) not in settled}
        if still:
            left[body] = still
    return left
