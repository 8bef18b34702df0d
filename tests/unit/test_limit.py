"""The limit of orders and the pace of refusing, in a simulated worker at one, five and ten times its capacity."""

from __future__ import annotations

from itertools import pairwise

import pytest
from flooded import CAPACITY, Flooded, goodput, percentile
from hypothesis import given
from hypothesis import strategies as st

from core.backends.limit import TARGET_S, Limit
from core.settings import ORDERS_LEAST, WAITING_MOST
from core.web.refusing import may_be_told

FLOOD_S = 3.0


@pytest.mark.parametrize(
    ("times", "connections", "least"),
    [(1, 3_000, 0.95), (5, 1_000, 0.9), (5, 3_000, 0.9), (10, 3_000, 0.8), (10, 10_000, 0.8)],
)
def test_in_a_flood_as_much_is_sold_as_before_it(times: int, connections: int, least: float) -> None:
    """Stops: a server that sells less the more is asked of it, and one that sells all of it too late."""
    worker = Flooded(connections=connections)
    answers = worker.run(times * CAPACITY, FLOOD_S)
    assert goodput(answers, FLOOD_S) >= least * CAPACITY
    later = [answer for answer in answers if answer.at_s > 1.0]
    assert percentile(later, 0.99, accepted=True) < 0.1
    assert percentile(answers, 1.0, accepted=False) < 1.2, "the deadline, and the turn it falls into"


def test_on_a_machine_a_third_as_fast_the_limit_and_the_pace_find_their_place() -> None:
    """Stops: figures that fit one machine; without a limit of its own, buyers here would wait a quarter of a second."""
    worker = Flooded(connections=3_000, slow=3)
    worker.run(5 * CAPACITY / 3, FLOOD_S)
    answers = worker.run(5 * CAPACITY / 3, 2 * FLOOD_S)
    assert goodput(answers, 2 * FLOOD_S) >= 0.85 * CAPACITY / 3
    assert percentile(answers, 0.99, accepted=True) < 0.18
    open_wide = Flooded(connections=3_000, slow=3, limit=Limit(WAITING_MOST, WAITING_MOST))
    assert percentile(open_wide.run(5 * CAPACITY / 3, FLOOD_S), 0.99, accepted=True) > 0.2


@pytest.mark.parametrize("times", [5, 10])
def test_where_the_store_is_what_sells_no_more_all_who_are_refused_hear_it_at_once(times: int) -> None:
    """Stops: a slow store's queue filled with a flood before its first call is judged, and a pace that nobody needs."""
    slow = {"call_s": 0.03, "call_order_s": 6e-4, "waited": 0.0}  # a loop with time, a core that nobody else wants
    free = Flooded(connections=256, limit=Limit(WAITING_MOST, WAITING_MOST), **slow)
    free.run(CAPACITY, FLOOD_S)
    peak = goodput(free.run(CAPACITY, FLOOD_S), FLOOD_S)
    worker = Flooded(connections=2_000, **slow)
    worker.run(peak / 2, 2.0)
    answers = worker.run(times * peak, 2 * FLOOD_S)
    assert len(answers) >= times * peak * 2 * FLOOD_S, "all who asked were answered"
    assert goodput(answers, 2 * FLOOD_S) >= 0.9 * peak
    assert percentile(answers, 0.99, accepted=False) < 0.05
    assert percentile(answers, 0.99, accepted=True) < 0.4


def test_telling_all_who_are_refused_at_once_would_stop_the_selling() -> None:
    """Stops: the pace of refusing taken for a nicety; and this simulation, if it cannot show a collapse."""
    worker = Flooded(connections=10_000, told=lambda *_: 10**9)
    assert goodput(worker.run(10 * CAPACITY, FLOOD_S), FLOOD_S) < 0.3 * CAPACITY


@pytest.mark.parametrize("connections", [3_000, 10_000])
def test_five_seconds_after_the_flood_nothing_of_it_is_left(connections: int) -> None:
    """Stops: retries that keep a flood alive by themselves, and a limit that stays where the flood has pushed it."""
    worker = Flooded(connections=connections)
    worker.run(10 * CAPACITY, FLOOD_S)
    after = worker.run(CAPACITY / 2, 6.0)
    calm = [answer for answer in after if answer.at_s > FLOOD_S + 5.0]
    assert len(calm) > CAPACITY / 3
    sold = sum(answer.accepted for answer in after)
    assert sold > 3.2 * CAPACITY, "six seconds of half of it, and those who were refused come back and find room"
    assert all(answer.accepted for answer in calm)
    assert percentile(calm, 0.99, accepted=True) < 0.02


