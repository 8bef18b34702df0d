"""The history of a run: what the load asked, when, and what it was told. One JSON line an attempt.

The history never holds a card key, only its keyed hash (the one PostgreSQL has, so both can be compared).
Instants are microseconds since the run's start on the generator's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

Op = Literal["browse", "place", "pay", "track", "cancel"]
# ok: answered as asked. fail: surely nothing was changed. unknown: a timeout, a reset, or a 5xx without
# X-Outcome: not-executed. shed: due, but too many were under way. unsent: due, but the run was over.
Result = Literal["ok", "fail", "unknown", "shed", "unsent"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request of one buyer, or of the gateway (op ``pay``)."""

    arrival: int  # number of the planned arrival this belongs to; later requests of the same buyer share it
    op: Op
    group: str = ""  # of clients, where a scenario sets groups side by side
    why: str  # first, replay, conflict, over_limit, pay, pay_again, pay_late, wait, resolve, …
    buyer: str
    sku: str = ""
    quantity: int = 0
    idempotency_key: str = ""
    order_id: str = ""  # 32 hex digits, as answered (place) or as asked (pay, track, cancel)
    event_id: str = ""
    amount: int = 0
    currency: str = ""
    intended_us: int  # when it was due by the plan (what answers an answer at once: when that came)
    waited_us: int = 0  # from intended to sent: for an earlier answer, or until a connection became free
    connect_us: int = 0  # from intended to sent: for the opening of one; what is left was the generator's
    sent_us: int = 0
    done_us: int = 0
    read_late_us: int | None = None  # before done: how long the reply lay in the kernel unread; None: not measured
    result: Result
    status: int = 0  # HTTP status; 0: no answer
    outcome: str = ""  # accepted, replayed, a refusal's code; pay: what the core answered; track: the state
    answer: str = ""  # place: hash over the answer's fields without `state`, to compare retries
    keys: tuple[str, ...] = ()  # track: hex keyed hashes of the card keys shown

    @property
    def wake_lag_us(self) -> int:
        """The generator's own part of what lies between intended and sent: all that is no wait for a connection."""
        return self.sent_us - self.intended_us - self.waited_us - self.connect_us


class Charge(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One charge the sandbox gateway made: its own ledger, kept apart from what the core says."""

    event_id: str
    order_id: str
    amount: int
    currency: str
    at_us: int


def read(path: Path) -> Iterator[Attempt]:
    """Yield the attempts of a ``history.jsonl`` file, in the order written.

    Raises:
        ValueError: a line is no attempt; the message names the line.
    """
    yield from _lines(path, Attempt)


def read_charges(path: Path) -> Iterator[Charge]:
    """Yield the charges of a ``charges.jsonl`` file.

    Raises:
        ValueError: a line is no charge; the message names the line.
    """
    yield from _lines(path, Charge)


def _lines(path: Path, kind: type[Any]) -> Iterator[Any]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path.name} line {number} is no {kind.__name__}: {error}") from error
