"""The crowd: the same seed gives the same buyers, in the proportions the scenario promises."""

from __future__ import annotations

from collections import Counter

import pytest

from loadtests.generator.plan import BUYER_LIMIT, Crowd, Plan, backoff_us, cold_skus

COUNT = 40_000


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    crowd = Crowd(1, "hot", 200)
    return [crowd.plan(number) for number in range(COUNT)]


def near(count: int, share: float) -> bool:
    return abs(count / COUNT - share) < 0.15 * share


def test_the_same_seed_gives_the_same_crowd_in_any_order(plans: list[Plan]) -> None:
    again = Crowd(1, "hot", 200)
    assert [again.plan(n) for n in (39_999, 7, 0)] == [plans[39_999], plans[7], plans[0]]
    assert Crowd(2, "hot", 200).plan(7) != plans[7]


def test_buyers_behave_in_the_promised_proportions(plans: list[Plan]) -> None:
    assert near(sum(p.sku == "hot" for p in plans), 0.85)
    again = Counter(p.again for p in plans)
    assert near(again["at_once"], 0.025)
    assert near(again["after"], 0.025)
    assert near(sum(p.conflict is not None for p in plans), 0.02)
    ending = Counter(p.ending for p in plans)
    assert near(ending["never"], 0.10)
    assert near(ending["late"], 0.02)
    assert near(ending["cancel"], 0.02)
    assert near(ending["pay"], 0.86)
    watch = Counter(p.watch for p in plans)
    assert near(watch["early"] + watch["after"], 0.80)
    callbacks = Counter(p.callbacks for p in plans)
    assert near(callbacks["twice"] + callbacks["twice_later"], 0.02)
    assert near(callbacks["started_after"], 0.01)


def test_every_cold_sku_is_wanted(plans: list[Plan]) -> None:
    assert {p.sku for p in plans} == {"hot", *cold_skus(200)}


def test_some_ask_beyond_their_limit_alone_and_some_with_an_earlier_order(plans: list[Plan]) -> None:
    orders: dict[str, list[Plan]] = {}
    for plan in plans:
        orders.setdefault(plan.buyer, []).append(plan)
    over = [p for p in plans if p.why == "over_limit"]
    assert near(len(over), 0.03)
    assert near(sum(p.quantity > BUYER_LIMIT for p in over), 0.01)
    again = [p for p in over if p.quantity == BUYER_LIMIT]
    for plan in again:
        first = orders[plan.buyer][0]
        assert first.number < plan.number
        assert first.sku == plan.sku
    assert near(len(again), 0.02)


def test_a_conflict_is_another_order_and_keys_are_never_shared(plans: list[Plan]) -> None:
    assert all(p.conflict != (p.sku, p.quantity) for p in plans)
    assert all(1 <= p.conflict[1] <= BUYER_LIMIT + 1 for p in plans if p.conflict)
    assert len({p.idempotency_key for p in plans}) == COUNT


def test_pauses_are_within_what_a_short_reservation_allows(plans: list[Plan]) -> None:
    assert all(0 <= p.think_us < 500_000 for p in plans)
    assert all(300_000 <= p.late_us < 1_000_000 for p in plans)
    assert all(0 <= p.jitter < 1 for p in plans)


def test_a_shop_without_cold_skus_works_too() -> None:
    plans = [Crowd(3, "hot", 0).plan(n) for n in range(2_000)]
    assert {p.sku for p in plans} == {"hot"}
    assert all(p.conflict != (p.sku, p.quantity) for p in plans)


def test_the_backoff_doubles_is_spread_and_is_bounded() -> None:
    assert [backoff_us(n, 1.0) for n in (1, 2, 3)] == [100_000, 200_000, 400_000]
    assert backoff_us(1, 0.0) == 50_000
    assert backoff_us(60, 1.0) == 2_000_000
