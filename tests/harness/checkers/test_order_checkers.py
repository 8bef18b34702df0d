"""Known-wrong orders: lost, out of nowhere, beyond the limit, against the law, ended twice or never."""

from __future__ import annotations

import msgspec
import pytest
from spoiled import altered, pick, rows, spoil, with_more, without
from world import World, a_good_sale

from loadtests.checkers import (
    buyer_limit,
    legal_moves,
    no_order_lost,
    no_phantom_order,
    refusals_changed_nothing,
    reservations_end_once,
    retries_agree,
)
from loadtests.record.evidence import Evidence

# --- no_order_lost, no_phantom_order ----------------------------------------------------------------------------


def test_an_accepted_order_that_is_gone_is_seen() -> None:
    """An acknowledged write lost by a kill."""
    evidence = a_good_sale()
    gone = without(evidence, "orders", pick(evidence, "orders", buyer="ann"))
    assert any("is not in PostgreSQL" in v for v in no_order_lost.check(gone).violations)


def test_a_replayed_order_that_is_gone_is_seen() -> None:
    evidence = a_good_sale()
    accepted = pick(evidence, "attempts", buyer="cid", outcome="accepted")
    only_replayed = without(evidence, "attempts", accepted)
    assert not no_order_lost.check(without(only_replayed, "orders", pick(evidence, "orders", buyer="cid"))).holds


def test_an_order_a_gateway_was_told_of_must_exist() -> None:
    evidence = a_good_sale()
    payment = pick(evidence, "attempts", op="pay", buyer="leo")
    assert not no_order_lost.check(altered(evidence, "attempts", payment, order_id="f" * 32)).holds


def test_an_unknown_answer_may_have_made_an_order_or_not() -> None:
    evidence = a_good_sale()
    unheard = pick(evidence, "orders", buyer="gus")  # exists
    assert not [o for o in evidence.postgres.orders if o.buyer == "max" and o.sku == "hot"]  # does not
    both = (no_order_lost, no_phantom_order)
    assert all(c.check(evidence).holds for c in both)
    assert all(c.check(without(evidence, "orders", unheard)).holds for c in both)


@pytest.mark.parametrize(
    "fields", [{"quantity": 2}, {"sku": "cold"}, {"buyer": "eve"}, {"amount": 1}, {"currency": "USD"}]
)
def test_an_order_kept_otherwise_than_promised_is_seen(fields: dict[str, object]) -> None:
    evidence = a_good_sale()
    changed = altered(evidence, "orders", pick(evidence, "orders", buyer="leo"), **fields)
    assert not no_order_lost.check(changed).holds


def test_an_order_nobody_asked_for_is_a_phantom() -> None:
    evidence = a_good_sale()
    row = pick(evidence, "orders", buyer="leo")
    phantom = with_more(evidence, "orders", msgspec.structs.replace(row, id="e" * 32))
    assert not no_phantom_order.check(phantom).holds


def test_an_unknown_request_accounts_for_one_order_not_for_two() -> None:
    """The client library repeats a call whose reply was lost."""
    evidence = a_good_sale()
    row = pick(evidence, "orders", buyer="gus")
    twice = with_more(evidence, "orders", msgspec.structs.replace(row, id="e" * 32))
    assert not no_phantom_order.check(twice).holds


def test_an_unknown_request_whose_retry_named_its_order_accounts_for_no_other() -> None:
    world = World({"hot": 5})
    world.place("ann", key="k", lost=True)
    world.place("ann", key="k", why="retry")
    evidence = world.evidence()
    row = rows(evidence, "orders")[0]
    assert no_phantom_order.check(evidence).holds
    assert not no_phantom_order.check(with_more(evidence, "orders", msgspec.structs.replace(row, id="e" * 32))).holds


def test_a_request_that_was_surely_refused_accounts_for_no_order() -> None:
    evidence = a_good_sale()
    refused = pick(evidence, "attempts", outcome="sold_out")
    row = msgspec.structs.replace(
        pick(evidence, "orders", buyer="leo"), id="e" * 32, buyer=refused.buyer, quantity=refused.quantity
    )
    others = [a for a in rows(evidence, "attempts") if a.buyer != refused.buyer or a is refused]
    evidence = spoil(evidence, attempts=others, orders=[row])
    assert not no_phantom_order.check(evidence).holds


def test_an_order_of_the_wrong_size_is_a_phantom() -> None:
    evidence = a_good_sale()
    changed = altered(evidence, "orders", pick(evidence, "orders", buyer="gus"), quantity=2)
    assert not no_phantom_order.check(changed).holds


# --- refusals_changed_nothing -----------------------------------------------------------------------------------


def _refused() -> Evidence:
    world = World({"hot": 1})
    world.place("ann")
    world.place("bob")
    return world.evidence()


