"""The real scripts on a real Valkey against the oracle: any sequence of batches, deaths included.

Hypothesis makes up what buyers, gateways, the clock, the projector and the operator do; after every batch each answer
and everything the shard holds must be what `model.py` says, and no unit may have appeared or vanished.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pytest
from bench import Bench
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import Model, Order, Rule

from core.backends.valkey import ROOT
from core.errors import Fenced, FlashproofError, StoreUnavailable, StoreUnknown
from core.ids import Names, fingerprint, split_ids
from core.local.stores import LocalStores
from core.sale.orders.store import CancelItem, PayItem, PlaceItem
from core.sale.orders.stream import next_id
from core.sale.stock.raise_units import RAISE, import_name, raise_units
from core.workers.projector import _Session

ASK_AGAIN_MS: Final = 60_000
DAY_MS: Final = 86_400_000
RESTARTS_MOST: Final = 2
BUYERS: Final = ("ann", "bob", "买家 7")
NAMES: Final = Names(b"s" * 32)
OWNERS: Final = {NAMES.order_id(buyer, f"key-{n}"): buyer for buyer in BUYERS for n in range(3)}
ORDERS: Final = st.integers(0, 99)  # see ShopMachine.pick
EVENTS: Final = st.sampled_from(["e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7"])
SKUS: Final = st.sampled_from(["HOT", "HOT", "HOT", "COLD", "COLD", "NONE"])
# an order that is there or a new one, whether its buyer sends the same body again, and the body otherwise
ASKS: Final = st.lists(st.tuples(ORDERS, st.booleans(), SKUS, st.integers(1, 3)), min_size=1, max_size=6)
STATUSES: Final = st.sampled_from(["paid", "paid", "paid", "started", "failed"])
MISTAKES: Final = st.sampled_from(["", "", "", "", "", "amount", "currency"])
REPORTS: Final = st.lists(
    st.tuples(ORDERS, st.sampled_from(["sandbox", "other"]), EVENTS, STATUSES, MISTAKES), min_size=1, max_size=6
)
TO_BUYERS: Final = {"accepted", "replayed", "conflict", "sold_out", "limit_reached", "cancelled"}
INTERESTING: Final = TO_BUYERS | {"paid", "late", "refund_due", "repeated"}
TOLD: Final = st.sampled_from(["delivered", "delivered", "paid", "reserved", "expired", "cancelled"])


class ShopMachine(RuleBasedStateMachine):
    """One shop's life. `bench` is the real one, `model` what it must be."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        rules = {"HOT": Rule(price=1999, limit=3, hold_ms=DAY_MS), "COLD": Rule(price=7, limit=2, hold_ms=DAY_MS * 2)}
        self.model = Model(rules)
        self.bodies: dict[bytes, tuple[str, int]] = {}
        self.epoch, self.restarts = 1, 0
        bench.begin(self.model)
        self.found = bench.dump()

    @initialize(hot=st.integers(2, 9), cold=st.integers(1, 4))
    def stock(self, hot: int, cold: int) -> None:
        """What is there when the sale opens."""
        for number, (sku, units) in enumerate((("HOT", hot), ("COLD", cold)), 101):
            self.raise_stock(number, sku, units)

    def pick(self, number: int) -> bytes:
        """Return an order: most often one that is there, sometimes any."""
        there = self.there()
        among = there if there and number % 8 else sorted(OWNERS)
        return among[number % len(among)]

    def there(self) -> list[bytes]:
        """Return every order there is or was."""
        return sorted({*self.model.live, *self.model.done[0], *self.model.done[1], *self.model.recorded})

    # --- every step ---------------------------------------------------------------------------------------

    def step(self, act: Callable[[], Awaitable[Any]], predict: Callable[[Model, int], Any]) -> Any:
        """Do it to the real shard and to the model, and compare the answers and all that is left behind."""
        began = self.bench.now_ms()
        answers = self.bench.run(act())
        found = self.bench.dump()
        now = self.observed(found, began, self.bench.now_ms())
        expected = predict(self.model, now)
        note(f"  answered {answers}")
        if isinstance(answers, list):
            self.bench.seen.update(one[0] for one in answers if isinstance(one, tuple))
        assert answers == expected
        assert found == self.model.state()
        self.found = found
        return answers

    def observed(self, found: dict[str, Any], began: int, ended: int) -> int:
        """Return the instant the script read from its own clock, from any trace of it; check it is plausible."""
        traces = [fact.at_ms for entry in found["entries"][len(self.found["entries"]) :] for _, fact in entry]
        for order_id, record in found["live"].items():
            if record[8] and record[8] != self.found["live"].get(order_id, [0] * 9)[8]:
                traces.append(record[8])
        for joined, score in found["due"].items():
            pay_bys = {found["live"][one][7] for one in split_ids(joined) if one in found["live"]}
            if score not in {*pay_bys, self.found["due"].get(joined)}:
                traces.append(score - ASK_AGAIN_MS)
        assert all(began <= trace <= ended for trace in traces), (began, traces, ended)
        return int(traces[-1]) if traces else ended

    @invariant()
    def every_order_the_store_knows_is_named(self) -> None:
        """A worker that refuses from memory takes an order that is not named for a new one."""
        known = self.model.done[1] | self.model.done[0] | self.model.live  # a delivered order's record has no SKU
        assert all(order_id[:8] in self.bench.names[order.sku] for order_id, order in known.items())

    @invariant()
    def every_unit_is_free_held_or_sold(self) -> None:
        """What was raised is what is free, held by a live order, or delivered; and buyers have what the counts say."""
        for sku in self.model.rules:
            held: dict[str, int] = {buyer: units for (of, buyer), units in self.model.sold.items() if of == sku}
            for record in self.found["live"].values():
                if record[2] == sku:
                    held[record[3]] = held.get(record[3], 0) + record[4]
            assert self.found["free"][sku] >= 0
            assert self.found["free"][sku] + sum(held.values()) == self.model.raised.get(sku, 0)
            assert self.found["bought"].get(sku, {}) == held
        reserved = {order_id for order_id, record in self.found["live"].items() if record[0] == "reserved"}
        assert self.model.ends() >= reserved

    # --- buyers -------------------------------------------------------------------------------------------

    def item(self, number: int, again: bool, sku: str, quantity: int) -> PlaceItem:
        """Return what a buyer sends: a new order, a retry of what was sent before under its key, or another body."""
        order_id = self.pick(number) if number % 2 else sorted(OWNERS)[number % len(OWNERS)]
        if not again or order_id not in self.bodies:
            self.bodies[order_id] = (sku, quantity)
        sku, quantity = self.bodies[order_id]
        return PlaceItem(order_id, OWNERS[order_id], (sku, fingerprint(sku, quantity), quantity))

    async def placing(self, items: Sequence[PlaceItem], **how: Any) -> list[Any]:
        """Send orders through the lane in one batch; answers as the model gives them."""
        answers = await asyncio.gather(*[self.bench.orders.places.put(item) for item in items], **how)
        return [
            one if isinstance(one, Exception) else msgspec.structs.astuple(one) if one.state else (one.outcome,)
            for one in answers
        ]

    @rule(asks=ASKS)
    def place(self, asks: list[tuple[int, bool, str, int]]) -> None:
        """Orders and retries, with the same body or another, several of one id in one batch."""
        items = [self.item(*ask) for ask in asks]
        entries = len(self.found["entries"])
        answers = self.step(lambda: self.placing(items), lambda model, now: model.place(items, now))
        assert len(self.found["entries"]) - entries == any(answer[0] == "accepted" for answer in answers)

    @precondition(there)
    @rule(asks=st.lists(st.tuples(ORDERS, st.booleans()), min_size=1, max_size=4))
    def cancel(self, asks: list[tuple[int, bool]]) -> None:
        """Cancellations; some after the gateway was asked and had charged nothing."""
        orders = [(self.pick(number), uncharged) for number, uncharged in asks]

        async def act() -> list[tuple[str, str]]:
            lane = self.bench.orders.cancels
            return [
                (one.outcome, one.state) for one in await asyncio.gather(*[lane.put(CancelItem(*o)) for o in orders])
            ]

        self.step(act, lambda model, now: model.cancel(orders, now))

    @precondition(there)
    @rule(numbers=st.lists(ORDERS, min_size=1, max_size=6))
    def look(self, numbers: list[int]) -> None:
        """Where orders stand; reading changes nothing."""
        orders = [self.pick(number) for number in numbers]

        async def act() -> list[Any]:
            found = await asyncio.gather(*[self.bench.orders.tracks.put(order_id) for order_id in orders])
            return [one and msgspec.structs.astuple(one) for one in found]

        self.step(act, lambda model, now: [_seen(model.find(order_id)) for order_id in orders])

    # --- gateways -----------------------------------------------------------------------------------------

    @precondition(there)
    @rule(reports=REPORTS, asked=st.booleans())
    def pay(self, reports: list[tuple[int, str, str, str, str]], asked: bool) -> None:
        """Payments begun, failed and made; repeated, late, of another amount, under another order's event."""
        said = []
        for number, gateway, event, status, mistake in reports:
            order_id = self.pick(number)
            order = self.model.find(order_id) or self.model.recorded.get(order_id)
            amount, currency = (order.amount, order.currency) if order else (100, "CNY")
            amount += mistake == "amount"
            report = (gateway, event, status, amount, "USD" if mistake == "currency" else currency, 1_700_000_000_000)
            said.append((order_id, report, self.model.recorded.get(order_id) if asked else None))
        self.report(said)

    @precondition(lambda self: self.ended())
    @rule(number=st.integers(0, 9), event=st.integers(100, 999))
    def pay_late(self, number: int, event: int) -> None:
        """A charge for an order that had expired or was cancelled: units are taken again, or money goes back."""
        order_id = self.ended()[number % len(self.ended())]
        order = self.model.find(order_id)
        assert order is not None
        self.report([(order_id, ("sandbox", f"late-{event}", "paid", order.amount, order.currency, 1), None)])

    def ended(self) -> list[bytes]:
        """Return the orders that ended unpaid."""
        ends = ("expired", "cancelled")
        return [one for one in self.there() if (order := self.model.find(one)) is not None and order.state in ends]

    def report(self, said: list[tuple[bytes, tuple[str, str, str, int, str, int], Order | None]]) -> None:
        """Tell the shop what gateways say, in one batch."""

        async def act() -> list[tuple[str, str]]:
            items = [PayItem(one, (*report, known.record() if known else False)) for one, report, known in said]
            answers = await asyncio.gather(*[self.bench.orders.payments.put(item) for item in items])
            return [(one.outcome, one.state) for one in answers]

        self.step(act, lambda model, now: model.pay(said, now))

    # --- time, the projector, the operator ----------------------------------------------------------------

    @precondition(lambda self: any(order.state == "reserved" for order in self.model.live.values()))
    @rule(number=st.integers(0, 9), ago=st.integers(1, 5), seen=st.booleans())
    def time_passes(self, number: int, ago: int, seen: bool) -> None:
        """A reservation's time is over: the instants in its record and in the queue are moved to the past."""
        reserved = sorted(one for one, order in self.model.live.items() if order.state == "reserved")
        order_id = reserved[number % len(reserved)]
        self.model.overdue(order_id, self.bench.now_ms() - ago)
        order = self.model.live[order_id]
        self.bench.plain.hset(f"{ROOT}:live", order_id, msgspec.msgpack.encode(order.record()))
        self.bench.plain.zadd(f"{ROOT}:due", {order_id: order.pay_by})
        self.found = self.bench.dump()
        if seen:
            self.expire(4, [])

    @precondition(there)
    @rule(most=st.integers(1, 4), asked=st.lists(ORDERS, max_size=3))
    def expire(self, most: int, asked: list[int]) -> None:
        """The expirer's turn, with orders about which the gateway had been asked and had charged nothing."""
        uncharged = [self.pick(number) for number in asked]
        self.step(
            lambda: self.bench.expiry.release_due(most, ASK_AGAIN_MS, uncharged),
            lambda model, now: model.expire(most, ASK_AGAIN_MS, uncharged, now),
        )

    @precondition(there)
    @rule(orders=st.lists(st.tuples(ORDERS, TOLD), max_size=6), trim=st.integers(0, 3))
    def settle(self, orders: list[tuple[int, str]], trim: int) -> None:
        """The projector tells what PostgreSQL committed, even what is long since overtaken, and trims the journal."""
        said = []
        for number, state in orders:
            order_id = self.pick(number)
            found, known = self.model.find(order_id), self.model.recorded.get(order_id)
            twice = found is not None and known is not None and found.placed != known.placed
            said.append((order_id, known.state if twice and known else state, twice))
        trim = min(trim, len(self.bench.entry_ids))
        keep_from = next_id(*self.bench.entry_ids[trim - 1]) if trim else ""
        self.found["entries"] = self.found["entries"][trim:]
        self.step(lambda: self.bench.settle.settle(said, keep_from), lambda model, now: model.settle(said, trim))

    @rule(import_id=st.integers(1, 6), sku=SKUS, units=st.integers(1, 5))
    def raise_stock(self, import_id: int, sku: str, units: int) -> None:
        """An import raises the stock, once whoever tries and however often."""
        self.step(
            lambda: self.bench.shard.call(RAISE, import_name(import_id), sku, units),
            lambda model, now: model.raise_units(import_name(import_id), sku, units, now),
        )

    @rule(
        sku=st.sampled_from(["HOT", "COLD"]),
        window=st.sampled_from([(0, 0), (-DAY_MS, 0), (-DAY_MS, DAY_MS), (DAY_MS, 0), (-DAY_MS, -1_000)]),
        limit=st.sampled_from([3, 4, 2, 1]),
        price=st.sampled_from([0, 7, 1999]),
    )
    def change_terms(self, sku: str, window: tuple[int, int], limit: int, price: int) -> None:
        """The operator changes price, limit and the sale window; orders placed before keep theirs."""
        now, terms = self.bench.now_ms(), self.model.rules[sku]
        terms.opens_ms, terms.closes_ms = (at and now + at for at in window)
        terms.limit, terms.price = limit, price
        self.bench.put_terms(self.model, sku)

    @rule()
    def a_day_passes(self) -> None:
        """The projector turns the generation of finished orders and events: the older half is forgotten."""
        self.bench.plain.hset(f"{ROOT}:meta", "gen_ms", self.bench.now_ms() - DAY_MS - 2_000)
        session = _Session(None, None, None, self.bench.client, None)  # type: ignore[arg-type]  # it asks Valkey alone
        self.step(session._turn_generation, lambda model, now: model.turn_generation())

    # --- deaths -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.restarts < RESTARTS_MOST)
    @rule(asks=ASKS, after_ms=st.sampled_from([0.0, 0.3, 0.6, 1.0, 3.0]))
    def die_in_the_middle(self, asks: list[tuple[int, bool, str, int]], after_ms: float) -> None:
        """Valkey is killed during a batch and comes back: whole or untouched, then closed, then as before."""
        self.restarts += 1
        items = [self.item(*ask) for ask in asks]
        began = self.bench.now_ms()

        async def act() -> list[Any]:
            batch = asyncio.ensure_future(self.placing(items, return_exceptions=True))
            await asyncio.sleep(after_ms / 1000)
            self.bench.stores.valkey.kill()
            return await batch

        answers = self.bench.run(act())
        self.bench.restart()
        found = self.bench.dump()
        placed = copy.deepcopy(self.model)
        expected = placed.place(items, self.observed(found, began, self.bench.now_ms()))
        unknown = [isinstance(one, Exception) for one in answers]
        note(f"  answered {answers}")
        if any(unknown):
            assert all(isinstance(one, StoreUnknown | StoreUnavailable) for one in answers)
            assert found in (self.model.state(), placed.state())
        else:
            assert answers == expected
            assert found == placed.state()
        if found == placed.state():
            self.model = placed
        self.found = found
        self.stays_closed()
        self.epoch += 1
        self.bench.open(self.epoch)
        self.step(lambda: self.placing(items), lambda model, now: model.place(items, now))

    def stays_closed(self) -> None:
        """On the new process nothing is sold, paid, released or raised; what reads or settles works."""
        bench, order_id = self.bench, min(OWNERS)
        for call in (
            lambda: bench.orders.places.put(PlaceItem(order_id, "eve", ("HOT", "x", 1))),
            lambda: bench.orders.payments.put(PayItem(order_id, ("sandbox", "e9", "paid", 1999, "CNY", 1, False))),
            lambda: bench.orders.cancels.put(CancelItem(order_id, True)),
            lambda: bench.expiry.release_due(10, ASK_AGAIN_MS, []),
            lambda: raise_units(bench.shard, 99, "HOT", 5),
        ):
            assert isinstance(self.second_try(call), Fenced)
        assert _seen(self.model.find(order_id)) == self.second_try(lambda: bench.orders.tracks.put(order_id))
        assert self.second_try(lambda: bench.settle.settle([], "")) == 0
        assert bench.dump() == self.found

    def second_try(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer or the error of a call whose connection died with the old process."""

        async def tried() -> Any:
            try:
                found = await call()
            except FlashproofError as error:
                return error
            return msgspec.structs.astuple(found) if isinstance(found, msgspec.Struct) else found

        first = self.bench.run(tried())
        return self.bench.run(tried()) if isinstance(first, StoreUnknown | StoreUnavailable) else first


def _seen(order: Order | None) -> tuple[Any, ...] | bool:
    """Return what tracking says of an order."""
    if order is None or order.state == "delivered":
        return False
    return order.state, order.sku, order.quantity, order.amount, order.currency, order.pay_by


@pytest.fixture
def bench(stores: LocalStores) -> Iterator[Bench]:
    """The shard to drive, alone."""
    made = Bench(stores)
    try:
        yield made
    finally:
        made.plain.flushall()
        made.close()


def test_the_scripts_do_what_the_model_says_whatever_happens(bench: Bench) -> None:
    """Stops: oversell, a lost or doubled unit, a retry that makes a second order, a charge without a cure."""
    examples = int(os.environ.get("FLASHPROOF_TEST_EXAMPLES", "120"))
    bounds = settings(
        max_examples=examples,
        stateful_step_count=40,
        derandomize=False,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **({"database": None} if os.environ.get("CI") else {}),
    )
    run_state_machine_as_test(lambda: ShopMachine(bench), settings=bounds)
    missing = INTERESTING - bench.seen.keys()
    assert not missing or examples < 100, f"never reached: {missing}; {bench.seen}"
