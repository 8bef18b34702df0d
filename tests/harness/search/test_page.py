"""The page and the sketch of a sweep, from made trials: what they say, and that a browser is content with them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from loadtests.machine import Machine
from loadtests.report import browser
from loadtests.search import page, result
from loadtests.search.bracket import Answer, Bounds, Judgement, search
from loadtests.search.law import Fit
from loadtests.search.limiter import Sizes
from loadtests.search.sketch import sketch
from loadtests.search.stand import Trial
from loadtests.search.trial import Budget, Figures

BUDGET = Budget(p99_us=50_000, errors=0.001)
BOUNDS = Bounds(lowest=250, highest=16_000)
SIZES = Sizes(cores=4, workers=1, budget_ms=50)


def trial(number: int, rate: float) -> Trial:
    """One of a queue that holds 3,000/s: latency 2 ms at rest, doubling near the limit."""
    draw = random.Random(number)
    mean_us = 2_000 / max(0.02, 1 - rate / 3_000)
    took = [round(draw.expovariate(1 / mean_us)) for _ in range(2_000)]
    slow = sum(one > BUDGET.p99_us for one in took)
    judgement: Judgement = "pass" if slow <= 20 else "fail"
    figures = Figures(
        rate=rate,
        seconds=2,
        seed=number,
        scheduled=2_000,
        unsent=0,
        accepted=2_000,
        refused=0,
        errors=0,
        slow=slow,
        certainly_slow=slow,
        unfit=[],
        p50_us=sorted(took)[1_000],
        p99_us=sorted(took)[1_980],
        max_us=max(took),
        concurrency=min(rate, 3_000) * mean_us / 1e6,
        throughput=min(rate, 3_000),
        wake_lag_p99_us=300,
        generator_cpu=0.3,
        cpu={"server": min(rate, 3_000) / 3_000, "valkey": rate / 9_000, "generator": 0.3},
        gauges={"others_cores": 0.1, "batch_ms": 1.0},
    )
    return Trial(number=number, rate=rate, judgement=judgement, why="as made", figures=figures, latencies_us=took)


@pytest.fixture(scope="module")
def sweep() -> result.Sweep:
    trials: list[Trial] = []
    while not isinstance(step := search(result.tried(trials), BOUNDS), Answer):
        trials.append(trial(len(trials) + 1, step))
    found, fit = result.levels(trials), result.find_law(trials)
    return result.Sweep(
        schema=1,
        run_id="made",
        scenario="<script>alert(1)</script>",
        command="flashproof sweep",
        again="flashproof prove",
        started_at="2026-11-23T00:00:00+00:00",
        elapsed_s=60,
        git_commit="",
        machine=Machine(cpu="made", cores=4, kernel="made", python="3.11"),
        versions={},
        method=result.METHOD,
        budget=BUDGET,
        bounds=BOUNDS,
        sizes=SIZES,
        answer=step,
        levels=found,
        knee=result.find_knee(found),
        law=fit if isinstance(fit, Fit) else None,
        law_why_not=fit if isinstance(fit, str) else "",
        limiter=result.find_limiter(trials, step, SIZES),
        trials=[
            result.Outcome(number=t.number, rate=t.rate, judgement=t.judgement, why=t.why, figures=t.figures)
            for t in trials
        ],
        not_tested=["Everything: the trials are made."],
    )


def test_from_trials_to_answer_knee_law_and_limiter(sweep: result.Sweep) -> None:
    """p99 of an exponential is 4.6 means: 50 ms is reached at a mean of 10.9 ms, 2,450 a second."""
    assert sweep.answer.rate == pytest.approx(2_450, rel=0.12)
    assert sweep.knee is not None
    assert 1_500 <= sweep.knee <= 3_000
    assert sweep.law is not None
    assert sweep.limiter.name == "server"
    assert result.exit_code(sweep.answer) == 0


def test_the_sketch_fits_a_terminal_and_marks_answer_and_knee(sweep: result.Sweep) -> None:
    """One screen: 24 lines of a hundred letters, sentences apart."""
    lines = sketch(sweep).splitlines()
    assert len(lines) <= 30
    assert sum("◄ answer" in line for line in lines) == 1
    assert sum("◄ knee" in line for line in lines) == 1
    assert any("Why not double?  limiter: server" in line for line in lines)


def test_text_of_a_run_is_escaped_on_the_page(sweep: result.Sweep) -> None:
    """A scenario's name is no script."""
    text = page.render(sweep)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.skipif(browser.missing() is not None, reason=f"no page in a browser: {browser.missing()}")
def test_a_browser_draws_both_pictures_without_an_error_or_a_request(sweep: result.Sweep, tmp_path: Path) -> None:
    """Opened from disk, on a phone, offline."""
    path = page.write(tmp_path, sweep)
    said: list[str] = []
    with browser.chromium() as chromium:
        opened = chromium.new_page(viewport={"width": 390, "height": 800})
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
        opened.goto(path.as_uri())
        assert opened.locator("svg").count() == 2
        assert opened.locator("svg circle").count() > 10
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert said == []
