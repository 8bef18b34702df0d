"""A retry is free: one buyer and one idempotency key mean one order and one answer, however often they are
sent.

Evidence: all place attempts, grouped by buyer and idempotency key. Those answered with an order name the
same order, with the same body (a hash over all fields but the state); at most one of them says ``accepted``.
Nobody who sent another SKU or quantity under the key was given that order: a conflict, and a conflict is
only for a different body. A retry sent after an acceptance was answered is never told ``sold_out``,
``limit_reached`` or the like: its order stands. No two keys share an order.

It stops the second order of an impatient buyer, the client library that repeats by itself, the idempotency
record lost at a restart or dropped from a cache, and the sold-out shortcut that answers before it looks.

A first request refused and a later one accepted under the same key is legal: a refusal leaves nothing
behind. It cannot see a retry that came after the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.checkers.answers import CONFLICT, DECIDED, has_order, is_sent
from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding
from loadtests.record.history import Attempt


def check(evidence: Evidence) -> Finding:
    """Return whether all requests under one buyer and key agree."""
    case = Case("retries_agree")
    groups: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in evidence.attempts:
        if attempt.op == "place" and is_sent(attempt):
            who = (attempt.buyer, attempt.idempotency_key)
            asked = groups.get(who)
            if asked is None:
                groups[who] = [attempt]
            else:
                asked.append(attempt)
    case.checked = len(groups)
    named: dict[str, tuple[str, str]] = {}
    for who, asked in groups.items():
        for attempt in asked:
            if has_order(attempt):
                other = named.setdefault(attempt.order_id, who)
                if other != who:
                    case.against(f"Order {attempt.order_id} was given to {_name(other)} and to {_name(who)}.")
        if len(asked) > 1 or asked[0].outcome in CONFLICT:
            _group(case, _name(who), asked, [a for a in asked if has_order(a)])
    return case.close()


def _name(who: tuple[str, str]) -> str:
    return f"buyer {who[0]} with key {who[1]}"


def _group(case: Case, name: str, asked: Sequence[Attempt], given: Sequence[Attempt]) -> None:
    if given:
        first = given[0]
        if len({a.order_id for a in given}) > 1:
            case.against(f"{name} got the orders {sorted({a.order_id for a in given})[:5]}.")
        if len({a.answer for a in given}) > 1:
            case.against(f"{name} got {len({a.answer for a in given})} different answers for order {first.order_id}.")
        if sum(1 for a in given if a.outcome == "accepted") > 1:
            case.against(f"{name} was accepted more than once, not replayed, as order {first.order_id}.")
        if len({(a.sku, a.quantity) for a in given}) > 1:
            case.against(f"{name} sent different requests and all of them were given order {first.order_id}.")
        _refused_after(case, name, asked, given)
    for attempt in asked:
        if attempt.outcome in CONFLICT and attempt.result != "unknown":
            if attempt.order_id:
                case.against(f"{name} was told of a conflict and given order {attempt.order_id}.")
            body = (attempt.sku, attempt.quantity)
            if all((a.sku, a.quantity) == body for a in asked):
                case.against(f"{name} was told of a conflict, having sent only one request.")


def _refused_after(case: Case, name: str, asked: Sequence[Attempt], given: Sequence[Attempt]) -> None:
    settled_us = min(a.done_us for a in given)
    for attempt in asked:
        if attempt.result == "unknown" or attempt.sent_us <= settled_us or has_order(attempt):
            continue
        if attempt.outcome not in DECIDED and attempt.outcome not in CONFLICT:
            continue
        if (attempt.sku, attempt.quantity) == (given[0].sku, given[0].quantity):
            case.against(
                f"{name} has order {given[0].order_id}, and was told {attempt.outcome} "
                "on sending the same request again."
            )
