"""A small honest shop that leaves honest evidence, for tests to spoil.

It decides like the scripts (prior order, limit, stock), keeps both stores in step, and writes the history
the load would have written. ``a_good_sale`` runs it through every interesting state; ``spoiled.py`` changes one
thing in what it left.
"""

from __future__ import annotations

import hashlib
from typing import Any

from core.sale.orders.order import HOLDING
from loadtests.record.evidence import (
    DeliveryRow,
    EventRow,
    Evidence,
    LiveOrder,
    OrderRow,
    PaymentRow,
    PostgresState,
    ProductRow,
    ValkeyState,
)
from loadtests.record.history import Attempt, Charge

EPOCH_MS = 1_760_000_000_000
HOLD_MS = 2_000
ALL = ("sold_out", "replay", "conflict", "expiry", "resale", "late_payment", "limit", "delivery", "cancel")


class Order:
    """One order as the shop remembers it while the world turns."""

    def __init__(self, id_: str, body: tuple[str, int], buyer: str, amount: int, placed_ms: int) -> None:
        self.id, self.sku, self.quantity, self.buyer = id_, body[0], body[1], buyer
        self.amount, self.currency, self.state = amount, "CNY", "reserved"
        self.placed_ms, self.pay_by_ms = placed_ms, placed_ms + HOLD_MS
        self.keys: list[str] = []


