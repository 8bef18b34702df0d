"""The oracle: what the shop's scripts must answer and leave behind, in plain Python, one request after the other.

The scripts decide a whole batch and then write it in a few calls; the model takes each request alone and writes at
once. Where the two differ, one of them is wrong. It does no I/O and asks no clock: `now` is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from core.facts import Fact, Paid, Placed, Released, Stocked
from core.ids import split_ids
from core.sale.orders.store import PlaceItem

Ask = tuple[str, str, str, int]  # sku, fingerprint, buyer, quantity
Say = tuple[str, str, str, int, str, int]  # gateway, event, status, amount, currency, paid at ms
Generations = tuple[dict[Any, Any], dict[Any, Any]]  # the present one, the one before


def event_name(gateway: str, event: str) -> bytes:
    """Return the digest by which a shard remembers an event."""
    return hashlib.sha1(f"{gateway}\0{event}".encode(), usedforsecurity=False).digest()[:9]


@dataclass
class Rule:
    """The terms of a SKU and its free units."""

    price: int
    limit: int
    hold_ms: int
    currency: str = "CNY"
    opens_ms: int = 0
    closes_ms: int = 0
    free: int = 0


@dataclass
class Order:
    """An order's record, its fields in the order of shard.lua."""

    state: str
    print: str
    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    pay_by: int
    started: int = 0
    placed: int = 0  # Valkey does not keep it; the journal and PostgreSQL do

    def record(self) -> list[Any]:
        """Return it as Valkey holds it while it is live."""
        return list(self.__dict__.values())[:9]

    def remembered(self) -> list[Any]:
        """Return what is kept of it when it is finished: of a delivered one not what was ordered."""
        state, print_, *ordered, amount, currency, pay_by, started = self.record()
        return [state, print_, *([None] * 3 if state == "delivered" else ordered), amount, currency, pay_by, started]