def test_a_store_that_stalls_at_moderate_load_costs_no_order() -> None:
    """Stops: one slow fsync that has the limit refuse buyers for seconds."""
    worker = Flooded(connections=5_000)
    worker.run(0.3 * CAPACITY, 1.0)
    worker.stall(0.2)
    during = worker.run(0.3 * CAPACITY, 0.3)
    assert percentile(during, 1.0, accepted=True) > 0.15, "it did stall"
    after = worker.run(0.3 * CAPACITY, 1.0)
    refused = sum(not answer.accepted for answer in during + after)
    assert refused == 0


def test_a_store_that_is_slow_by_itself_keeps_its_large_batches() -> None:
    """Stops: a limit that shrinks for what it cannot better, and sells a tenth of what a slow disk could."""
    worker = Flooded(connections=5_000, call_s=0.06)
    worker.run(5 * CAPACITY, 2 * FLOOD_S)
    answers = worker.run(5 * CAPACITY, FLOOD_S)
    assert goodput(answers, FLOOD_S) >= 0.25 * CAPACITY, (
        "a call of a full batch takes so long that 0.38 is all there is"
    )
    assert min(worker.limits) > 5 * ORDERS_LEAST


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.integers(0, 10**6), st.floats(-10, 100)), max_size=200),
    st.integers(1, 100),
    st.integers(0, 5_000),
)
def test_the_limit_stays_between_its_floor_and_its_ceiling(
    measured: list[tuple[float, float, int, float]], floor: int, room: int
) -> None:
    """Stops: a limit of nothing, which no measurement could ever lift again, or one beyond what a worker holds."""
    limit = Limit(floor, floor + room)
    for waited_s, call_s, under_way, late_s in measured:
        limit.loop_was_late(late_s)
        limit.answered(waited_s + call_s, call_s, under_way)
        assert floor <= limit.most <= floor + room


def of(measured: list[tuple[float, int]], late_s: float = 0.0, begin: Limit | None = None) -> list[int]:
    """Return the limits after batches of (seconds, under way)."""
    limit = begin or Limit(ORDERS_LEAST, WAITING_MOST)
    found = [limit.most]
    for waited_s, under_way in measured:
        limit.late_s = late_s
        limit.answered(waited_s, 0.001, under_way)
        found.append(limit.most)
    return found


def test_what_is_used_and_slow_makes_it_smaller_down_to_the_floor_and_what_is_used_and_quick_larger_again() -> None:
    """Stops: a limit that moves one way only."""
    limit = Limit(ORDERS_LEAST, WAITING_MOST)
    down = of([(1.0, 4_000)] * 100, begin=limit)
    assert all(after <= before for before, after in pairwise(down))
    assert down[-1] < 1.5 * ORDERS_LEAST
    up = of([(TARGET_S / 2, 4_000)] * 2_000, begin=limit)
    assert all(after >= before for before, after in pairwise(up))
    assert up[-1] == WAITING_MOST


def test_a_fourth_of_it_in_use_and_quick_lets_it_grow() -> None:
    """Stops: a weak store whose first hiccup behind a flood refuses those who have come back."""
    limit = Limit(100, 1_000)
    of([(1.0, 1_000)] * 50, begin=limit)
    before = limit.most
    of([(0.001, int(before * 0.3))] * 5, begin=limit)
    assert limit.most > before