class World:
    """The shop, its buyers, its gateway and its clock."""

    def __init__(self, stock: dict[str, int], limit: int = 2, price: int = 1999) -> None:
        self.stock, self.limit, self.price = stock, limit, price
        self.free = dict(stock)
        self.shelf = {sku: [f"{sku}-key-{n}" for n in range(units)] for sku, units in stock.items()}
        self.orders: dict[str, Order] = {}
        self.of_buyer: dict[str, list[Order]] = {}
        self.attempts: list[Attempt] = []
        self.charges: list[Charge] = []
        self.events: list[EventRow] = []
        self.payments: list[PaymentRow] = []
        self.deliveries: list[DeliveryRow] = []
        self.now_ms = EPOCH_MS
        self.arrivals = -1  # the number of the last one; the first is 0

    # --- what happens -------------------------------------------------------------------------------------------

    def tick(self, ms: int = 10) -> None:
        self.now_ms += ms

    def held(self, buyer: str, sku: str) -> int:
        mine = self.of_buyer.get(buyer, [])
        return sum(o.quantity for o in mine if o.sku == sku and o.state in HOLDING)

    def place(
        self, buyer: str, sku: str = "hot", quantity: int = 1, key: str = "", why: str = "first", lost: bool = False
    ) -> Order | None:
        """Place an order; ``lost`` hides the answer from the buyer."""
        self.tick()
        key = key or f"k-{buyer}-{self.arrivals}"
        id_ = hashlib.sha256(f"{buyer}\0{key}".encode()).hexdigest()[:32]
        order, outcome = self._decide(id_, buyer, sku, quantity)
        answered: dict[str, Any] = {"result": "fail", "status": 409, "outcome": outcome}
        if outcome in ("accepted", "replayed"):
            assert order is not None
            answered = {
                "result": "ok",
                "status": 201 if outcome == "accepted" else 200,
                "outcome": outcome,
                "order_id": id_,
                "answer": f"answer-{id_[:8]}",
                "amount": order.amount,
                "currency": order.currency,
            }
        if lost:
            answered = {"result": "unknown", "outcome": "timeout"}
        if why == "first":
            self.arrivals += 1
        self._attempt("place", why, buyer, sku, quantity, idempotency_key=key, arrival=self.arrivals, **answered)
        return order

    def _decide(self, id_: str, buyer: str, sku: str, quantity: int) -> tuple[Order | None, str]:
        prior = self.orders.get(id_)
        if prior:
            same = (prior.sku, prior.quantity) == (sku, quantity)
            return (prior, "replayed") if same else (None, "idempotency_conflict")
        if self.held(buyer, sku) + quantity > self.limit:
            return None, "limit_reached"
        if self.free[sku] < quantity:
            return None, "sold_out"
        order = Order(id_, (sku, quantity), buyer, self.price * quantity, self.now_ms)
        self.orders[id_] = order
        self.of_buyer.setdefault(buyer, []).append(order)
        self.free[sku] -= quantity
        self._event(order, None, "reserved")
        return order, "accepted"

    def pay(self, order: Order | None, times: int = 1) -> None:
        """Charge the buyer once more, and tell the shop of it ``times`` times."""
        assert order is not None
        self.tick()
        event_id = f"evt-{len(self.charges)}"
        self.charges.append(
            Charge(
                event_id=event_id,
                order_id=order.id,
                amount=order.amount,
                currency=order.currency,
                at_us=self.us(),
            )
        )
        applied, refusal = self._charged(order)
        self.payments.append(
            PaymentRow(
                gateway="sandbox",
                event_id=event_id,
                order_id=order.id,
                amount=order.amount,
                currency=order.currency,
                applied=applied,
                refusal=refusal,
            )
        )
        for time in range(times):
            outcome = "repeated" if time else {"first": "paid"}.get(applied, applied)
            self._follow("pay", "pay", order, outcome, event_id=event_id, amount=order.amount, currency="CNY")

    def _charged(self, order: Order) -> tuple[str, str]:
        if order.state == "reserved":
            self._move(order, "paid")
            return "first", ""
        if order.state not in ("expired", "cancelled"):
            return "refund_due", "charged_twice"
        fits = self.held(order.buyer, order.sku) + order.quantity <= self.limit
        if self.free[order.sku] >= order.quantity and fits:
            self.free[order.sku] -= order.quantity
            self._move(order, "paid")
            return "late", ""
        self._move(order, "refund_due")
        return "refund_due", "sold_out" if fits else "limit_reached"

    def deliver(self, order: Order | None) -> None:
        assert order is not None
        self.tick()
        for line in range(1, order.quantity + 1):
            key = hashlib.sha256(self.shelf[order.sku].pop(0).encode()).hexdigest()
            order.keys.append(key)
            self.deliveries.append(
                DeliveryRow(
                    order_id=order.id,
                    line=line,
                    key_hash=key,
                    key_sku=order.sku,
                    key_state="sold",
                    delivered_ms=self.now_ms,
                )
            )
        paid = next(e for e in reversed(self.events) if e.order_id == order.id and e.after == "paid")
        self._move(order, "delivered", place=(paid.entry_ms, paid.entry_seq, paid.record))

    def track(self, order: Order | None) -> None:
        assert order is not None
        self.tick()
        self._follow("track", "wait", order, order.state, keys=tuple(order.keys))

    def sell(self, buyer: str, sku: str = "hot", quantity: int = 1) -> Order:
        """Place, pay, deliver and look."""
        order = self.place(buyer, sku, quantity)
        assert order is not None
        self.pay(order)
        self.deliver(order)
        self.track(order)
        return order

    def expire(self, order: Order | None) -> None:
        assert order is not None
        self.now_ms = max(self.now_ms + 1, order.pay_by_ms)
        self.free[order.sku] += order.quantity
        self._move(order, "expired")

    def cancel(self, order: Order | None, why: str = "cancel") -> None:
        assert order is not None
        self.tick()
        if order.state == "reserved":
            self.free[order.sku] += order.quantity
            self._move(order, "cancelled")
            self._follow("cancel", why, order, "cancelled")
        else:
            self._attempt(
                "cancel",
                why,
                order.buyer,
                order.sku,
                order.quantity,
                order_id=order.id,
                result="fail",
                status=409,
                outcome="not_cancellable",
            )

    # --- what is written down -----------------------------------------------------------------------------------

    def us(self) -> int:
        return (self.now_ms - EPOCH_MS) * 1000

    def _attempt(self, op: Any, why: str, buyer: str, sku: str, quantity: int, **rest: Any) -> None:
        rest.setdefault("arrival", self.arrivals)
        self.attempts.append(
            Attempt(
                op=op,
                why=why,
                buyer=buyer,
                sku=sku,
                quantity=quantity,
                intended_us=self.us() - 3_000,
                sent_us=self.us() - 2_000,
                done_us=self.us(),
                **rest,
            )
        )

    def _follow(self, op: str, why: str, order: Order, outcome: str, **rest: Any) -> None:
        self._attempt(
            op,
            why,
            order.buyer,
            order.sku,
            order.quantity,
            order_id=order.id,
            result="ok",
            status=200,
            outcome=outcome,
            **rest,
        )

    def _move(self, order: Order, after: str, place: tuple[int | None, ...] | None = None) -> None:
        before, order.state = order.state, after
        self._event(order, before, after, place)

    def _event(self, order: Order, before: str | None, after: str, place: tuple[int | None, ...] | None = None) -> None:
        entry_ms, entry_seq, record = place or (self.now_ms, 0, 1)
        self.events.append(
            EventRow(
                seq=len(self.events) + 1,
                order_id=order.id,
                before=before,
                after=after,
                at_ms=self.now_ms,
                entry_ms=entry_ms,
                entry_seq=entry_seq,
                record=record,
            )
        )

    # --- what is left behind ------------------------------------------------------------------------------------

    def evidence(self, wanted: tuple[str, ...] = ALL) -> Evidence:
        return Evidence(
            wanted=wanted,
            hot_sku="hot",
            attempts=list(self.attempts),
            charges=list(self.charges),
            postgres=self._postgres(),
            valkey=self._valkey(),
        )

    def _postgres(self) -> PostgresState:
        products = [
            ProductRow(
                sku=sku,
                price=self.price,
                currency="CNY",
                buyer_limit=self.limit,
                hold_ms=HOLD_MS,
                loaded=units,
                raised=units,
                free=len(self.shelf[sku]),
                sold=units - len(self.shelf[sku]),
                void=0,
            )
            for sku, units in self.stock.items()
        ]
        fields = ("id", "sku", "buyer", "quantity", "amount", "currency", "state", "placed_ms", "pay_by_ms")
        return PostgresState(
            products=products,
            orders=[OrderRow(**{f: getattr(o, f) for f in fields}) for o in self.orders.values()],
            events=list(self.events),
            payments=list(self.payments),
            deliveries=list(self.deliveries),
            quarantined=0,
        )

    def _valkey(self) -> ValkeyState:
        fields = ("id", "state", "sku", "buyer", "quantity", "amount", "currency", "pay_by_ms")
        live = [o for o in self.orders.values() if o.state in ("reserved", "paid")]
        bought: dict[str, dict[str, int]] = {}
        for order in self.orders.values():
            if units := self.held(order.buyer, order.sku):
                bought.setdefault(order.sku, {})[order.buyer] = units
        return ValkeyState(
            now_ms=self.now_ms,
            epoch=1,
            free=dict(self.free),
            bought=bought,
            live=[LiveOrder(**{f: getattr(o, f) for f in fields}) for o in live],
            due=sum(1 for o in live if o.state == "reserved"),
            facts_left=0,
        )


