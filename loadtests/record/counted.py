"""Under which word each request is counted: one law for whoever counts while the load runs and whoever counts again."""

from __future__ import annotations

from typing import Final

from core.errors import refusals
from core.sale.orders.order import State
from loadtests.record.history import Attempt

PAID_TO_DELIVERED: Final = "paid_to_delivered"  # from the charge to the first sight of the key, of those who waited
AFTER_RETRY: Final = "_after_retry"  # counted from the instant its buyer began to wait
AFTERWARDS: Final = frozenset({"resolve"})  # asked after the sale, to close open questions; never part of a rate

NAMES_MOST: Final = 200  # that a shop invents, in one run; what is beyond is counted under ``OTHER``
OTHER: Final = "other"
_ANSWERS: Final = frozenset(
    {"accepted", "replayed", "ok", "fail", "unknown", "late", "repeated", "noted", "in", "low", "out"}
)
_WORDS: Final = _ANSWERS | frozenset(refusals()) | frozenset(State)
_ASKED: Final = ("pay_", "wait_", "poll_", "cancel_", "list_", "product_")  # before the word of all but places


def is_invented(name: str) -> bool:
    """Return whether a histogram's name has a word of the shop's own: of those there may be any number.

    The words that budgets and verdicts stand on are few and known, and must never be crowded out by the others.
    """
    word = name.removesuffix(AFTER_RETRY)
    word = next((word.removeprefix(asked) for asked in _ASKED if word.startswith(asked)), word)
    return word not in _WORDS and name not in (PAID_TO_DELIVERED, OTHER)


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
