"""Any shop as a target of the load: an adapter of six functions says how it is spoken to.

Five build whole requests as bytes, the sixth reads the answers into the words of the history. None of them sends,
sleeps or looks at a clock: that is the harness's part, so no adapter can make a shop look faster than it is. A target
is named ``core`` or ``plain``, or by a file of your own; see examples/corner_shop.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from core.errors import BadInput
from loadtests.generator.contract import Placed, Reply
from loadtests.record.history import Result

NAMES: Final = ("core", "plain")
# What a shop may lack; buyers then do not do it, and what follows from it is not expected to be seen.
LACKS: Final = frozenset({"browse", "cancel", "late", "limit", "replay", "started", "wait"})

# What cannot be seen where a shop lacks something: names of loadtests.checkers.non_vacuity.
UNSEEN_WITHOUT: Final = {
    "browse": ("browse",),
    "cancel": ("cancel",),
    "late": ("late_payment", "late_sold", "late_refund"),
    "limit": ("limit",),
    "replay": ("replay", "conflict"),
    "started": ("out_of_order",),
}

Call = Literal["browse", "place", "pay", "track", "cancel"]


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A payment the shop is told of. Times come in; an adapter asks no clock."""

    event_id: str  # of the charge: the same in every copy
    order_id: str
    amount: int
    currency: str
    status: str  # paid, or started
    paid_at_ms: int  # since 1970
    sent_s: int  # since 1970; each copy is signed anew


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What an answer says, in the words of the history."""

    result: Result  # ok: done as asked; fail: surely nothing was changed; unknown: neither is certain
    # place: accepted, replayed or a refusal's code (sold_out, limit_reached, …); pay: what the shop did;
    # track, cancel: the state (reserved, paid, delivered, expired, cancelled, refund_due, …)
    outcome: str
    placed: Placed | None = None  # place: the order; there must be one with accepted and replayed
    keys: tuple[str, ...] = ()  # track: the card keys shown; they are hashed and forgotten
    digest: str = ""  # place: over the answer's lasting fields, to compare retries; "": not compared


class Target(Protocol):
    """A shop's adapter."""

    lacks: frozenset[str]  # of LACKS

    def browse(self, sku: str) -> bytes:
        """Return the request for a product's page, or with "" for the list of products."""

    def place(self, idempotency_key: str, sku: str, buyer: str, quantity: int) -> bytes:
        """Return the request that places an order; the same key stands for the same order."""

    def pay(self, notice: Notice) -> bytes:
        """Return the request by which the shop learns of a payment."""

    def track(self, order_id: str, token: str, wait_s: int) -> bytes:
        """Return the request for an order's state; ``wait_s`` above 0: answer when it changes, if the shop can."""

    def cancel(self, order_id: str, token: str) -> bytes:
        """Return the request that cancels an order."""

    def read(self, call: Call, reply: Reply) -> Answer:
        """Return what an answer says, by its status, headers and body alone: what is refused with the same bytes need
        not be read twice. It is never handed a reply that did not come whole.
        """


def load(name: str, authority: str, sandbox_secret: bytes = b"") -> Target:
    """Return the adapter of a target.

    Args:
        name: ``core``, ``plain``, or the path of a file with a function ``target(authority)``.
        authority: ``host:port``.
        sandbox_secret: signs the callbacks of ``core``.

    Raises:
        BadInput: there is no such adapter, or its file cannot be used.
    """
    if name == "core":
        from loadtests.targets.core import Core

        return Core(authority, sandbox_secret)
    if name == "plain":
        from loadtests.targets.plain import PlainShop

        return PlainShop(authority)
    return _from_file(Path(name), authority)


def _from_file(path: Path, authority: str) -> Target:
    if path.suffix != ".py" or not path.is_file():
        raise BadInput(f"--adapter {path}: write {', '.join(NAMES)} or the path of a .py file of yours")
    spec = importlib.util.spec_from_file_location(f"target_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made: Any = module.target(authority)
    except Exception as error:
        raise BadInput(f"--adapter {path}: {type(error).__name__}: {error}") from error
    calls = ("browse", "place", "pay", "track", "cancel", "read")
    missing = [name for name in calls if not callable(getattr(made, name, None))]
    lacks = getattr(made, "lacks", None)
    if missing or not isinstance(lacks, frozenset) or not lacks <= LACKS:
        what = f"has no {', '.join(missing)}" if missing else f"needs `lacks`, a frozenset of {sorted(LACKS)}"
        raise BadInput(f"--adapter {path}: what target(authority) returns {what}")
    target: Target = made
    return target
