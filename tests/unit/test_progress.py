"""Progress: one moving line on a terminal, few plain lines elsewhere, and nothing said is lost."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from loadtests import progress
from loadtests.progress import Progress

SALE = {"elapsed_s": 5.0, "sent": 500, "phase": "sale", "accepted": 1_234, "refused": 7, "sold": 9, "p99_us": 12_340}


class Screen(io.StringIO):
    """What is written to stderr, which is a terminal or not."""

    def __init__(self, *, watched: bool) -> None:
        super().__init__()
        self._watched = watched

    def isatty(self) -> bool:
        return self._watched


class Watched:
    """A progress with a clock that the test moves."""

    def __init__(self, patch: pytest.MonkeyPatch, *, terminal: bool, seconds: float = 20.0) -> None:
        self.now_s = 1_000.0
        self.screen = Screen(watched=terminal)
        patch.setattr(sys, "stderr", self.screen)
        patch.setattr(progress.time, "monotonic", lambda: self.now_s)
        patch.setenv("COLUMNS", "80")
        self.progress = Progress(seconds)

    def lines(self) -> list[str]:
        return self.screen.getvalue().splitlines()


def sale(**changed: Any) -> dict[str, Any]:
    """Return one progress message of the generator."""
    return {**SALE, **changed}


def test_off_a_terminal_a_step_is_told_once_however_often_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a CI log of a thousand lines, or one in which the next step is missing."""
    watched = Watched(monkeypatch, terminal=False)
    for n in range(50):
        watched.progress.step(f"waiting until all is quiet for {n} s")
        watched.now_s += 0.05
    watched.progress.step("reading both stores")
    assert watched.lines() == ["[  0.0 s] waiting until all is quiet for 0 s", "[  2.5 s] reading both stores"]


def test_a_long_step_shows_now_and_then_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a minute of silence that looks like a hang."""
    watched = Watched(monkeypatch, terminal=False)
    for _ in range(61):
        watched.progress.step("filling the shelves")
        watched.now_s += 1.0
    assert len(watched.lines()) == 13


def test_off_a_terminal_nothing_steers_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: escape codes in a log file."""
    watched = Watched(monkeypatch, terminal=False)
    watched.progress.step("judging")
    watched.progress.sale(sale())
    watched.progress.note("a note")
    watched.progress.end()
    assert "\x1b" not in watched.screen.getvalue()
    assert "\r" not in watched.screen.getvalue()


def test_on_a_terminal_the_line_moves_in_place_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a line longer than the screen, which scrolls at every tick."""
    watched = Watched(monkeypatch, terminal=True)
    for n in range(10):
        watched.progress.sale(sale(elapsed_s=float(n), accepted=10**9, refused=10**9, sold=10**9))
        watched.now_s += 1.0
    shown = watched.screen.getvalue()
    assert "\n" not in shown
    assert shown.count("\r") == 10
    assert all(len(re.sub(r"\x1b\[K", "", line)) <= 79 for line in shown.split("\r"))


def test_a_note_stands_on_a_line_of_its_own_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a warning written into the moving line and overwritten by the next tick."""
    watched = Watched(monkeypatch, terminal=True)
    watched.progress.step("judging")
    watched.progress.note("no flame graph")
    watched.progress.step("reading")
    assert re.search(r"\r\x1b\[Kno flame graph\n\r\[", watched.screen.getvalue())


def test_the_line_is_left_clean_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: half a progress line in front of the verdict."""
    watched = Watched(monkeypatch, terminal=True)
    watched.progress.end()
    assert watched.screen.getvalue() == ""
    watched.progress.step("judging")
    watched.progress.end()
    watched.progress.end()
    assert watched.screen.getvalue().endswith("judging\x1b[K\r\x1b[K")


@pytest.mark.parametrize(
    ("elapsed_s", "full"),
    [(0.0, 0), (5.0, 5), (20.0, 20), (25.0, 20)],
)
def test_the_bar_is_the_share_of_the_sale_and_never_more_than_whole(
    elapsed_s: float, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a division by zero at the start, and a bar that grows past its end while late answers come."""
    watched = Watched(monkeypatch, terminal=False)
    watched.progress.sale(sale(elapsed_s=elapsed_s))
    (line,) = watched.lines()
    assert (line.count("█"), line.count("░")) == (full, 20 - full)


def test_the_figures_are_those_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: microseconds shown as milliseconds, or a rate over the whole run instead of the time passed."""
    watched = Watched(monkeypatch, terminal=False)
    watched.progress.sale(sale())
    (line,) = watched.lines()
    for words in ("   5/20 s", " 100/s", "accepted 1,234", "refused 7", "sold 9", "p99 12.3 ms"):
        assert words in line


def test_after_the_last_arrival_it_says_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a full bar that stands still without a reason."""
    watched = Watched(monkeypatch, terminal=False)
    watched.progress.sale(sale(phase="drain", elapsed_s=21.0))
    assert "last answers" in watched.lines()[0]
