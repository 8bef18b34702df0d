"""The sandbox payment gateway as the load sees it: it takes money, keeps its own ledger, and tells the shop.

Like real ones it repeats a callback until it gets a definite answer, signing each copy anew. No I/O of its
own: sending and sleeping are passed in, so the same gateway serves the load (gevent) and the resolving later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from core.clock import iso8601
from loadtests.generator import contract
from loadtests.generator.contract import Placed, Reply, Wire
from loadtests.generator.plan import Plan, backoff_us
from loadtests.record.history import Attempt, Charge

CALLBACK_TIMEOUT_S: Final = 10.0
CALLBACK_TRIES_MOST: Final = 8
CALLBACK_BACKOFF_US: Final = 250_000

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


class Payer(msgspec.Struct, frozen=True, gc=False):
    """Who pays for what: the fields of a charge's attempts that the charge itself does not hold."""

    arrival: int
    buyer: str
    sku: str
    quantity: int
    jitter: float = 0.5


class Gateway:
    """Charges buyers and calls the shop back."""

    __slots__ = ("_ask", "_book", "_clock", "_secret", "_sleep_us", "_wire")

    def __init__(
        self,
        secret: bytes,
        wire: Wire,
        ask: Ask,
        book: Book,
        clock: RunClock,
        sleep_us: Callable[[int], None],
    ) -> None:
        """Take the secret shared with the shop, the way to it, and the run's clock."""
        self._secret, self._wire, self._ask, self._book = secret, wire, ask, book
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
        self, charge: Charge, payer: Payer, why: str, intended_us: int, status: str = "paid", tries: int = 1
    ) -> str | None:
        """Tell the shop of a charge until it answers definitely, at most ``tries`` times.

        Returns:
            What the shop did (or its refusal's code), or None if that is still unknown.
        """
        event_id = charge.event_id if status == "paid" else f"{charge.event_id}-{status}"
        body = callback_body(charge, event_id, status, self._clock.started_unix_us)
        for tried in range(1, tries + 1):
            unix_s = (self._clock.started_unix_us + self._clock.now_us()) // 1_000_000
            raw = self._wire.callback(body, contract.sign(self._secret, body, unix_s))
            reply = self._ask(raw, CALLBACK_TIMEOUT_S)
            attempt = callback_attempt(charge, payer, event_id, why, intended_us, reply)
            name = (
                ""
                if reply.error in contract.NEVER_SENT
                else "pay_" + ("unknown" if attempt.result == "unknown" else attempt.outcome)
            )
            self._book.note(attempt, name, length=len(reply.body))
            if is_definite(attempt):
                return attempt.outcome
            if tried < tries:
                pause_us = backoff_us(tried, payer.jitter, CALLBACK_BACKOFF_US)
                pause_us = max(pause_us, contract.retry_after_us(reply))
                why, intended_us = "retry", self._clock.now_us() + pause_us
                self._sleep_us(pause_us)
        return None


def callback_body(charge: Charge, event_id: str, status: str, started_unix_us: int) -> bytes:
    """Return a callback's JSON body; the same charge gives the same bytes each time."""
    return msgspec.json.encode(
        {
            "event_id": event_id,
            "order_id": charge.order_id,
            "amount": charge.amount,
            "currency": charge.currency,
            "status": status,
            "paid_at": iso8601((started_unix_us + charge.at_us) // 1000),
        }
    )


def callback_attempt(charge: Charge, payer: Payer, event_id: str, why: str, intended_us: int, reply: Reply) -> Attempt:
    """Return the history's line for one callback and its answer."""
    result, outcome = contract.judge(reply)
    if result == "ok":
        told = contract.read_callback(reply)
        result, outcome = ("ok", told) if told else ("unknown", contract.MALFORMED)
    return Attempt(
        arrival=payer.arrival,
        op="pay",
        why=why,
        buyer=payer.buyer,
        sku=payer.sku,
        quantity=payer.quantity,
        order_id=charge.order_id,
        event_id=event_id,
        amount=charge.amount,
        currency=charge.currency,
        intended_us=intended_us,
        sent_us=reply.sent_us,
        done_us=reply.done_us,
        result="unsent" if reply.error == contract.CUT_EARLY else result,
        status=reply.status,
        outcome=outcome,
    )


def is_definite(attempt: Attempt) -> bool:
    """Return whether a callback is answered for good: handled, or refused in a way no copy can change."""
    return attempt.result == "ok" or (
        attempt.result == "fail" and 400 <= attempt.status < 500 and attempt.status != 429
    )
