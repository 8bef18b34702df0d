"""All that a run left behind and a checker may look at: the history, the gateway's ledger, both stores.

It is written to the run's directory as files and judged from those files, so that anyone can judge it again.
Order ids are 32 hex digits, instants milliseconds since 1970, key hashes hex.
"""

from __future__ import annotations

from typing import Final

import msgspec

from loadtests.record.history import Attempt, Charge


class ProductRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A product as PostgreSQL has it, with how many of its keys are in which state."""

    sku: str
    price: int
    currency: str
    buyer_limit: int
    hold_ms: int
    loaded: int  # units of its imports
    raised: int  # of those, units whose counter fact was projected
    free: int
    sold: int
    void: int


class ImportRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Keys brought in together, and when they were first seen for sale."""

    sku: str
    units: int
    raised_ms: int | None


class OrderRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order as PostgreSQL has it."""

    id: str
    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    state: str
    placed_ms: int
    pay_by_ms: int


class EventRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One move of an order; (entry_ms, entry_seq, record) is its place in the journal, None for the cure's."""

    seq: int
    order_id: str
    before: str | None
    after: str
    at_ms: int
    entry_ms: int | None
    entry_seq: int | None
    record: int | None


class PaymentRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One charge as PostgreSQL has it; ``applied`` is first, late or refund_due."""

    gateway: str
    event_id: str
    order_id: str
    amount: int
    currency: str
    applied: str
    refusal: str


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key given to one line of one order."""

    order_id: str
    line: int
    key_hash: str
    key_sku: str
    key_state: str
    delivered_ms: int


class PostgresState(msgspec.Struct, frozen=True, kw_only=True):
    """PostgreSQL after the run."""

    products: list[ProductRow]
    orders: list[OrderRow]
    events: list[EventRow]  # by seq
    payments: list[PaymentRow]
    deliveries: list[DeliveryRow]
    quarantined: int
    imports: list[ImportRow] = []  # msgspec copies the default


class LiveOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An unfinished order as Valkey has it."""

    id: str
    state: str
    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    pay_by_ms: int


class ValkeyState(msgspec.Struct, frozen=True, kw_only=True):
    """Valkey after the run."""

    now_ms: int
    epoch: int
    free: dict[str, int]  # sku -> units that can be reserved
    bought: dict[str, dict[str, int]]  # sku -> buyer -> units held or bought
    live: list[LiveOrder]
    due: int  # reservations with an end to come
    facts_left: int  # journal entries not yet projected


NO_POSTGRES: Final = PostgresState(products=[], orders=[], events=[], payments=[], deliveries=[], quarantined=0)
NO_VALKEY: Final = ValkeyState(now_ms=0, epoch=0, free={}, bought={}, live=[], due=0, facts_left=0)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything together. ``wanted`` names the things that must have happened, else the run proves nothing."""

    wanted: tuple[str, ...]  # names of loadtests.checkers.non_vacuity
    hot_sku: str
    attempts: list[Attempt]
    charges: list[Charge]
    postgres: PostgresState
    valkey: ValkeyState
    unread: frozenset[str] = frozenset()  # of postgres, valkey: a store nobody could look into; its state is empty


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one checker found. ``checked`` counts the things looked at; violations are sentences, at most 20."""

    name: str
    holds: bool | None  # None: not checked, because a store it needs could not be read; that is never a pass
    checked: int
    violations: list[str] = []  # msgspec copies the default