def a_good_world() -> World:
    """A sale that is right in everything and goes everywhere: nine units of `hot`, five of `cold`."""
    world = World({"hot": 9, "cold": 5})
    world.sell("ann", quantity=2)
    world.sell("bob", "cold", 2)
    again = world.place("cid", key="k-cid")
    world.place("cid", key="k-cid", why="replay")
    world.place("cid", key="k-cid", quantity=2, why="conflict")
    world.place("dan", quantity=2)
    world.place("dan", why="over_limit")  # refused: the limit is two
    lazy = world.place("eve", quantity=2)
    fickle = world.place("fay")
    unheard = world.place("gus", key="k-gus", lost=True)  # accepted, and the answer never arrived
    world.place("hal", key="k-hal")  # sold out
    world.place("hal", key="k-hal", why="replay")
    world.pay(again, times=2)
    world.deliver(again)
    world.track(again)
    world.cancel(fickle)
    world.cancel(again)  # too late
    world.place("hal", key="k-hal", why="replay")  # the same key again, and now there is one
    world.cancel(world.orders[_id("hal", "k-hal")])
    for order in list(world.orders.values()):
        if order.state == "reserved" and order is not unheard:
            world.expire(order)
    world.expire(unheard)
    world.pay(lazy)  # late, but units are free again
    world.deliver(lazy)
    world.track(lazy)
    for buyer in ("ida", "jon", "kim"):
        world.sell(buyer)
    world.sell("leo")
    world.place("max", key="k-max", lost=True, quantity=2)  # refused, and the answer never arrived
    world.pay(world.orders[_id("fay", _key_of(world, "fay"))])  # late, nothing left: a refund is due
    world.pay(again)  # a second charge: a refund is due, the order stays
    world.sell("max", "cold")
    world.place("ned", "cold")  # still reserved at the end, with time to pay
    return world


def _id(buyer: str, key: str) -> str:
    return hashlib.sha256(f"{buyer}\0{key}".encode()).hexdigest()[:32]


def _key_of(world: World, buyer: str) -> str:
    return next(a.idempotency_key for a in world.attempts if a.buyer == buyer and a.op == "place")


def a_good_sale(wanted: tuple[str, ...] = ALL) -> Evidence:
    """Return the evidence of ``a_good_world``."""
    return a_good_world().evidence(wanted)
