"""Kills: a timetable that is understood or refused, and carried out once, in order, never early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from loadtests.shop.kills import KILLS_MOST, PARTS, Kill, Timetable, parse_kills


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("", ()),
        ("serve@3", (Kill("serve", 3.0),)),
        ("valkey@5.5", (Kill("valkey", 5.5),)),
        ("work@0.125", (Kill("work", 0.125),)),
        ("postgres@9999", (Kill("postgres", 9999.0),)),
        (" serve@3 , work@4 ", (Kill("serve", 3.0), Kill("work", 4.0))),
        ("serve@3,", (Kill("serve", 3.0),)),
        ("valkey@7,serve@3,work@5", (Kill("serve", 3.0), Kill("work", 5.0), Kill("valkey", 7.0))),
        ("work@10,serve@9", (Kill("serve", 9.0), Kill("work", 10.0))),  # by number, not by letter
        ("work@3,serve@3,work@3", (Kill("work", 3.0), Kill("serve", 3.0), Kill("work", 3.0))),
    ],
)
def test_a_timetable_is_read_and_put_in_order_of_time(text: str, kills: tuple[Kill, ...]) -> None:
    """Stops: a kill written first but due last that holds back all others, or equal seconds changing places."""
    assert parse_kills(text) == kills


@pytest.mark.parametrize(
    "word",
    [
        "nginx@3",
        "Serve@3",
        "serve",
        "serve@",
        "@3",
        "serve@-1",
        "serve@+1",
        "serve@1e3",
        "serve@nan",
        "serve@3s",
        "serve@.5",
        "serve@3.",
        "serve@3.1234",
        "serve@10000",
        "serve@٣",
        "serve @3",
        "serve@3 work@4",
        "serve@3;work@4",
    ],
)
def test_a_word_that_is_no_kill_is_refused_by_name_with_an_example(word: str) -> None:
    """Stops: a misspelt kill that is passed over, so that a run claims to have survived what never happened."""
    with pytest.raises(BadInput) as refused:
        parse_kills(f"work@1,{word}")
    assert repr(word) in str(refused.value)
    assert "serve@3" in str(refused.value)
    assert all(part in str(refused.value) for part in PARTS)


def test_a_blank_between_commas_is_not_taken_for_a_kill() -> None:
    """Stops: a word lost in the shell that goes unnoticed."""
    with pytest.raises(BadInput):
        parse_kills("serve@3, ,work@4")


def test_the_most_kills_are_read_and_one_more_is_refused() -> None:
    """Stops: a timetable that leaves the shop no time to come back."""
    assert len(parse_kills(",".join(["serve@1"] * KILLS_MOST))) == KILLS_MOST
    with pytest.raises(BadInput, match=f"at most {KILLS_MOST}"):
        parse_kills(",".join(["serve@1"] * (KILLS_MOST + 1)))


class Killer:
    """Kills when let, and remembers what it was asked for and what it did."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.done: list[str] = []
        self.up = True

    def kill(self, what: str) -> bool:
        self.asked.append(what)
        if self.up:
            self.done.append(what)
        return self.up


def test_nothing_is_killed_early_and_each_kill_happens_once() -> None:
    """Stops: a kill before its second, or again at every tick after it."""
    killer = Killer()
    timetable = Timetable(parse_kills("serve@3,valkey@5.5"), killer.kill)
    timetable.due(2.999)
    assert killer.asked == []
    timetable.due(3.0)
    timetable.due(3.1)
    timetable.due(5.4)
    assert killer.done == ["serve"]
    assert timetable.left == [Kill("valkey", 5.5)]
    timetable.due(60.0)
    timetable.due(61.0)
    assert killer.done == ["serve", "valkey"]
    assert timetable.left == []


def test_kills_that_fell_due_together_all_happen_at_the_next_tick() -> None:
    """Stops: one kill a tick, so that a late tick spreads a double failure into two single ones."""
    killer = Killer()
    Timetable(parse_kills("valkey@3,postgres@3,work@3.5"), killer.kill).due(4.0)
    assert killer.done == ["valkey", "postgres", "work"]


def test_a_part_that_is_down_is_tried_again_and_nothing_overtakes_it() -> None:
    """Stops: a kill struck off the list although there was no process to kill."""
    killer = Killer()
    killer.up = False
    timetable = Timetable(parse_kills("serve@1,work@2"), killer.kill)
    timetable.due(2.5)
    assert killer.asked == ["serve"]
    assert len(timetable.left) == 2
    killer.up = True
    timetable.due(2.6)
    assert killer.done == ["serve", "work"]


def test_what_is_left_can_be_read_but_not_changed() -> None:
    """Stops: a reader of the list that strikes off a kill."""
    timetable = Timetable(parse_kills("serve@1"), Killer().kill)
    timetable.left.clear()
    assert timetable.left == [Kill("serve", 1.0)]


@given(
    st.lists(st.tuples(st.sampled_from(PARTS), st.integers(0, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=20),
)
def test_however_the_ticks_fall_kills_done_and_left_are_the_timetable(
    plan: list[tuple[str, int]], ticks: list[tuple[int, bool]]
) -> None:
    """Stops: a kill lost or done twice when parts are down at the wrong moment."""
    kills = parse_kills(",".join(f"{what}@{at_s}" for what, at_s in plan))
    killer = Killer()
    timetable = Timetable(kills, killer.kill)
    for elapsed_s, killer.up in sorted(ticks):
        timetable.due(elapsed_s)
        assert killer.done + [kill.what for kill in timetable.left] == [kill.what for kill in kills]
        assert all(kill.at_s <= elapsed_s for kill in kills[: len(killer.done)])
        assert not killer.up or all(kill.at_s > elapsed_s for kill in timetable.left)