def test_a_refusal_that_still_counts_against_the_buyer_is_seen() -> None:
    evidence = _refused()
    assert refusals_changed_nothing.check(evidence).checked == 1
    counted = spoil(evidence, bought={"hot": {"ann": 1, "bob": 1}})
    assert not refusals_changed_nothing.check(counted).holds


def test_a_refusal_that_left_an_order_is_seen() -> None:
    evidence = _refused()
    row = msgspec.structs.replace(rows(evidence, "orders")[0], id="e" * 32, buyer="bob")
    assert not refusals_changed_nothing.check(with_more(evidence, "orders", row)).holds


def test_a_refused_cancellation_that_cancelled_is_seen() -> None:
    evidence = a_good_sale()
    refused = pick(evidence, "attempts", outcome="not_cancellable")
    move = pick(evidence, "events", order_id=refused.order_id, after="paid")
    assert not refusals_changed_nothing.check(altered(evidence, "events", move, after="cancelled")).holds


def test_a_cancellation_of_unknown_outcome_may_have_cancelled() -> None:
    evidence = a_good_sale()
    refused = pick(evidence, "attempts", outcome="not_cancellable")
    move = pick(evidence, "events", order_id=refused.order_id, after="paid")
    lost = msgspec.structs.replace(refused, result="unknown", status=0, outcome="timeout")
    evidence = with_more(altered(evidence, "events", move, after="cancelled"), "attempts", lost)
    assert refusals_changed_nothing.check(evidence).holds


# --- retries_agree ----------------------------------------------------------------------------------------------


def test_a_replay_with_another_body_is_seen() -> None:
    evidence = a_good_sale()
    replay = pick(evidence, "attempts", outcome="replayed")
    assert not retries_agree.check(altered(evidence, "attempts", replay, answer="other")).holds


def test_a_retry_that_made_a_second_order_is_seen() -> None:
    evidence = a_good_sale()
    replay = pick(evidence, "attempts", outcome="replayed")
    second = altered(evidence, "attempts", replay, order_id="e" * 32, answer=replay.answer)
    assert not retries_agree.check(second).holds


def test_a_retry_accepted_a_second_time_is_seen() -> None:
    evidence = a_good_sale()
    replay = pick(evidence, "attempts", outcome="replayed")
    assert not retries_agree.check(altered(evidence, "attempts", replay, outcome="accepted")).holds


def test_a_conflict_that_was_given_the_order_is_seen() -> None:
    evidence = a_good_sale()
    conflict = pick(evidence, "attempts", outcome="idempotency_conflict")
    accepted = pick(evidence, "attempts", buyer="cid", outcome="accepted")
    given = altered(evidence, "attempts", conflict, order_id=accepted.order_id)
    assert not retries_agree.check(given).holds
    fields = {"result": "ok", "outcome": "replayed", "order_id": accepted.order_id, "answer": accepted.answer}
    assert not retries_agree.check(altered(evidence, "attempts", conflict, **fields)).holds


def test_a_conflict_told_to_a_buyer_who_only_ever_sent_one_request_is_seen() -> None:
    evidence = a_good_sale()
    refused = pick(evidence, "attempts", outcome="limit_reached")
    assert not retries_agree.check(altered(evidence, "attempts", refused, outcome="idempotency_conflict")).holds


@pytest.mark.parametrize("outcome", ["sold_out", "limit_reached", "sale_closed", "idempotency_conflict"])
def test_a_retry_refused_though_its_order_stands_is_seen(outcome: str) -> None:
    """The sold-out shortcut that answers before it looks for the prior order."""
    evidence = a_good_sale()
    replay = pick(evidence, "attempts", outcome="replayed")
    fields = {"result": "fail", "status": 409, "outcome": outcome, "order_id": "", "answer": ""}
    assert not retries_agree.check(altered(evidence, "attempts", replay, **fields)).holds


def test_a_retry_told_to_come_back_later_is_right() -> None:
    evidence = a_good_sale()
    replay = pick(evidence, "attempts", outcome="replayed")
    fields = {"result": "fail", "status": 503, "outcome": "overloaded", "order_id": "", "answer": ""}
    assert retries_agree.check(altered(evidence, "attempts", replay, **fields)).holds


def test_a_request_first_refused_and_later_accepted_under_one_key_is_right() -> None:
    evidence = a_good_sale()
    mine = [a.outcome for a in evidence.attempts if a.buyer == "hal" and a.op == "place"]
    assert mine == ["sold_out", "sold_out", "accepted"]
    assert retries_agree.check(evidence).holds


def test_two_keys_that_share_an_order_are_seen() -> None:
    evidence = a_good_sale()
    leo = pick(evidence, "attempts", buyer="leo", outcome="accepted")
    kim = pick(evidence, "attempts", buyer="kim", outcome="accepted")
    assert not retries_agree.check(altered(evidence, "attempts", kim, order_id=leo.order_id)).holds


