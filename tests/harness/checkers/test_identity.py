"""Every scheduled arrival is accounted for under exactly one word, or the run is void."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rundir import run_files
from spoiled import altered, pick, with_more
from world import a_good_sale

from loadtests.judge import exit_code, judge
from loadtests.record.history import Attempt
from loadtests.record.identity import first_places, identity_of, violations, word_of

OUTCOMES = (
    ("ok", 201, "accepted"),
    ("ok", 200, "replayed"),
    ("fail", 409, "sold_out"),
    ("fail", 409, "limit_reached"),
    ("fail", 503, "overloaded"),
    ("fail", 500, ""),
    ("fail", 0, "connect_refused"),
    ("unknown", 0, "timeout"),
    ("unknown", 0, "reset"),
    ("unknown", 502, "http_502"),
    ("shed", 0, "shed"),
    ("unsent", 0, "unsent"),
)


def attempt(number: int, ended: tuple[str, int, str], **more: Any) -> Attempt:
    result, status, outcome = ended
    fields = {"op": "place", "why": "first", "buyer": f"b{number}", "intended_us": number} | more
    return Attempt(arrival=number, result=result, status=status, outcome=outcome, **fields)


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.lists(st.sampled_from(OUTCOMES), max_size=3)), max_size=40))
def test_scheduled_is_the_sum_of_all_words_whatever_happened(story: list[Any]) -> None:
    """Retries, second clicks and late answers never count twice, and nothing falls between two words."""
    attempts = []
    for number, (first, later) in enumerate(story):
        attempts += [attempt(number, again, why="retry", sent_us=9) for again in later]
        attempts.append(attempt(number, first, sent_us=5))
    firsts = first_places(attempts)
    identity = identity_of(len(story), firsts.values())
    assert identity.accounted() == identity.scheduled == len(story)
    assert violations(identity, firsts) == []
    assert identity.shed == sum(first[0] == "shed" for first, _ in story)
    assert identity.timed_out == sum(first[2] == "timeout" for first, _ in story)
    assert identity.refused.get("sold_out", 0) == sum(first[2] == "sold_out" for first, _ in story)


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        *zip(OUTCOMES[:6], ("accepted", "accepted", "refused", "refused", "refused", "refused"), strict=True),
        *zip(OUTCOMES[6:], ("failed", "timed_out", "unknown", "unknown", "shed", "unsent"), strict=True),
    ],
)
def test_each_ending_has_its_word(ended: tuple[str, int, str], word: str) -> None:
    assert word_of(attempt(0, ended)) == word


def test_a_good_run_shows_its_account() -> None:
    summary = judge(run_files())
    assert summary.identity.accounted() == summary.identity.scheduled == summary.offered.scheduled > 10
    assert summary.identity.refused and summary.identity.accepted


def test_an_arrival_missing_from_the_history_makes_the_run_void() -> None:
    """Stops: a generator that forgets the buyers it had no time for."""
    evidence = a_good_sale()
    files = run_files(evidence)
    last = max(a.arrival for a in evidence.attempts)
    added = [attempt(last + 1, ("fail", 409, "sold_out")), attempt(last + 2, ("fail", 409, "sold_out"))]
    two_more = {"scheduled": files.generator.scheduled + 2, "sent": files.generator.sent + 2}
    files = run_files(with_more(evidence, "attempts", *added), generator=two_more)
    assert judge(files).verdict == "pass"
    summary = judge(msgspec.structs.replace(files, evidence=with_more(evidence, "attempts", added[1])))
    assert (summary.verdict, exit_code(summary), summary.generator.valid) == ("void", 3, False)
    assert any("the history accounts for" in reason for reason in summary.reasons)


def test_an_arrival_that_nobody_planned_makes_the_run_void() -> None:
    """Stops: one that is lost and one that is made up, which add up."""
    evidence = a_good_sale()
    files = run_files(evidence)
    lost = pick(evidence, "attempts", outcome="sold_out", why="first")
    summary = judge(msgspec.structs.replace(files, evidence=altered(evidence, "attempts", lost, arrival=9_999)))
    assert summary.verdict == "void"
    assert any("the plan did not have" in reason for reason in summary.reasons)


def test_a_shed_arrival_in_the_history_is_void_even_if_the_generator_is_silent() -> None:
    evidence = a_good_sale()
    files = run_files(evidence)
    dropped = attempt(files.generator.scheduled, ("shed", 0, "shed"))
    more = msgspec.structs.replace(files.generator, scheduled=files.generator.scheduled + 1)
    changed = msgspec.structs.replace(files, evidence=with_more(evidence, "attempts", dropped), generator=more)
    summary = judge(changed)
    assert summary.verdict == "void" and any("shed" in reason for reason in summary.reasons)
