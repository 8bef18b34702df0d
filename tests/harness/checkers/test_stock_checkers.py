"""Known-wrong stock: each test names the bug it plants, and the checker that must see it."""

from __future__ import annotations

import msgspec
import pytest
from spoiled import altered, pick, rows, spoil, with_more, without
from world import World, a_good_sale, a_good_world

from core.sale.orders.order import HOLDING, MOVES
from loadtests.checkers import CHECKERS, no_oversell, stock_across_stores, stock_in_valkey
from loadtests.record.evidence import Evidence


@pytest.mark.parametrize(("name", "check"), CHECKERS)
def test_each_checker_holds_on_a_right_sale_and_looks_at_something(name: str, check) -> None:
    found = check(a_good_sale())
    assert (found.name, found.holds, found.violations) == (name, True, [])
    assert found.checked > 0


@pytest.mark.parametrize(("name", "check"), CHECKERS)
def test_each_checker_survives_a_shop_in_which_nothing_happened(name: str, check) -> None:
    assert check(World({"hot": 3}).evidence()).holds


def test_every_checker_opens_with_an_essay_on_what_it_stops_and_what_it_cannot_see() -> None:
    for _, check in CHECKERS:
        essay = __import__(check.__module__, fromlist=["__doc__"]).__doc__
        assert "It stops" in essay and "cannot see" in essay.replace("cannot tell", "cannot see"), check.__module__


def test_the_law_gives_and_takes_units_exactly_where_holding_ends_and_begins() -> None:
    for move in MOVES:
        assert move.stock == (move.before in HOLDING) - (move.after in HOLDING), move.why


# --- no_oversell ------------------------------------------------------------------------------------------------


def _one_unit_sold_twice(healed: bool) -> Evidence:
    world = World({"hot": 1})
    world.place("ann")
    world.free["hot"] += 1  # the check that is missing
    second = world.place("bob")
    world.free["hot"] -= 1
    if healed:
        world.cancel(second)
    return world.evidence()


def test_one_unit_held_by_two_orders_is_an_oversell() -> None:
    found = no_oversell.check(_one_unit_sold_twice(healed=False))
    assert not found.holds and "2 units held with 1 raised" in found.violations[0]


def test_an_oversell_in_the_middle_of_the_journal_is_seen_though_it_healed() -> None:
    evidence = _one_unit_sold_twice(healed=True)
    assert stock_in_valkey.check(evidence).holds and stock_across_stores.check(evidence).holds
    assert not no_oversell.check(evidence).holds


def test_the_journal_decides_the_order_not_the_projection() -> None:
    """Release and reserve of the last unit, projected in the wrong order, is no oversell."""
    world = World({"hot": 1})
    first = world.place("ann")
    world.cancel(first)
    world.place("bob")
    right = world.evidence()
    moves = rows(right, "events")
    backwards = [msgspec.structs.replace(move, seq=len(moves) - n) for n, move in enumerate(moves)]
    assert no_oversell.check(spoil(right, events=sorted(backwards, key=lambda e: e.seq))).holds


def test_units_given_back_that_nobody_held_are_seen() -> None:
    evidence = a_good_sale()
    release = pick(evidence, "events", after="cancelled")
    twice = with_more(evidence, "events", *[msgspec.structs.replace(release, seq=900 + n) for n in range(20)])
    assert any("more given back" in v for v in no_oversell.check(twice).violations)


def test_an_oversell_whose_moves_were_lost_is_seen_in_the_rows() -> None:
    evidence = spoil(_one_unit_sold_twice(healed=False), events=[])
    assert not no_oversell.check(evidence).holds


def test_an_illegal_move_does_not_hide_the_units_it_takes() -> None:
    world = World({"hot": 1})
    first = world.place("ann")
    world.expire(first)
    world.place("bob")
    evidence = world.evidence()
    back = msgspec.structs.replace(pick(evidence, "events", after="expired"), seq=50, before="expired")
    back = msgspec.structs.replace(back, after="delivered", entry_ms=back.entry_ms + 10_000)
    assert not no_oversell.check(with_more(evidence, "events", back)).holds


