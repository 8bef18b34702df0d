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

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from loadtests.checkers.answers import CONFLICT, is_refused
from loadtests.checkers.case import Case
from loadtests.checkers.journal import moves_with_order, units_taken
from loadtests.record.evidence import Evidence, Finding
from loadtests.record.history import Attempt

MOSTLY: Final = 0.9  # of all arrivals refused: a storm of refusals
STORM_US: Final = 100_000  # payments told of within so short a time …
STORM_TIMES: Final = 4  # … so many times as many as on average: a storm of payments
POLLS_AN_ORDER: Final = 3
SKUS_LEAST: Final = 20  # a shop of many products
RUSH_TIMES: Final = 2  # the busiest tenth of a day brings so many times as many as the quietest
PARTS: Final = 10
HOSTAGE_SHARE: Final = 0.9  # of all units, reserved by one buyer


def _count(attempts: Iterable[Attempt], op: str, outcomes: frozenset[str], sku: str | None = None) -> int:
    return sum(
        a.op == op and a.outcome in outcomes and a.result in ("ok", "fail") and sku in (None, a.sku) for a in attempts
    )


def _moves(evidence: Evidence, before: tuple[str | None, ...], after: tuple[str, ...]) -> int:
    return sum(1 for e in evidence.postgres.events if e.after in after and e.before in before)


def _raised(evidence: Evidence) -> int:
    return sum(p.raised for p in evidence.postgres.products if p.sku == evidence.hot_sku)


def _resold(evidence: Evidence) -> int:
    reserved = 0
    for event, order in moves_with_order(evidence.postgres.events, evidence.postgres.orders):
        if order.sku == evidence.hot_sku:
            reserved += max(0, units_taken(event)) * order.quantity
    return max(0, reserved - _raised(evidence))


def _firsts(evidence: Evidence) -> list[Attempt]:
    return [a for a in evidence.attempts if a.op == "place" and a.why in ("first", "over_limit")]


def _mostly_refused(evidence: Evidence) -> int:
    """Count the refusals, if nearly all arrivals were refused."""
    firsts = _firsts(evidence)
    refused = sum(map(is_refused, firsts))
    return refused if refused >= MOSTLY * len(firsts) else 0


def _restocked(evidence: Evidence) -> int:
    """Count the units of the hot SKU reserved after more of them had come while the sale ran."""
    of = [order.placed_ms for order in evidence.postgres.orders if order.sku == evidence.hot_sku]
    later = [
        one.raised_ms
        for one in evidence.postgres.imports
        if of and one.sku == evidence.hot_sku and one.raised_ms is not None and one.raised_ms > min(of)
    ]
    return sum(placed_ms >= min(later) for placed_ms in of) if later else 0


def _freed(evidence: Evidence) -> int:
    """Count the orders others paid for, if one buyer had reserved nearly everything and let it expire."""
    taken: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    for event, order in moves_with_order(evidence.postgres.events, evidence.postgres.orders):
        if order.sku == evidence.hot_sku and event.after == "expired":
            taken[order.buyer] += order.quantity
        elif order.sku == evidence.hot_sku and event.after == "paid":
            paid[order.buyer] += 1
    (hoarder, units), *_ = taken.most_common(1) or [("", 0)]
    return paid.total() - paid[hoarder] if units >= HOSTAGE_SHARE * max(1, _raised(evidence)) else 0


