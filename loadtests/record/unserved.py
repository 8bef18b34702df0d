"""Requests the shop could not serve: neither done nor refused by the sale's rules, but put off, failed or lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loadtests.checkers.answers import is_sent
from loadtests.record.history import Attempt
from loadtests.record.summary import Budgets

_PUT_OFF = (429, 503)


def unserved(attempts: Sequence[Attempt]) -> tuple[int, Counter[str]]:
    """Return how many requests were sent during the run, and those not served, by what was asked and answered."""
    sent = [attempt for attempt in attempts if attempt.why != "resolve" and is_sent(attempt)]
    return len(sent), Counter(f"{a.op} {a.outcome}" for a in sent if a.result == "unknown" or a.status in _PUT_OFF)


def put_off(budgets: Budgets, attempts: Sequence[Attempt]) -> Iterable[str]:
    """Yield a sentence if more requests than the budget's share were not served."""
    if budgets.unserved_share is None:
        return
    sent, by = unserved(attempts)
    if by.total() > budgets.unserved_share * sent:
        most, count = by.most_common(1)[0]
        yield (
            f"{by.total():,} of {sent:,} requests were not served ({count:,} of them {most}); "
            f"the budget is {budgets.unserved_share:.1%}."
        )
