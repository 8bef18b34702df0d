"""Under which word each request is counted: one law for whoever counts while the load runs and whoever counts again."""

from __future__ import annotations

from typing import Final

from loadtests.record.history import Attempt

PAID_TO_DELIVERED: Final = "paid_to_delivered"  # from the charge to the first sight of the key, of those who waited
AFTER_RETRY: Final = "_after_retry"  # counted from the instant its buyer began to wait
AFTERWARDS: Final = frozenset({"resolve"})  # asked after the sale, to close open questions; never part of a rate


def outcome_of(attempt: Attempt) -> str:
    """Return the one word an attempt is counted under."""
    if attempt.result in ("unknown", "shed", "unsent"):
        return attempt.result
    return attempt.outcome or attempt.result


def histogram_of(attempt: Attempt) -> str:
    """Return the name of the histogram that a request's latency belongs to; "": none, for nothing was sent."""
    if not attempt.sent_us or attempt.why in AFTERWARDS:
        return ""
    if attempt.op == "place":
        return outcome_of(attempt) + (AFTER_RETRY if attempt.why == "retry" else "")
    return f"{'pay' if attempt.op == 'pay' else attempt.why}_{outcome_of(attempt)}"
