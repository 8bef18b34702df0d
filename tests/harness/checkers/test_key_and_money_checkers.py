"""Known-wrong deliveries and payments, each a scar of a real shop."""

from __future__ import annotations

import msgspec
import pytest
from spoiled import altered, pick, rows, spoil, with_more, without
from world import World, a_good_sale

from loadtests.checkers import (
    delivered_exactly,
    keys_conserved,
    money_conserved,
    non_vacuity,
    nothing_quarantined,
    one_key_one_buyer,
)
from loadtests.record.evidence import Evidence


def _order(evidence: Evidence, buyer: str):
    return pick(evidence, "orders", buyer=buyer)


# --- one_key_one_buyer ------------------------------------------------------------------------------------------


def test_one_key_sold_to_two_buyers_is_seen_in_the_store() -> None:
    """A claim without its guard."""
    evidence = a_good_sale()
    ann = pick(evidence, "deliveries", order_id=_order(evidence, "ann").id)
    leo = pick(evidence, "deliveries", order_id=_order(evidence, "leo").id)
    twice = altered(evidence, "deliveries", leo, key_hash=ann.key_hash)
    assert not one_key_one_buyer.check(twice).holds
    assert one_key_one_buyer.duplicated(twice) == 1


def test_one_key_shown_to_two_buyers_is_seen_though_the_store_is_right() -> None:
    evidence = a_good_sale()
    ann = pick(evidence, "attempts", buyer="ann", op="track")
    leo = pick(evidence, "attempts", buyer="leo", op="track")
    shown = altered(evidence, "attempts", leo, keys=ann.keys[:1])
    assert not one_key_one_buyer.check(shown).holds
    assert one_key_one_buyer.duplicated(shown) == 1


def test_keys_shown_to_a_stranger_are_seen() -> None:
    evidence = a_good_sale()
    ann = pick(evidence, "attempts", buyer="ann", op="track")
    stranger = with_more(evidence, "attempts", msgspec.structs.replace(ann, buyer="eve"))
    assert not one_key_one_buyer.check(stranger).holds


def test_one_key_twice_in_one_answer_is_seen() -> None:
    evidence = a_good_sale()
    ann = pick(evidence, "attempts", buyer="ann", op="track")
    assert not one_key_one_buyer.check(altered(evidence, "attempts", ann, keys=(ann.keys[0],) * 2)).holds


def test_looking_at_ones_own_key_again_is_right() -> None:
    evidence = a_good_sale()
    ann = pick(evidence, "attempts", buyer="ann", op="track")
    again = with_more(evidence, "attempts", ann)
    assert one_key_one_buyer.check(again).holds and one_key_one_buyer.duplicated(again) == 0


# --- delivered_exactly ------------------------------------------------------------------------------------------


def test_a_repeated_notice_that_delivers_again_is_seen() -> None:
    evidence = a_good_sale()
    one = pick(evidence, "deliveries", order_id=_order(evidence, "leo").id)
    more = with_more(evidence, "deliveries", msgspec.structs.replace(one, line=2, key_hash="ff" * 32))
    assert not delivered_exactly.check(more).holds


def test_a_delivery_short_of_one_key_is_seen() -> None:
    evidence = a_good_sale()
    one = pick(evidence, "deliveries", order_id=_order(evidence, "ann").id)
    assert not delivered_exactly.check(without(evidence, "deliveries", one)).holds


def test_a_delivery_before_the_payment_is_seen() -> None:
    evidence = a_good_sale()
    paid = pick(evidence, "events", order_id=_order(evidence, "ann").id, after="paid")
    late = altered(evidence, "events", paid, entry_ms=paid.entry_ms + 1)
    assert any("paid, then delivered" in v for v in delivered_exactly.check(late).violations)


def test_a_delivery_without_any_payment_is_seen() -> None:
    evidence = a_good_sale()
    payment = pick(evidence, "payments", order_id=_order(evidence, "ann").id)
    assert not delivered_exactly.check(without(evidence, "payments", payment)).holds


