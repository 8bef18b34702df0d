"""The sandbox payment gateway as the load sees it: it takes money, keeps its own ledger, and tells the shop.

Like real ones it repeats a callback until it gets a definite answer, signing each copy anew. No I/O of its
own: sending and sleeping are passed in, so the same gateway serves the load (gevent) and the resolving later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from loadtests.generator import contract
from loadtests.generator.attempts import Payer, callback_attempt
from loadtests.generator.contract import Placed, Reply
from loadtests.generator.plan import Plan, backoff_us
from loadtests.record.counted import histogram_of
from loadtests.record.history import Attempt, Charge
from loadtests.targets import Notice, Target

CALLBACK_TIMEOUT_S: Final = 10.0
CALLBACK_TRIES_MOST: Final = 8
CALLBACK_BACKOFF_US: Final = 250_000
CALLBACK_PAUSE_MOST_US: Final = 10_000_000

Ask = Callable[[bytes, float], Reply]


class RunClock(Protocol):
    """The run's clock."""

    started_unix_us: int  # where its zero lies, µs since 1970

    def now_us(self) -> int:
        """Return microseconds since the run's start."""


class Book(Protocol):
    """Where attempts and charges are written."""

    def note(self, attempt: Attempt, name: str = "", from_us: int = -1, length: int = 0) -> None:
        """Write one finished attempt, its histogram's name, and the bytes of its answer."""

    def charge(self, charge: Charge) -> None:
        """Write one charge."""


class Gateway:
    """Charges buyers and calls the shop back."""

    __slots__ = ("_ask", "_book", "_clock", "_sleep_us", "_target")

    def __init__(
        self,
        target: Target,
        ask: Ask,
        book: Book,
        clock: RunClock,
        sleep_us: Callable[[int], None],
    ) -> None:
        """Take how the shop is spoken to, the way to it, and the run's clock."""
        self._target, self._ask, self._book = target, ask, book
        self._clock, self._sleep_us = clock, sleep_us

    def take(self, plan: Plan, placed: Placed) -> Charge:
        """Take the money for an order and write it to the ledger; the shop is not told yet."""
        charge = Charge(
            event_id="evt-" + plan.idempotency_key,
            order_id=placed.order_id,
            amount=placed.amount,
            currency=placed.currency,
            at_us=self._clock.now_us(),
        )
        self._book.charge(charge)
        return charge

    def notify(
        self,
        charge: Charge,
        payer: Payer,
        why: str,
        intended_us: int,
        held_us: int = 0,
        *,
        status: str = "paid",
        tries: int = 1,
    ) -> str | None:
        """Tell the shop of a charge until it answers definitely, at most ``tries`` times.

        Args:
            charge: of the ledger.
            payer: who paid.
            why: the word of the first attempt.
            intended_us: when it was due.
            held_us: by how much an earlier answer of the shop made it late.
            status: what is told.
            tries: attempts at most.

        Returns:
            What the shop did (or its refusal's code), or None if that is still unknown.
        """
        event_id = charge.event_id if status == "paid" else f"{charge.event_id}-{status}"
        started_us = self._clock.started_unix_us
        paid_at_ms = (started_us + charge.at_us) // 1000
        for tried in range(1, tries + 1):
            now_s = (started_us + self._clock.now_us()) // 1_000_000
            notice = Notice(event_id, charge.order_id, charge.amount, charge.currency, status, paid_at_ms, now_s)
            reply = self._ask(self._target.pay(notice), CALLBACK_TIMEOUT_S)
            reply.waited_us += held_us
            attempt = callback_attempt(self._target, charge, payer, event_id, why, intended_us, reply)
            self._book.note(attempt, histogram_of(attempt), length=len(reply.body))
            if is_definite(attempt):
                return attempt.outcome
            if tried < tries:
                pause_us = backoff_us(tried, payer.jitter, CALLBACK_BACKOFF_US)
                pause_us = max(pause_us, min(contract.retry_after_us(reply), CALLBACK_PAUSE_MOST_US))
                why, intended_us, held_us = "retry", self._clock.now_us() + pause_us, 0
                self._sleep_us(pause_us)
        return None


def is_definite(attempt: Attempt) -> bool:
    """Return whether a callback is answered for good: handled, or refused in a way no copy can change."""
    return attempt.result == "ok" or (
        attempt.result == "fail" and 400 <= attempt.status < 500 and attempt.status != 429
    )
