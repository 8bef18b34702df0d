"""The line of those who were refused: in made-up time, whoever returns finds room, and nobody is sent away for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.backends.line import Line
from core.settings import RETRY_AFTER_MOST_S


class Shop:
    """A shop that sells at a rate, and its line."""

    def __init__(self, per_s: float) -> None:
        """Take the rate at which it sells."""
        self.now_s, self.sold, self._per_s = 0.0, 0.0, per_s
        self.line = Line(lambda: int(self.sold), lambda: self.now_s)

    def refuse(self, per_s: float, seconds: float, turn_s: float = 0.01) -> list[float]:
        """Refuse at a rate for a while; return the instants at which they were told to return."""
        told = []
        for _ in range(round(seconds / turn_s)):
            self.now_s += turn_s
            self.sold += self._per_s * turn_s
            told += [self.now_s + again_s for again_s in self.line.join(round(per_s * turn_s))]
        return told


def test_few_who_are_refused_return_after_a_second_or_two_and_not_all_in_the_same_one() -> None:
    """Stops: a hiccup that sends a buyer away for minutes, and a burst that comes back as the same burst."""
    line = Line(lambda: 0)
    assert {1, 2} <= set(line.join(50)) <= {1, 2, 3}


@pytest.mark.parametrize(("per_s", "refused_per_s", "seconds"), [(10_000.0, 10_000, 1.0), (2_000.0, 4_000, 0.4)])
def test_a_burst_is_told_to_return_within_a_few_seconds(per_s: float, refused_per_s: int, seconds: float) -> None:
    """Stops: a second of too many on a shop that sells as many a second, and buyers who go elsewhere for it."""
    shop = Shop(per_s)
    told = shop.refuse(refused_per_s, seconds)
    assert max(told) < seconds + 5


def test_a_burst_on_a_worker_that_has_refused_nobody_yet_is_one_too() -> None:
    """Stops: a fresh worker, or one whose last flood was long ago, that takes itself for a weak one."""
    assert max(Shop(30_000.0).line.join(4_000)) < 5
    shop = Shop(500.0)
    shop.refuse(500, 5.0)  # a weak moment
    shop.now_s += RETRY_AFTER_MOST_S
    shop._per_s = 20_000.0
    told = shop.refuse(20_000, 1.0)
    assert sorted(told)[len(told) // 2] < shop.now_s + 10, "the rate is found anew within a quarter of a second"


def test_those_who_return_leave_room_for_those_who_come_anew() -> None:
    """Stops: a flood that is sent away for a moment and comes back whole, again and again."""
    shop = Shop(2_000.0)
    told = shop.refuse(18_000, 6.0)
    a_second = Counter(int(at_s) for at_s in told)
    assert len(told) == 108_000
    assert max(a_second[at] for at in range(10, 600)) < 0.3 * 2_000, "half of what is sold may be asked for anew"
    assert max(told) < 6 + RETRY_AFTER_MOST_S


def test_who_was_refused_first_returns_first() -> None:
    """Stops: a line in which the last are the first."""
    told = Shop(2_000.0).refuse(10_000, 3.0)
    early, late = told[: len(told) // 3], told[-len(told) // 3 :]
    assert max(early) < min(late) + 5


def test_a_line_runs_out_while_nobody_joins_it() -> None:
    """Stops: a morning's flood that a buyer of the afternoon has to wait for."""
    shop = Shop(2_000.0)
    shop.refuse(10_000, 3.0)
    assert min(shop.line.join(10)) > 30
    shop.now_s += RETRY_AFTER_MOST_S
    assert set(shop.line.join(5)) <= {1, 2, 3}


def test_what_a_weak_shop_sells_is_found_within_a_second_or_two() -> None:
    """Stops: a line for a shop of a thousand a second in front of one that sells a hundred."""
    shop = Shop(100.0)
    shop.refuse(100, 3.0)
    later = Counter(int(at_s) for at_s in shop.refuse(100, 3.0))
    assert max(later.values()) < 3 * 15


def test_behind_a_full_line_all_are_spread_over_the_whole_of_it() -> None:
    """Stops: an endless flood whose refused all return in the same minute, ten minutes later."""
    shop = Shop(100.0)
    shop.refuse(10_000, 5.0)
    told = [at_s - shop.now_s for at_s in shop.refuse(10_000, 1.0)]
    assert sum(at_s < RETRY_AFTER_MOST_S / 2 for at_s in told) == pytest.approx(len(told) / 2, rel=0.1)


@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.floats(0, 10_000, allow_nan=False), st.integers(0, 10**9)), max_size=50
    )
)
def test_nobody_is_told_less_than_a_second_or_more_than_the_longest(turns: list[tuple[int, float, int]]) -> None:
    """Stops: a Retry-After of nothing, which is a flood, or of a day, whatever is counted and however time passes."""
    now_s, sold = [0.0], [0]
    line = Line(lambda: sold[0], lambda: now_s[0])
    for count, elapsed_s, more in turns:
        now_s[0] += elapsed_s
        sold[0] += more
        told = line.join(count)
        assert len(told) == count
        assert all(1 <= again_s <= RETRY_AFTER_MOST_S for again_s in told)
