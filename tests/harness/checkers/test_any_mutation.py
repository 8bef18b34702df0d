"""Whatever single thing is changed in a right sale, some checker sees it; and all of them together are quick."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spoiled import altered, pick, rows, spoil, with_more, without
from world import World, a_good_sale

from core.sale.orders.order import State
from loadtests.checkers import check_all
from loadtests.record.evidence import Evidence

GOOD = a_good_sale()
Draw = Callable[[Any], Any]


def _any(draw: Draw, name: str) -> Any:
    return draw(st.sampled_from(rows(GOOD, name)))


def drop_a_row(draw: Draw) -> Evidence:
    name = draw(st.sampled_from(["events", "payments", "deliveries", "live", "charges"]))
    return without(GOOD, name, _any(draw, name))


def drop_a_promised_order(draw: Draw) -> Evidence:
    known = {a.order_id for a in GOOD.attempts}
    order = draw(st.sampled_from([o for o in GOOD.postgres.orders if o.id in known]))
    return without(GOOD, "orders", order)


def repeat_a_row(draw: Draw) -> Evidence:
    name = draw(st.sampled_from(["orders", "events", "payments", "deliveries", "charges"]))
    return with_more(GOOD, name, _any(draw, name))


def forget_who_asked(draw: Draw) -> Evidence:
    order = _any(draw, "orders")
    asked = [a for a in GOOD.attempts if a.op == "place" and a.buyer == order.buyer]
    return without(GOOD, "attempts", *asked)


def change_an_order(draw: Draw) -> Evidence:
    fields: list[dict[str, Any]] = [{"sku": "warm"}, {"buyer": "zoe"}, {"currency": "USD"}, {"quantity": 7}]
    fields += [{"amount": n} for n in (0, 1, 1998, 10**9)]
    return altered(GOOD, "orders", _any(draw, "orders"), **draw(st.sampled_from(fields)))


def change_a_state(draw: Draw) -> Evidence:
    order = _any(draw, "orders")
    return altered(GOOD, "orders", order, state=draw(st.sampled_from([s.value for s in State if s != order.state])))


def change_a_move(draw: Draw) -> Evidence:
    move = _any(draw, "events")
    end = draw(st.sampled_from(["before", "after"]))
    return altered(
        GOOD, "events", move, **{end: draw(st.sampled_from([s.value for s in State if s != getattr(move, end)]))}
    )


def swap_two_moves(draw: Draw) -> Evidence:
    first = _any(draw, "events")
    others = [e for e in GOOD.postgres.events if e.order_id == first.order_id and e.seq != first.seq]
    if not others:
        return without(GOOD, "events", first)
    second = draw(st.sampled_from(others))
    place = ("seq", "entry_ms", "entry_seq", "record")
    swapped = altered(GOOD, "events", first, **{f: getattr(second, f) for f in place})
    return altered(swapped, "events", second, **{f: getattr(first, f) for f in place})


def change_a_payment(draw: Draw) -> Evidence:
    payment = _any(draw, "payments")
    change = draw(st.sampled_from(["amount", "currency", "order_id", "event_id", "applied"]))
    value: Any = {"amount": payment.amount - 1}.get(change, "other")
    if change == "applied":
        value = draw(st.sampled_from([a for a in ("first", "late", "refund_due") if a != payment.applied]))
    return altered(GOOD, "payments", payment, **{change: value})


def change_a_charge(draw: Draw) -> Evidence:
    charge = _any(draw, "charges")
    change = draw(st.sampled_from([{"amount": charge.amount + 1}, {"currency": "USD"}, {"order_id": "e" * 32}]))
    return altered(GOOD, "charges", charge, **change)


def change_a_delivery(draw: Draw) -> Evidence:
    fields: list[dict[str, Any]] = [{"line": 9}, {"key_hash": "ff"}, {"key_state": "free"}, {"order_id": "e" * 32}]
    fields += [{"key_sku": "warm"}]
    return altered(GOOD, "deliveries", _any(draw, "deliveries"), **draw(st.sampled_from(fields)))


def swap_two_keys(draw: Draw) -> Evidence:
    first = _any(draw, "deliveries")
    second = draw(st.sampled_from([d for d in GOOD.postgres.deliveries if d.order_id != first.order_id]))
    swapped = altered(GOOD, "deliveries", first, key_hash=second.key_hash)
    return altered(swapped, "deliveries", second, key_hash=first.key_hash)


def change_what_a_buyer_saw(draw: Draw) -> Evidence:
    seen = draw(st.sampled_from([a for a in GOOD.attempts if a.keys]))
    keys = draw(st.sampled_from([(), (*seen.keys, "ff"), ("ff", *seen.keys[1:])]))
    return altered(GOOD, "attempts", seen, keys=keys)


def change_an_answer(draw: Draw) -> Evidence:
    answered = draw(st.sampled_from([a for a in GOOD.attempts if a.op == "place" and a.order_id]))
    change = draw(st.sampled_from([{"order_id": "e" * 32}, {"sku": "warm"}, {"quantity": 7}, {"amount": 1}]))
    return altered(GOOD, "attempts", answered, **change)


def change_a_counter(draw: Draw) -> Evidence:
    by = draw(st.sampled_from([-2, -1, 1, 2]))
    sku = draw(st.sampled_from(sorted(GOOD.valkey.free)))
    if draw(st.booleans()):
        return spoil(GOOD, free={**GOOD.valkey.free, sku: GOOD.valkey.free[sku] + by})
    buyers = GOOD.valkey.bought[sku]
    buyer = draw(st.sampled_from(sorted(buyers)))
    return spoil(GOOD, bought={**GOOD.valkey.bought, sku: {**buyers, buyer: buyers[buyer] + by}})


def change_a_product(draw: Draw) -> Evidence:
    product = _any(draw, "products")
    field = draw(st.sampled_from(["price", "loaded", "raised", "free", "sold", "void"]))
    return altered(GOOD, "products", product, **{field: getattr(product, field) + draw(st.sampled_from([-1, 1]))})


def change_a_live_order(draw: Draw) -> Evidence:
    fields: list[dict[str, Any]] = [{"state": "paid"}, {"quantity": 5}, {"buyer": "zoe"}, {"pay_by_ms": 0}]
    return altered(GOOD, "live", _any(draw, "live"), **draw(st.sampled_from(fields)))


def leave_something_over(draw: Draw) -> Evidence:
    return spoil(GOOD, **draw(st.sampled_from([{"facts_left": 1}, {"quarantined": 1}, {"due": 0}])))


MUTATIONS = [
    drop_a_row,
    drop_a_promised_order,
    repeat_a_row,
    forget_who_asked,
    change_an_order,
    change_a_state,
    change_a_move,
    swap_two_moves,
    change_a_payment,
    change_a_charge,
    change_a_delivery,
    swap_two_keys,
    change_what_a_buyer_saw,
    change_an_answer,
    change_a_counter,
    change_a_product,
    change_a_live_order,
    leave_something_over,
]


@settings(max_examples=600)
@given(st.sampled_from(MUTATIONS), st.data())
def test_any_single_change_to_a_right_sale_is_seen_by_some_checker(
    mutation: Callable[..., Evidence], data: Any
) -> None:
    spoiled = mutation(lambda strategy: data.draw(strategy))
    assert spoiled != GOOD
    assert any(not finding.holds for finding in check_all(spoiled)), mutation.__name__


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(1, 3)), max_size=60), st.booleans())
@example([], True)
def test_any_honest_sale_is_found_right(steps: list[tuple[int, int, int]], lost: bool) -> None:
    """Random buyers do random things to an honest shop; no checker may cry wolf."""
    world = World({"hot": 6, "cold": 3})
    for action, who, quantity in steps:
        _act(world, action, f"b{who}", quantity, lost)
    for order in list(world.orders.values()):
        if order.state == "paid":
            world.deliver(order)
            world.track(order)
        elif order.state == "reserved":
            world.expire(order)
    wrong = [v for finding in check_all(world.evidence()) for v in finding.violations]
    assert wrong == []


def _act(world: World, action: int, buyer: str, quantity: int, lost: bool) -> None:
    mine = [order for order in world.orders.values() if order.buyer == buyer]
    if action <= 2 or not mine:
        world.place(buyer, "cold" if action == 2 else "hot", quantity, lost=lost and action == 1)
    elif action == 3:
        world.place(buyer, "hot", quantity, key=_a_key(world, buyer), why="replay")
    elif action <= 5:
        world.pay(mine[-1], times=quantity)
    elif action == 6 and mine[-1].state == "reserved":
        world.expire(mine[-1])
    elif action == 7:
        world.cancel(mine[0])
    elif mine[0].state == "paid":
        world.deliver(mine[0])
        world.track(mine[0])


def _a_key(world: World, buyer: str) -> str:
    return next(a.idempotency_key for a in world.attempts if a.buyer == buyer and a.op == "place")


def test_a_hundred_thousand_attempts_and_twenty_thousand_orders_are_judged_in_seconds() -> None:
    """The bound is loose for a busy machine; a checker that is quadratic in anything misses it by far."""
    world = World({"hot": 20_000, "cold": 10}, limit=2)
    for number in range(20_000):
        order = world.place(f"b{number}")
        if number % 10:
            world.pay(order)
            world.deliver(order)
            world.track(order)
        else:
            world.cancel(order)
    evidence = world.evidence()
    attempts = rows(evidence, "attempts")
    refused = pick(evidence, "attempts", op="place")
    refused = msgspec.structs.replace(refused, result="fail", outcome="sold_out", order_id="", answer="")
    flood = [
        msgspec.structs.replace(refused, buyer=f"r{n}", idempotency_key=f"r{n}") for n in range(100_000 - len(attempts))
    ]
    evidence = with_more(evidence, "attempts", *flood)
    began = time.perf_counter()
    findings = check_all(evidence)
    took_s = time.perf_counter() - began
    assert all(finding.holds for finding in findings)
    assert took_s < 8, took_s