def _paid_at_once(evidence: Evidence) -> int:
    """Count the callbacks of the busiest tenth of a second, if they came in a storm."""
    instants = [a.sent_us // STORM_US for a in evidence.attempts if a.op == "pay" and a.sent_us]
    if not instants:
        return 0
    busiest = max(Counter(instants).values())
    return busiest if busiest >= STORM_TIMES * len(instants) / (max(instants) - min(instants) + 1) else 0


def _polled(evidence: Evidence) -> int:
    polls = [a.order_id for a in evidence.attempts if a.op == "track" and a.why == "poll" and a.result == "ok"]
    return len(polls) if len(polls) >= POLLS_AN_ORDER * len(set(polls)) else 0


def _many_skus(evidence: Evidence) -> int:
    found = len({a.sku for a in evidence.attempts if a.op == "place" and a.outcome == "accepted"})
    return found if found >= SKUS_LEAST else 0


def _parts(evidence: Evidence, of: Iterable[Attempt]) -> list[int]:
    """Return how many attempts were due in each tenth of the time."""
    last = max((a.intended_us for a in _firsts(evidence)), default=0) + 1
    count = Counter(min(PARTS - 1, a.intended_us * PARTS // last) for a in of)
    return [count[part] for part in range(PARTS)]


def _rush(evidence: Evidence) -> int:
    parts = _parts(evidence, _firsts(evidence))
    return max(parts) if max(parts) >= RUSH_TIMES * max(1, min(parts)) else 0


def _steady(evidence: Evidence) -> int:
    """Return the orders of the worst tenth of the time."""
    return min(_parts(evidence, [a for a in _firsts(evidence) if a.outcome == "accepted"]))


def _retries(group: str) -> Callable[[Evidence], int]:
    return lambda e: sum(a.op == "place" and a.why == "retry" and a.group == group for a in e.attempts)


def _shown(evidence: Evidence) -> int:
    shown = sum(len(a.keys) for a in evidence.attempts)
    return min(len(evidence.postgres.deliveries), shown) if "postgres" not in evidence.unread else shown


class State(NamedTuple):
    """Something interesting: how often it happened, and the sentence that says it did not."""

    count: Callable[[Evidence], int]
    missing: str
    store: bool = False  # only PostgreSQL knows


STATES: Final[dict[str, State]] = {
    "sold_out": State(
        lambda e: _count(e.attempts, "place", frozenset({"sold_out"}), e.hot_sku),
        "No buyer was told sold_out: the hot product never ran out. Raise the rate or the time, or lower the stock.",
    ),
    "replay": State(
        lambda e: _count(e.attempts, "place", frozenset({"replayed"})),
        "No retry was answered with its order again.",
    ),
    "conflict": State(
        lambda e: _count(e.attempts, "place", CONFLICT),
        "No idempotency key was used for two different requests.",
    ),
    "limit": State(
        lambda e: _count(e.attempts, "place", frozenset({"limit_reached"})), "No buyer ever reached the limit."
    ),
    "expiry": State(lambda e: _moves(e, ("reserved",), ("expired",)), "No reservation expired.", True),
    "cancel": State(lambda e: _moves(e, ("reserved",), ("cancelled",)), "No buyer cancelled.", True),
    "late_payment": State(
        lambda e: _moves(e, ("expired", "cancelled"), ("paid", "refund_due")),
        "Nobody paid after the reservation had ended.",
        True,
    ),
    "late_sold": State(
        lambda e: _moves(e, ("expired", "cancelled"), ("paid",)), "Nobody who paid late got a unit after all.", True
    ),
    "late_refund": State(
        lambda e: _moves(e, ("expired", "cancelled"), ("refund_due",)), "Nobody paid late for what was gone.", True
    ),
    "resale": State(_resold, "No unit of the hot product was given back and sold again.", True),
    "delivery": State(_shown, "No buyer was shown a card key."),
    "browse": State(
        lambda e: sum(a.op == "browse" and a.result == "ok" for a in e.attempts), "Nobody looked at a product."
    ),
    "many_skus": State(_many_skus, f"Fewer than {SKUS_LEAST} products were sold."),
    "rush": State(_rush, f"No tenth of the time was {RUSH_TIMES} times as busy as another."),
    "repeated_callback": State(
        lambda e: _count(e.attempts, "pay", frozenset({"repeated"})), "No callback was told that it is a repetition."
    ),
    "out_of_order": State(
        lambda e: sum(a.op == "pay" and a.why == "pay_started" and a.result == "ok" for a in e.attempts),
        "No callback came after the one that should have followed it.",
    ),
    "pay_storm": State(_paid_at_once, "The payments did not come together: there was no storm."),
    "mostly_refused": State(_mostly_refused, f"Fewer than {MOSTLY:.0%} of the arrivals were refused."),
    "restock": State(_restocked, "Nothing was sold of keys that came while the sale ran.", True),
    "hostage": State(_freed, "Nobody took the whole stock hostage, or nobody got it after it was free.", True),
    "retry_with_budget": State(_retries("budget"), "No client with a retry budget ever asked again."),
    "retry_without_budget": State(_retries("no_budget"), "No client without a retry budget ever asked again."),
    "polled": State(_polled, f"Orders were not looked at {POLLS_AN_ORDER} times each: there was no storm of polls."),
    "steady": State(_steady, "In a tenth of the time nothing was accepted: the load was not steady."),
}


def reached(evidence: Evidence) -> dict[str, int]:
    """Return how often each interesting thing happened, wanted or not, as far as it could be seen."""
    return {name: state.count(evidence) for name, state in STATES.items() if _is_seen(state, evidence)}


def unseen(evidence: Evidence) -> list[str]:
    """Return what the scenario wants and only a store that was not read could show."""
    return [name for name in evidence.wanted if name in STATES and not _is_seen(STATES[name], evidence)]


def _is_seen(state: State, evidence: Evidence) -> bool:
    return not (state.store and "postgres" in evidence.unread)


def check(evidence: Evidence) -> Finding:
    """Return whether everything the scenario wants to have seen was seen, as far as it could be."""
    case = Case("non_vacuity")
    for name in evidence.wanted:
        state = STATES.get(name)
        if state is None:
            case.checked += 1
            case.against(f"The scenario wants {name!r}, which nobody knows how to look for.")
        elif _is_seen(state, evidence):
            case.checked += 1
            if not state.count(evidence):
                case.against(state.missing)
    return case.close()