def test_a_key_given_to_an_expired_order_is_seen() -> None:
    evidence = a_good_sale()
    gus = _order(evidence, "gus")
    one = rows(evidence, "deliveries")[0]
    given = msgspec.structs.replace(one, order_id=gus.id, key_hash="ff" * 32)
    assert not delivered_exactly.check(with_more(evidence, "deliveries", given)).holds


def test_a_paid_order_that_never_got_its_key_is_seen() -> None:
    world = World({"hot": 1})
    world.pay(world.place("ann"))
    assert any("never delivered" in v for v in delivered_exactly.check(world.evidence()).violations)


def test_keys_a_buyer_saw_that_are_not_the_stores_are_seen() -> None:
    """Shown before the commit; the crash then gave them to somebody else."""
    evidence = a_good_sale()
    leo = pick(evidence, "attempts", buyer="leo", op="track")
    assert not delivered_exactly.check(altered(evidence, "attempts", leo, keys=("ff" * 32,))).holds
    assert not delivered_exactly.check(altered(evidence, "attempts", leo, keys=())).holds


def test_keys_shown_before_the_order_was_delivered_are_seen() -> None:
    evidence = a_good_sale()
    leo = pick(evidence, "attempts", buyer="leo", op="track")
    assert not delivered_exactly.check(altered(evidence, "attempts", leo, outcome="paid")).holds


def test_a_key_of_another_product_is_seen() -> None:
    evidence = a_good_sale()
    one = pick(evidence, "deliveries", order_id=_order(evidence, "leo").id)
    assert not delivered_exactly.check(altered(evidence, "deliveries", one, key_sku="cold")).holds


# --- keys_conserved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["loaded", "free", "sold", "void"])
def test_any_key_count_off_by_one_is_seen(field: str) -> None:
    evidence = a_good_sale()
    hot = pick(evidence, "products", sku="hot")
    assert not keys_conserved.check(altered(evidence, "products", hot, **{field: getattr(hot, field) + 1})).holds


def test_a_key_sold_while_it_lies_on_the_shelf_is_seen() -> None:
    evidence = a_good_sale()
    one = rows(evidence, "deliveries")[0]
    assert not keys_conserved.check(altered(evidence, "deliveries", one, key_state="free")).holds


def test_a_key_sold_to_nobody_is_seen() -> None:
    """A crash between two statements."""
    evidence = a_good_sale()
    hot = pick(evidence, "products", sku="hot")
    lost = altered(evidence, "products", hot, free=hot.free - 1, sold=hot.sold + 1)
    assert not keys_conserved.check(lost).holds


def test_more_units_for_sale_than_keys_is_seen() -> None:
    evidence = a_good_sale()
    hot = pick(evidence, "products", sku="hot")
    assert not keys_conserved.check(altered(evidence, "products", hot, raised=hot.raised + 1)).holds


# --- money_conserved --------------------------------------------------------------------------------------------


def test_a_charge_that_was_answered_and_forgotten_is_seen() -> None:
    evidence = a_good_sale()
    refund = pick(evidence, "payments", refusal="sold_out")
    forgotten = without(evidence, "payments", refund)
    assert any("nor a refund due" in v or "not on the books" in v for v in money_conserved.check(forgotten).violations)


def test_a_double_charge_applied_twice_is_seen() -> None:
    evidence = a_good_sale()
    second = pick(evidence, "payments", refusal="charged_twice")
    assert not money_conserved.check(altered(evidence, "payments", second, applied="first", refusal="")).holds


def test_a_payment_nobody_was_charged_for_is_seen() -> None:
    evidence = a_good_sale()
    assert not money_conserved.check(without(evidence, "charges", rows(evidence, "charges")[0])).holds


@pytest.mark.parametrize("change", [{"amount": 1998}, {"currency": "USD"}, {"order_id": "e" * 32}])
def test_a_charge_booked_otherwise_than_made_is_seen(change: dict[str, object]) -> None:
    evidence = a_good_sale()
    payment = rows(evidence, "payments")[0]
    assert not money_conserved.check(altered(evidence, "payments", payment, **change)).holds


