"""The search for the highest rate: it finds it, through noise, within its bounds, and says when it could not."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.search.bracket import Answer, Bounds, Judgement, Tried, search, standing

BOUNDS = Bounds(lowest=100, highest=20_000)


def run(judge: Callable[[float], Judgement], bounds: Bounds = BOUNDS) -> tuple[Answer, list[Tried]]:
    tried: list[Tried] = []
    while True:
        step = search(tried, bounds)
        if isinstance(step, Answer):
            return step, tried
        assert bounds.lowest <= step <= bounds.highest
        tried.append(Tried(step, judge(step)))
        assert len(tried) <= bounds.trials_most


@given(limit=st.floats(100, 19_000))
def test_a_server_without_noise_is_found_within_the_tolerance_and_confirmed(limit: float) -> None:
    """The answer keeps the budget, the rate above it does not, and they lie close together."""
    answer, tried = run(lambda rate: "pass" if rate <= limit else "fail")
    assert answer.end == "bracketed"
    assert answer.confirmed
    assert answer.rate is not None
    assert answer.above is not None
    assert answer.rate <= limit < answer.above <= answer.rate * BOUNDS.tolerance
    assert sum(one.rate == answer.rate for one in tried) >= 2
    assert len(tried) <= 25


def test_a_noisy_server_is_found_within_the_tolerance_most_of_the_time() -> None:
    """Near its limit a server passes one trial and fails the next; the answer must not hang on luck.

    The server's limit is 3,000/s; a tenth below it 8 trials in 10 pass, a tenth above it 2 in 10.
    """
    found = []
    for seed in range(200):
        draw = random.Random(seed)

        def judge(rate: float, draw: random.Random = draw) -> Judgement:
            share = 1 / (1 + (rate / 3_000) ** 14)
            return "pass" if draw.random() < share else "fail"

        answer, _ = run(judge)
        found.append(answer.rate or 0.0)
    near = sum(3_000 / 1.25 <= rate <= 3_000 * 1.25 for rate in found)
    assert near >= 180, sorted(found)
    assert 2_600 <= sorted(found)[100] <= 3_200


def test_a_void_trial_is_tried_again_and_never_counts_as_broken() -> None:
    """A generator that stumbled says nothing of the shop."""
    said: dict[float, int] = {}

    def judge(rate: float) -> Judgement:
        said[rate] = said.get(rate, 0) + 1
        if said[rate] == 1:
            return "void"
        return "pass" if rate <= 1_500 else "fail"

    answer, _ = run(judge)
    assert answer.end == "bracketed"
    assert answer.rate is not None
    assert 1_350 <= answer.rate <= 1_500


def test_where_the_generator_gives_out_the_answer_is_at_least() -> None:
    """Above 2,000/s nothing can be judged, so nothing is said of the shop there."""
    answer, tried = run(lambda rate: "pass" if rate <= 2_000 else "void")
    assert answer.end == "generator"
    assert answer.confirmed
    assert answer.rate is not None
    assert answer.above is not None
    assert answer.rate <= 2_000 < answer.above
    assert not any(one.judgement == "fail" for one in tried)


def test_a_shop_that_keeps_the_highest_rate_is_not_said_to_stop_there() -> None:
    """The end of the search is no property of the shop."""
    answer, tried = run(lambda _: "pass")
    assert (answer.end, answer.rate, answer.above, answer.confirmed) == ("at_least", 20_000, None, True)
    assert sum(one.rate == 20_000 for one in tried) == 2


def test_a_shop_that_breaks_at_the_lowest_rate_has_no_answer() -> None:
    """Two trials are enough to say so."""
    answer, tried = run(lambda _: "fail")
    assert (answer.end, answer.rate, answer.above) == ("none_kept", None, 100)
    assert len(tried) == 2


def test_a_lucky_pass_is_taken_back_before_it_becomes_the_answer() -> None:
    """The shop's limit is 1,000/s; one trial at 1,600/s passes by luck, and only one."""
    luck = {1_600.0}

    def judge(rate: float) -> Judgement:
        if rate in luck:
            luck.discard(rate)
            return "pass"
        return "pass" if rate <= 1_000 else "fail"

    answer, tried = run(judge)
    assert Tried(1_600, "pass") in tried
    assert answer.rate is not None
    assert 900 <= answer.rate <= 1_000
    assert answer.confirmed


def test_a_rate_torn_between_pass_and_fail_is_not_kept() -> None:
    """Confidence is what was asked for."""
    assert standing(["pass", "fail", "pass", "fail", "pass"]) == "broken"
    assert standing(["pass", "fail", "pass"]) == "open"
    assert standing(["pass", "void", "pass"]) == "kept"
    assert standing(["void", "pass", "void", "void"]) == "not_judged"


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), most=st.integers(1, 30))
def test_any_sequence_of_judgements_ends_within_the_bound(seed: int, most: int) -> None:
    """Whatever the trials say, the search stops, and never answers with a rate that no trial passed."""
    draw = random.Random(seed)
    bounds = Bounds(lowest=100, highest=20_000, trials_most=most)
    answer, tried = run(lambda _: draw.choice(("pass", "fail", "void")), bounds)
    assert len(tried) <= most
    if answer.rate is not None:
        assert any(one.rate == answer.rate and one.judgement == "pass" for one in tried)
        assert answer.above is None or answer.above > answer.rate


def test_when_time_runs_out_the_best_that_is_known_is_said() -> None:
    """A search that was cut short says so, and prefers what was confirmed."""
    tried = [Tried(100, "pass"), Tried(200, "pass"), Tried(400, "fail")]
    answer = search(tried, BOUNDS, out_of_time=True)
    assert isinstance(answer, Answer)
    assert (answer.end, answer.rate, answer.confirmed) == ("out_of_bounds", 200, False)
