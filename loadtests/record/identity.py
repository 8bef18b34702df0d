"""What became of every scheduled arrival, counted from the history, each under exactly one word.

An arrival is counted by its *first* place attempt (or, where its story places nothing, by its first request):
what the schedule itself sent. Retries and second clicks belong to the same arrival and are counted elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from loadtests.checkers.answers import has_order, is_sent
from loadtests.generator.contract import TIMEOUT
from loadtests.record.counted import AFTERWARDS
from loadtests.record.history import Attempt
from loadtests.record.summary import Identity

FIRST: Final = frozenset({"first", "over_limit"})  # what the schedule itself sends


def first_places(attempts: Iterable[Attempt]) -> dict[int, Attempt]:
    """Return each arrival's first place attempt (else its first attempt), by the arrival's number."""
    found: dict[int, Attempt] = {}
    for attempt in attempts:
        if attempt.why in AFTERWARDS:
            continue
        known = found.get(attempt.arrival)
        if known is None or _order(attempt) < _order(known):
            found[attempt.arrival] = attempt
    return found


def _order(attempt: Attempt) -> tuple[bool, bool, int]:
    return attempt.op != "place", attempt.why not in FIRST, attempt.sent_us


def identity_of(scheduled: int, firsts: Iterable[Attempt]) -> Identity:
    """Return the counts of all arrivals; ``accounted()`` is ``scheduled`` unless the history is wrong.

    Args:
        scheduled: arrivals the plan had.
        firsts: one attempt an arrival, from ``first_places``.
    """
    ended: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for attempt in firsts:
        word = word_of(attempt)
        if word == "refused":
            refused[attempt.outcome or f"http_{attempt.status}"] += 1
        else:
            ended[word] += 1
    return Identity(
        scheduled=scheduled,
        accepted=ended["accepted"],
        refused=dict(sorted(refused.items(), key=lambda item: (-item[1], item[0]))),
        failed=ended["failed"],
        unknown=ended["unknown"],
        timed_out=ended["timed_out"],
        shed=ended["shed"],
        unsent=ended["unsent"],
    )


def word_of(attempt: Attempt) -> str:
    """Return the one word of the identity that an attempt is counted under."""
    if not is_sent(attempt):
        return attempt.result
    if attempt.result == "unknown":
        return "timed_out" if attempt.outcome == TIMEOUT else "unknown"
    if has_order(attempt) or (attempt.op != "place" and attempt.result == "ok"):
        return "accepted"
    if attempt.status:
        return "refused"
    return "failed" if attempt.result == "fail" else "unknown"


def violations(identity: Identity, numbers: Iterable[int]) -> list[str]:
    """Return what is wrong with the account, one sentence each: a wrong sum, an arrival that was never planned.

    Args:
        identity: the counts.
        numbers: the arrivals' numbers that the history has.
    """
    found = []
    if identity.accounted() != identity.scheduled:
        accounted = identity.accounted()
        found.append(f"{identity.scheduled} arrivals were scheduled; the history accounts for {accounted}.")
    strange = sum(1 for number in numbers if not 0 <= number < identity.scheduled)
    if strange:
        found.append(f"The history has {strange} arrivals that the plan did not have.")
    return found