def test_cents_lost_to_floating_point_are_seen_though_all_books_agree() -> None:
    """19.99 charged as 19.98: ledger, payment and order say the same wrong thing."""
    world = World({"hot": 3})
    world.price = 1998
    order = world.place("ann")
    world.price = 1999
    world.pay(order)
    world.deliver(order)
    assert not money_conserved.check(world.evidence()).holds


def test_a_payment_moved_to_another_order_is_seen() -> None:
    evidence = a_good_sale()
    payment = pick(evidence, "payments", order_id=_order(evidence, "leo").id)
    moved = altered(evidence, "payments", payment, order_id=_order(evidence, "kim").id)
    assert not money_conserved.check(moved).holds


def test_a_charge_on_an_expired_order_without_a_cure_is_seen() -> None:
    evidence = a_good_sale()
    fay = _order(evidence, "fay")
    assert fay.state == "refund_due"
    assert any(
        "no cure" in v for v in money_conserved.check(altered(evidence, "orders", fay, state="expired")).violations
    )


def test_a_refund_due_to_nobody_is_seen() -> None:
    evidence = a_good_sale()
    gus = altered(evidence, "orders", _order(evidence, "gus"), state="refund_due")
    assert any("nobody was charged" in v for v in money_conserved.check(gus).violations)


def test_a_late_payment_booked_as_in_time_is_seen() -> None:
    evidence = a_good_sale()
    late = pick(evidence, "payments", applied="late")
    assert not money_conserved.check(altered(evidence, "payments", late, applied="first")).holds


def test_an_answer_to_the_gateway_that_the_books_contradict_is_seen() -> None:
    evidence = a_good_sale()
    paid = pick(evidence, "attempts", op="pay", outcome="paid")
    assert not money_conserved.check(altered(evidence, "attempts", paid, outcome="refund_due")).holds


def test_a_ledger_or_books_with_one_charge_twice_is_seen() -> None:
    evidence = a_good_sale()
    assert not money_conserved.check(with_more(evidence, "charges", rows(evidence, "charges")[0])).holds
    assert not money_conserved.check(with_more(evidence, "payments", rows(evidence, "payments")[0])).holds


# --- nothing_quarantined, non_vacuity ---------------------------------------------------------------------------


def test_one_record_in_quarantine_is_seen() -> None:
    assert not nothing_quarantined.check(spoil(a_good_sale(), quarantined=1)).holds


def test_a_sale_that_went_everywhere_is_not_vacuous() -> None:
    found = non_vacuity.check(a_good_sale())
    assert found.holds and found.checked == 9


def test_a_sale_in_which_nothing_happened_misses_everything_by_name() -> None:
    found = non_vacuity.check(World({"hot": 1}).evidence())
    assert not found.holds and len(found.violations) == 9


def test_a_resale_needs_more_reserved_than_was_ever_raised() -> None:
    world = World({"hot": 2})
    world.cancel(world.place("ann"))
    world.place("bob")
    assert non_vacuity.reached(world.evidence())["resale"] == 0  # two units served both
    world.place("cid")
    assert non_vacuity.reached(world.evidence())["resale"] == 1


def test_a_sold_out_answer_of_unknown_result_or_another_product_does_not_count() -> None:
    evidence = a_good_sale()
    cold = [msgspec.structs.replace(a, sku="cold") for a in evidence.attempts]
    assert non_vacuity.reached(spoil(evidence, attempts=cold))["sold_out"] == 0
    unknown = [msgspec.structs.replace(a, result="unknown") for a in evidence.attempts]
    assert non_vacuity.reached(spoil(evidence, attempts=unknown))["sold_out"] == 0


def test_a_wish_nobody_knows_is_never_fulfilled() -> None:
    assert not non_vacuity.check(a_good_sale(wanted=("miracle",))).holds