@dataclass
class Model:
    """Everything a shard holds, and what was ever raised and sold."""

    rules: dict[str, Rule]
    live: dict[bytes, Order] = field(default_factory=dict)
    done: Generations = field(default_factory=lambda: ({}, {}))
    events: Generations = field(default_factory=lambda: ({}, {}))
    bought: dict[str, dict[str, int]] = field(default_factory=dict)
    due: dict[bytes, int] = field(default_factory=dict)  # joined ids -> when their reservations end
    imports: dict[bytes, int] = field(default_factory=dict)
    entries: list[list[tuple[bytes, Fact]]] = field(default_factory=list)  # the journal, one entry a batch
    raised: dict[str, int] = field(default_factory=dict)
    sold: dict[tuple[str, str], int] = field(default_factory=dict)  # (sku, buyer) -> units delivered
    recorded: dict[bytes, Order] = field(default_factory=dict)  # what PostgreSQL knows of orders Valkey forgot

    # --- the verbs, each a batch --------------------------------------------------------------------------

    def place(self, asks: Sequence[PlaceItem], now: int) -> list[tuple[Any, ...]]:
        """place.lua: kind after kind; what was accepted of one is one member of the queue."""
        kinds = list(dict.fromkeys(ask.kind for ask in asks))
        answers: dict[int, tuple[Any, ...]] = {}
        with self._entry() as say:
            for sku, print_, quantity in kinds:
                together = []
                for place, ask in enumerate(asks):
                    if ask.kind == (sku, print_, quantity):
                        answers[place] = self._place(ask.order_id, (sku, print_, ask.buyer, quantity), now, say)
                        together += [ask.order_id] * (answers[place][0] == "accepted")
                if together:
                    self.due[b"".join(together)] = self.live[together[0]].pay_by
        return [answers[place] for place in range(len(asks))]

    def _place(self, order_id: bytes, ask: Ask, now: int, say: Callable[[bytes, Fact], None]) -> tuple[Any, ...]:
        sku, print_, buyer, quantity = ask
        prior = self.find(order_id)
        if prior is not None:
            if prior.print != print_:
                return ("conflict",)
            return ("replayed", prior.state, prior.amount, prior.currency, prior.pay_by)
        rule = self.rules.get(sku)
        refusal = "unknown_product" if rule is None else self._refusal(rule, ask, now)
        if rule is None or refusal:
            return (refusal,)
        amount, pay_by = rule.price * quantity, now + rule.hold_ms
        self._take(sku, buyer, quantity)
        self.live[order_id] = Order("reserved", print_, sku, buyer, quantity, amount, rule.currency, pay_by, placed=now)
        say(order_id, Placed(sku, buyer, quantity, amount, rule.currency, now, pay_by))
        return ("accepted", "reserved", amount, rule.currency, pay_by)

    def _refusal(self, rule: Rule, ask: Ask, now: int) -> str:
        sku, _, buyer, quantity = ask
        if now < rule.opens_ms:
            return "not_open"
        if rule.closes_ms and now >= rule.closes_ms:
            return "closed"
        if self.units(sku, buyer) + quantity > rule.limit:
            return "limit_reached"
        return "sold_out" if rule.free < quantity else ""

    def pay(self, reports: Sequence[tuple[bytes, Say, Order | None]], now: int) -> list[tuple[str, str]]:
        """pay.lua; with each report what PostgreSQL knows of the order, where it was asked."""
        with self._entry() as say:
            answers = [self._pay(order_id, report, known, now, say) for order_id, report, known in reports]
        for (order_id, *_), (outcome, _) in zip(reports, answers, strict=True):
            order = self.find(order_id)
            if outcome == "noted" and order is not None and order.state == "reserved":  # not paid in the same batch
                self.due[order_id] = order.pay_by
        return answers

    def _pay(
        self, order_id: bytes, report: Say, known: Order | None, now: int, say: Callable[[bytes, Fact], None]
    ) -> tuple[str, str]:
        gateway, event, status, amount, currency, paid_at = report
        order, name = self.find(order_id) or known, event_name(gateway, event)
        if order is None:
            return "unknown_order", ""
        seen = self.events[0].get(name) or self.events[1].get(name)
        if seen:
            return ("repeated", order.state) if seen == order_id[:9] else ("event_reused", "")
        if (currency, amount) != (order.currency, order.amount):
            return ("currency_mismatch" if currency != order.currency else "amount_mismatch"), ""
        if status != "paid":
            if order.state == "reserved":
                order.started = now if status == "started" else 0
            return "noted", order.state
        self.events[0][name] = order_id[:9]
        outcome, refusal = self._charge(order_id, order)
        applied = {"paid": "first"}.get(outcome, outcome)
        say(order_id, Paid(gateway, event, amount, currency, paid_at, now, applied, refusal))
        return outcome, order.state if refusal == "charged_twice" else {"late": "paid"}.get(outcome, outcome)

    def _charge(self, order_id: bytes, order: Order) -> tuple[str, str]:
        """Return what a charge becomes (paid, late or refund_due) and why it must go back, and apply it."""
        if order.state == "reserved":
            order.state, order.started = "paid", 0
            return "paid", ""
        if order.state not in ("expired", "cancelled"):
            return "refund_due", "charged_twice"
        rule = self.rules[order.sku]
        if rule.free < order.quantity:
            self._finish(order_id, order, "refund_due")
            return "refund_due", "sold_out"
        if self.units(order.sku, order.buyer) + order.quantity > rule.limit:
            self._finish(order_id, order, "refund_due")
            return "refund_due", "limit_reached"
        self._take(order.sku, order.buyer, order.quantity)
        self.live[order_id] = replace(order, state="paid")
        return "late", ""

    def cancel(self, asks: Sequence[tuple[bytes, bool]], now: int) -> list[tuple[str, str]]:
        """cancel.lua."""
        with self._entry() as say:
            return [self._cancel(order_id, uncharged, now, say) for order_id, uncharged in asks]

    def _cancel(
        self, order_id: bytes, uncharged: bool, now: int, say: Callable[[bytes, Fact], None]
    ) -> tuple[str, str]:
        order = self.find(order_id)
        if order is None:
            return "unknown_order", ""
        if order.state == "cancelled":
            return "repeated", "cancelled"
        if order.state != "reserved":
            return "not_cancellable", order.state
        if order.started and not uncharged:
            return "payment_started", "reserved"
        self._give_back(order_id, order, "cancelled")
        say(order_id, Released("cancelled", now))
        return "cancelled", "cancelled"

    def expire(
        self, most: int, ask_again_ms: int, uncharged: Sequence[bytes], now: int
    ) -> tuple[int, int, list[bytes]]:
        """expire.lua."""
        looked_at = self._overdue(most, now)
        later: dict[bytes, int] = {}
        released, ask = 0, []
        with self._entry() as say:
            for order_id in [one for joined in looked_at for one in split_ids(joined)] + list(uncharged):
                order = self.live.get(order_id)
                if order is None or order.state != "reserved":
                    continue
                if order.started and order_id not in uncharged:
                    ask.append(order_id)
                    later[order_id] = now + ask_again_ms
                elif order.pay_by <= now:
                    self._give_back(order_id, order, "expired")
                    say(order_id, Released("expired", now))
                    released += 1
                else:
                    later[order_id] = order.pay_by
        for joined in looked_at:
            del self.due[joined]
        self.due.update(later)
        return released, min(self.due.values(), default=0), ask

    def settle(self, said: Sequence[tuple[bytes, str, bool]], trim: int) -> int:
        """settle.lua; `trim` journal entries are committed and dropped. A release never ends an order paid since."""
        returned = 0
        for order_id, state, undo in said:
            order = self.live.get(order_id)
            if order is None:
                ended = self.find(order_id)
                if undo and ended and ended.state in ("expired", "cancelled") and state in ("delivered", "refund_due"):
                    self._finish(order_id, ended, state)
                continue
            if undo:
                returned += order.quantity
                self._give_back(order_id, order, state)
            elif order.state == "paid" and state == "delivered":
                key = (order.sku, order.buyer)
                self.sold[key] = self.sold.get(key, 0) + order.quantity
                self._finish(order_id, order, state)
        del self.entries[:trim]
        return returned

    def raise_units(self, import_id: bytes, sku: str, units: int, now: int) -> list[bytes | int]:
        """raise.lua."""
        rule = self.rules.get(sku)
        if rule is None:
            return [b"unknown_product", 0]
        if import_id in self.imports:
            return [b"repeated", rule.free]
        self.imports[import_id] = units
        rule.free += units
        self.raised[sku] = self.raised.get(sku, 0) + units
        with self._entry() as say:
            say(import_id, Stocked(sku, units, now))
        return [b"raised", rule.free]

    def turn_generation(self) -> None:
        """A day has passed: the older half of the finished orders and of the events is forgotten."""
        for order_id, order in self.done[1].items():
            if order_id not in self.live and order_id not in self.done[0]:
                self.recorded[order_id] = order
        self.done, self.events = ({}, self.done[0]), ({}, self.events[0])

    def overdue(self, order_id: bytes, pay_by: int) -> None:
        """Its time is over (the test writes the same into Valkey)."""
        self.live[order_id].pay_by = self.due[order_id] = pay_by

    def ends(self) -> set[bytes]:
        """Return the orders that stand in the queue."""
        return {one for joined in self.due for one in split_ids(joined)}

    def _overdue(self, most: int, now: int) -> list[bytes]:
        """Return what of the queue is looked at: the oldest members first, one whatever its size."""
        over = sorted((at, joined) for joined, at in self.due.items() if at <= now)
        taken: list[bytes] = []
        for _, joined in over[:most]:
            if taken and len(b"".join(taken) + joined) > 16 * most:
                break
            taken.append(joined)
        return taken

    # --- what it holds ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return everything a shard must hold, in the shape the test reads the real one."""
        return {
            "free": {sku: rule.free for sku, rule in self.rules.items()},
            "bought": {sku: dict(held) for sku, held in self.bought.items() if held},
            "live": {order_id: order.record() for order_id, order in self.live.items()},
            "done": tuple({order_id: order.remembered() for order_id, order in half.items()} for half in self.done),
            "events": tuple(dict(half) for half in self.events),
            "due": dict(self.due),
            "imports": dict(self.imports),
            "entries": [list(entry) for entry in self.entries],
        }

    def find(self, order_id: bytes) -> Order | None:
        """Return an order's record."""
        return self.live.get(order_id) or self.done[0].get(order_id) or self.done[1].get(order_id)

    def units(self, sku: str, buyer: str) -> int:
        """Return what a buyer holds or has bought of a SKU."""
        return self.bought.get(sku, {}).get(buyer, 0)

    def _take(self, sku: str, buyer: str, units: int) -> None:
        self.rules[sku].free -= units
        held = self.bought.setdefault(sku, {})
        held[buyer] = held.get(buyer, 0) + units
        if not held[buyer]:
            del held[buyer]

    def _give_back(self, order_id: bytes, order: Order, state: str) -> None:
        self._take(order.sku, order.buyer, -order.quantity)
        self._finish(order_id, order, state)

    def _finish(self, order_id: bytes, order: Order, state: str) -> None:
        self.live.pop(order_id, None)
        self.done[0][order_id] = replace(order, state=state, started=0)

    @contextmanager
    def _entry(self) -> Iterator[Callable[[bytes, Fact], None]]:
        """Gather the facts of one batch into one journal entry."""
        facts: list[tuple[bytes, Fact]] = []
        yield lambda order_id, fact: facts.append((order_id, fact))
        if facts:
            self.entries.append(facts)