def test_long_lists_of_violations_are_cut_and_counted() -> None:
    world = World({"hot": 100})
    for buyer in range(60):
        world.place(f"b{buyer}")
    evidence = world.evidence()
    products = [msgspec.structs.replace(p, raised=10) for p in evidence.postgres.products]
    found = no_oversell.check(spoil(evidence, products=products))
    assert len(found.violations) == 21 and found.violations[-1] == "… and 31 more of the kind."


# --- stock_in_valkey --------------------------------------------------------------------------------------------


def test_a_unit_lost_between_decrement_and_record_is_seen() -> None:
    evidence = a_good_sale()
    free = dict(evidence.valkey.free)
    assert not stock_in_valkey.check(spoil(evidence, free=free | {"cold": free["cold"] - 1})).holds


def test_an_import_counted_twice_is_seen() -> None:
    evidence = a_good_sale()
    free = dict(evidence.valkey.free)
    assert not stock_in_valkey.check(spoil(evidence, free=free | {"hot": free["hot"] + 9})).holds


def test_a_negative_counter_is_seen_even_when_the_sum_is_right() -> None:
    evidence = spoil(_one_unit_sold_twice(healed=False))
    assert evidence.valkey.free == {"hot": -1}
    assert any("-1 units free" in v for v in stock_in_valkey.check(evidence).violations)


def test_a_live_order_that_the_buyers_count_does_not_know_is_seen() -> None:
    evidence = a_good_sale()
    live = rows(evidence, "live")[0]
    assert not stock_in_valkey.check(altered(evidence, "live", live, buyer="nobody")).holds


# --- stock_across_stores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [-1, 1])
def test_free_units_that_postgres_does_not_confirm_are_seen(change: int) -> None:
    evidence = a_good_sale()
    free = dict(evidence.valkey.free)
    assert not stock_across_stores.check(spoil(evidence, free=free | {"hot": free["hot"] + change})).holds


def test_a_fact_that_was_never_projected_is_seen() -> None:
    assert not stock_across_stores.check(spoil(a_good_sale(), facts_left=1)).holds


def test_an_order_that_only_valkey_knows_is_seen() -> None:
    """A projector that forgets one entry."""
    evidence = a_good_sale()
    live = rows(evidence, "live")[0]
    forgotten = without(evidence, "orders", pick(evidence, "orders", id=live.id))
    assert any("never heard of it" in v for v in stock_across_stores.check(forgotten).violations)


def test_a_reservation_that_only_postgres_knows_is_seen() -> None:
    evidence = spoil(a_good_sale(), live=[])
    assert any("not live in Valkey" in v for v in stock_across_stores.check(evidence).violations)


@pytest.mark.parametrize(
    "fields",
    [{"state": "paid"}, {"quantity": 2}, {"buyer": "eve"}, {"amount": 1}, {"pay_by_ms": 1}, {"currency": "USD"}],
)
def test_an_open_order_that_differs_in_any_field_is_seen(fields: dict[str, object]) -> None:
    evidence = a_good_sale()
    assert not stock_across_stores.check(altered(evidence, "live", rows(evidence, "live")[0], **fields)).holds


def test_a_voided_key_that_is_still_for_sale_is_seen() -> None:
    evidence = a_good_sale()
    cold = pick(evidence, "products", sku="cold")
    voided = altered(evidence, "products", cold, free=cold.free - 1, void=1)
    assert not stock_across_stores.check(voided).holds
    free = dict(evidence.valkey.free)
    taken_off = spoil(voided, free=free | {"cold": free["cold"] - 1})
    assert stock_across_stores.check(taken_off).holds


def test_a_product_that_postgres_does_not_know_is_seen() -> None:
    evidence = a_good_sale()
    assert not stock_across_stores.check(spoil(evidence, free={**evidence.valkey.free, "ghost": 0})).holds


def test_the_good_sale_left_something_open_to_compare() -> None:
    assert a_good_world().evidence().valkey.live
