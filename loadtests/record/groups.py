"""Groups of clients side by side: what each did to the shop with its retries, and what it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loadtests.checkers.answers import has_order, is_sent
from loadtests.record.history import Attempt
from loadtests.record.summary import Budgets, Group

_PLANNED = ("first", "over_limit", "retry", "come_back")


def groups(attempts: Sequence[Attempt]) -> dict[str, Group]:
    """Return what each group did, by its name; nothing where the scenario has no groups."""
    places: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.op == "place" and attempt.group and attempt.why in _PLANNED and is_sent(attempt):
            places.setdefault(attempt.group, []).append(attempt)
    return {name: _group(of) for name, of in sorted(places.items())}


def _group(places: list[Attempt]) -> Group:
    arrivals = len({attempt.arrival for attempt in places})
    return Group(
        arrivals=arrivals,
        requests=len(places),
        requests_per_arrival=round(len(places) / arrivals, 3),
        accepted=len({attempt.arrival for attempt in places if has_order(attempt)}),
        busiest_s=max(Counter(attempt.sent_us // 1_000_000 for attempt in places).values()),
    )


def amplified(budgets: Budgets, found: dict[str, Group]) -> Iterable[str]:
    """Yield a sentence for each group that asked more often than its budget, or that was not there."""
    for name, most in budgets.requests_per_arrival.items():
        group = found.get(name)
        if group is None:
            yield f"There was no client of the group {name}, which has a budget of requests."
        elif group.requests_per_arrival > most:
            yield f"{name}: {group.requests_per_arrival:.2f} requests an arrival; the budget is {most:g}."