# --- buyer_limit ------------------------------------------------------------------------------------------------


def test_a_buyer_beyond_the_limit_is_seen_though_it_healed() -> None:
    world = World({"hot": 9})
    world.place("ann", quantity=2)
    world.limit = 3  # the check that is missing
    more = world.place("ann")
    world.cancel(more)
    world.limit = 2
    evidence = world.evidence()
    assert not buyer_limit.check(evidence).holds
    assert buyer_limit.check(evidence).violations[0].startswith("Buyer ann held 3 of hot, the limit is 2")


@pytest.mark.parametrize("units", [0, 1, 3])
def test_a_count_that_postgres_does_not_confirm_is_seen(units: int) -> None:
    evidence = a_good_sale()
    bought = {sku: dict(buyers) for sku, buyers in evidence.valkey.bought.items()}
    bought["hot"]["ann"] = units
    assert not buyer_limit.check(spoil(evidence, bought=bought)).holds


def test_a_count_never_given_back_is_seen() -> None:
    evidence = a_good_sale()
    bought = {sku: dict(buyers) for sku, buyers in evidence.valkey.bought.items()}
    bought["hot"]["gus"] = 1  # his reservation expired
    assert not buyer_limit.check(spoil(evidence, bought=bought)).holds


# --- legal_moves ------------------------------------------------------------------------------------------------


def test_a_delivered_order_that_expires_is_seen() -> None:
    evidence = a_good_sale()
    last = pick(evidence, "events", after="delivered")
    late = msgspec.structs.replace(last, seq=900, before="delivered", after="expired", entry_ms=last.entry_ms + 99)
    assert any("no law allows" in v for v in legal_moves.check(with_more(evidence, "events", late)).violations)


@pytest.mark.parametrize("after", ["reserved", "paid", "expired", "delivered"])
def test_any_move_left_out_is_seen(after: str) -> None:
    evidence = a_good_sale()
    assert not legal_moves.check(without(evidence, "events", pick(evidence, "events", after=after))).holds


def test_a_move_made_twice_is_seen() -> None:
    evidence = a_good_sale()
    again = msgspec.structs.replace(pick(evidence, "events", after="delivered"), seq=900)
    assert not legal_moves.check(with_more(evidence, "events", again)).holds


def test_a_row_that_disagrees_with_its_moves_is_seen() -> None:
    evidence = a_good_sale()
    assert not legal_moves.check(altered(evidence, "orders", pick(evidence, "orders", buyer="ann"), state="paid")).holds


def test_moves_without_an_order_and_orders_without_moves_are_seen() -> None:
    evidence = a_good_sale()
    row = pick(evidence, "orders", buyer="ann")
    assert not legal_moves.check(without(evidence, "orders", row)).holds
    moves = [e for e in evidence.postgres.events if e.order_id == row.id]
    assert not legal_moves.check(without(evidence, "events", *moves)).holds


def test_a_cures_delivery_without_a_place_in_the_journal_is_right() -> None:
    evidence = a_good_sale()
    for move in rows(evidence, "events"):
        if move.after == "delivered":
            evidence = altered(evidence, "events", move, entry_ms=None, entry_seq=None, record=None)
    assert legal_moves.check(evidence).holds and reservations_end_once.check(evidence).holds


# --- reservations_end_once --------------------------------------------------------------------------------------


def test_a_unit_given_back_twice_is_seen() -> None:
    """An expiry and a cancellation at the same instant."""
    evidence = a_good_sale()
    move = pick(evidence, "events", after="expired")
    again = msgspec.structs.replace(move, seq=900, after="cancelled", entry_ms=move.entry_ms + 1)
    assert not reservations_end_once.check(with_more(evidence, "events", again)).holds


def test_a_reservation_still_standing_past_its_time_is_seen() -> None:
    evidence = a_good_sale()
    late = evidence.valkey.now_ms + 60_000
    assert any(
        "after its time to pay" in v for v in reservations_end_once.check(spoil(evidence, now_ms=late)).violations
    )


def test_a_reservation_without_an_end_in_the_queue_is_seen() -> None:
    assert not reservations_end_once.check(spoil(a_good_sale(), due=0)).holds


def test_a_reservation_that_expired_before_its_time_is_seen() -> None:
    evidence = a_good_sale()
    move = pick(evidence, "events", after="expired")
    assert not reservations_end_once.check(altered(evidence, "events", move, at_ms=move.at_ms - 5_000)).holds


def test_a_reservation_that_ended_without_a_move_is_seen() -> None:
    evidence = a_good_sale()
    without_end = without(evidence, "events", pick(evidence, "events", after="expired"))
    assert not reservations_end_once.check(without_end).holds