def test_what_is_hardly_used_proves_nothing() -> None:
    """Stops: a machine's hiccup at night that has the limit at its floor when the sale opens."""
    assert set(of([(5.0, 900), (0.0001, 900), (5.0, 1)] * 50)) == {WAITING_MOST}
    small = Limit(ORDERS_LEAST, WAITING_MOST)
    of([(1.0, 4_000)] * 100, begin=small)
    assert len(set(of([(0.001, ORDERS_LEAST // 5)] * 50, begin=small))) == 1


def test_a_slow_store_is_judged_by_time_and_not_by_calls() -> None:
    """Stops: a limit that needs forty calls to find its place, of a store that takes half a second for one."""
    limit = Limit(ORDERS_LEAST, WAITING_MOST)
    for _ in range(6):
        limit.answered(1.0, 0.5, 4_000)
    assert limit.most < 1.5 * ORDERS_LEAST


def test_what_a_slow_store_does_not_use_is_not_kept_and_one_stall_makes_no_slow_store() -> None:
    """Stops: thousands of buyers let in to wait for a store that was seen to be slow; a hiccup taken for that."""
    slow, stalled = Limit(ORDERS_LEAST, WAITING_MOST), Limit(ORDERS_LEAST, WAITING_MOST)
    slow.answered(0.035, 0.035, 100)
    assert slow.most == 400, "nearly slow is soon enough: the flood comes between two calls"
    slow.answered(0.06, 0.06, 1)
    assert slow.most > 300, "one quiet call is no quiet time"
    for _ in range(20):
        slow.answered(0.06, 0.06, 1)
    assert slow.most == 2 * ORDERS_LEAST
    for call_s in (0.005, 0.2, 0.005, 0.005):
        stalled.answered(call_s, call_s, 100)
    assert stalled.most == WAITING_MOST


def test_a_late_loop_counts_as_waiting() -> None:
    """Stops: a worker that is blind to what waits for it in the kernel."""
    assert of([(TARGET_S / 2, 4_000)] * 20)[-1] == WAITING_MOST
    assert of([(TARGET_S / 2, 4_000)] * 20, late_s=2 * TARGET_S)[-1] < WAITING_MOST / 2


def test_a_busy_loop_makes_no_slow_store() -> None:
    """Stops: a worker that sees replies late, takes that for its store's slowness, and lets buyers wait for it."""
    limit = Limit(ORDERS_LEAST, WAITING_MOST)
    limit.late_s = 0.1
    for _ in range(50):
        limit.answered(0.1, 0.105, 4_000)
    assert not limit.is_slow
    assert limit.most < 2 * ORDERS_LEAST


def test_a_slow_stores_unevenness_does_not_make_its_batches_small() -> None:
    """Stops: calls of 40 to 100 ms, each half as long again as usual now and then, that shrink a limit to a third."""
    limit = Limit(ORDERS_LEAST, ORDERS_LEAST)
    limit.ceiling = WAITING_MOST  # it begins at its floor
    for number in range(300):
        call_s = (0.024 + 0.00038 * limit.most / 2) * (1.5 if number % 2 else 0.5)
        limit.answered(2 * call_s, call_s, limit.most)
    assert limit.most > 220


def test_a_great_lateness_is_forgotten_by_halves() -> None:
    """Stops: one late timer that is judged for ever, or is overlooked by the batch after the next."""
    limit = Limit(1, 10)
    limit.loop_was_late(0.2)
    limit.loop_was_late(0.0)
    assert limit.late_s == pytest.approx(0.1)
    for _ in range(10):
        limit.loop_was_late(-0.001)
    assert 0.0 <= limit.late_s < 0.001


def test_a_loop_that_has_time_tells_the_refused_at_once_and_a_busy_one_a_few_for_each_order() -> None:
    """Stops: refusals that wait while nothing else is to be done, or that starve when no order is placed at all."""
    idle, busy = may_be_told(0.0005, 0.002, 0), may_be_told(0.02, 0.02, 400)
    assert idle >= 25
    assert 100 <= busy <= 130
    assert may_be_told(0.02, 0.02, 0) >= 20


def test_where_nobody_else_wants_the_core_more_are_told_but_not_by_a_loop_that_is_late() -> None:
    """Stops: a refusal held back for the sake of a store that has a machine of its own."""
    assert may_be_told(0.0005, 0.002, 0, waited=0.01) >= 100
    assert may_be_told(0.0005, 0.002, 0, waited=0.3) == may_be_told(0.0005, 0.002, 0)
    assert may_be_told(0.02, 0.02, 400, waited=0.01) == may_be_told(0.02, 0.02, 400)
    assert may_be_told(0.004, 0.006, 8, waited=0.3) < may_be_told(0.004, 0.006, 8, waited=0.01) == 25
