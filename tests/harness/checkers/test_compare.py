"""`flashproof compare`: effects with honest intervals, and runs that must not be compared."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rundir import run_files, write_run
from spoiled import spoil
from world import a_good_sale

from core.__main__ import main
from loadtests.comparison import blocks
from loadtests.comparison.blocks import BLOCKS_LEAST, Blocks, Totals, Values, blocks_of, interval
from loadtests.comparison.comparable import why_not
from loadtests.comparison.effects import Comparison, Effect, effects, verdict
from loadtests.judge import judge
from loadtests.record.history import Attempt
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Incident
from loadtests.record.timeline import Sample

SECONDS, PER_S = 20, 600
SALE = blocks_of(0, SECONDS * 1_000_000)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the draws, for a third of the time; the interval is a little rougher."""
    monkeypatch.setattr(blocks, "RESAMPLES", 600)


def took(seed: int, slower: float = 1.0) -> list[tuple[int, int]]:
    """Return (due, latency) of a sale whose seconds differ: what makes one request slow makes its neighbours slow."""
    draw = random.Random(seed)
    pairs = []
    for second in range(SECONDS):
        weather = draw.lognormvariate(0, 0.2)
        pairs += [
            (second * 1_000_000 + n * 1_000_000 // PER_S, round(5_000 * weather * slower * draw.lognormvariate(0, 0.5)))
            for n in range(PER_S)
        ]
    return pairs


def change(before: list[tuple[int, int]], after: list[tuple[int, int]], share: float) -> tuple[float, float]:
    one, other = Values(SALE, before), Values(SALE, after)
    found = interval(lambda w: one.quantile(share, w), lambda w: other.quantile(share, w), SALE.count)
    assert found is not None
    return found


def sale(pairs: Iterable[tuple[int, int]], cpu: float = 0.5) -> RunFiles:
    """Return a run in which every arrival was accepted after so long."""
    attempts = [
        Attempt(
            arrival=n, op="place", why="first", buyer=f"b{n}", sku="hot", quantity=1, idempotency_key=f"k{n}",
            order_id=f"{n:032x}", intended_us=due_us, sent_us=due_us + 100, done_us=due_us + latency_us, result="ok",
            status=201, outcome="accepted",
        )
        for n, (due_us, latency_us) in enumerate(pairs)
    ]  # fmt: skip
    samples = [Sample(at_us=n * 500_000, cpu={"server": cpu}) for n in range(-2, 2 * SECONDS + 4)]
    files = run_files(spoil(a_good_sale(), attempts=attempts, deliveries=[]), run={"seconds": float(SECONDS)})
    return msgspec.structs.replace(files, timeline=samples)


def said(found: list[Effect]) -> dict[str, str]:
    return {effect.name: effect.says for effect in found}


# --- effects ----------------------------------------------------------------------------------------------------


def test_a_slower_run_is_worse_and_the_other_way_round_better() -> None:
    before, after = sale(took(1)), sale(took(2, slower=1.8), cpu=0.9)
    forth = effects(before, after)
    found = said(forth)
    for name in ("accepted p50", "accepted p90", "accepted p99", "accepted, sent p50", "server CPU an order"):
        assert found[name] == "worse", (name, found)
    assert found["accepted / s"] == "no difference" and found["undecided arrivals"] == "no difference"
    assert "accepted p99.9" not in found, "12,000 values allow none"
    back = effects(after, before)
    assert said(back)["accepted p50"] == said(back)["server CPU an order"] == "better"
    assert verdict(forth) == "worse" and verdict(back) == "better"


def test_a_run_beside_itself_does_not_differ() -> None:
    one = sale(took(1))
    found = effects(one, one)
    assert set(said(found).values()) == {"no difference"}
    assert all(effect.change == 0 and effect.interval == (0, 0) for effect in found)


def test_two_runs_of_the_same_shop_are_not_called_different() -> None:
    """A gate that cries wolf is switched off. Requests that lean on their neighbours look surer than they are."""
    false_alarms = 0
    for seed in range(12):
        low, high = change(took(2 * seed), took(2 * seed + 1), 0.5)
        false_alarms += low > 0 or high < 0
    assert false_alarms <= 1


def test_the_interval_holds_the_true_change() -> None:
    """An interval that is too narrow is worse than none."""
    held = 0
    for seed in range(12):
        low, high = change(took(2 * seed), took(2 * seed + 1, slower=1.25), 0.9)
        held += low <= 0.25 <= high
        assert high - low < 0.8
    assert held >= 10


@given(
    values=st.lists(st.tuples(st.integers(0, 4_999), st.integers(1, 50)), min_size=1, max_size=60),
    weights=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    share=st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_of_drawn_blocks_is_that_of_their_values_written_out(
    values: list[tuple[int, int]], weights: list[int], share: float
) -> None:
    """Counting instead of sorting two thousand times; and no shortcut may move the answer."""
    five = Blocks(begin_us=0, length_us=1_000, count=5)
    drawn = sorted(value for at_us, value in values for _ in range(weights[at_us // 1_000]))
    expected = next((v for n, v in enumerate(drawn, 1) if n >= share * len(drawn) - 1e-9), None)
    assert Values(five, values).quantile(share, weights) == expected


def test_too_short_a_run_and_nothing_to_divide_by_give_no_interval() -> None:
    figure = Totals([1.0] * 40, [1.0] + [0.0] * 39).quotient
    assert interval(figure, figure, 40) is None
    assert interval(figure, figure, BLOCKS_LEAST - 1) is None
    assert blocks_of(0, 5_000_000).count == 5 and blocks_of(0, 3_600_000_000).count == 40


# --- whether at all ---------------------------------------------------------------------------------------------

OTHER_ARRIVALS = [msgspec.structs.replace(a, intended_us=a.intended_us + 7) for a in a_good_sale().attempts]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"run": {"scenario": "soak"}}, "scenario"),
        ({"run": {"seed": 8}}, "seed"),
        ({"run": {"rate": 1.0}}, "rate"),
        ({"run": {"stock": 10}}, "stock"),
        ({"generator": {"processes": 2}}, "processes"),
        ({"generator": {"shed": 4}}, "proves nothing"),
        ({"run": {"incidents": [Incident(at_us=1, what="kill -9 of serve")]}}, "kills"),
        ({"evidence": spoil(a_good_sale(), quarantined=2)}, "broke an invariant"),
        ({"evidence": spoil(a_good_sale(), attempts=OTHER_ARRIVALS)}, "arrivals differ"),
    ],
)
def test_runs_that_differ_in_what_was_asked_are_not_compared(change: dict[str, Any], word: str) -> None:
    one, other = run_files(), run_files(**change)
    reasons = why_not(judge(one), judge(other), (one, other))
    assert len(reasons) == 1 and word in reasons[0], reasons
    assert why_not(judge(one), judge(one), (one, one)) == []


def test_another_machine_is_named() -> None:
    one = run_files()
    machine = msgspec.structs.replace(one.run.machine, cpu="Other", cores=64, kernel="Linux 7", python="3.14")
    other = run_files(run={"machine": machine})
    reasons = why_not(judge(one), judge(other), (one, other))
    assert [reason.split(" differs")[0] for reason in reasons] == ["The processor", "The number of cores", "The kernel"]


def test_a_run_that_had_company_on_its_machine_is_not_compared() -> None:
    """One tree beside a compiler: 80 % faster, with a sure interval, and nothing was changed."""
    alone = run_files()
    window = judge(alone).window
    busy = [Sample(at_us=window.begin_us + n, gauges={"others_cores": 0.9}) for n in range(3)]
    disturbed = msgspec.structs.replace(alone, timeline=busy)
    reasons = why_not(judge(alone), judge(disturbed), (alone, disturbed))
    assert len(reasons) == 1 and "run after other processes used 0.90 of 2 cores" in reasons[0]


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, run_files(run={"run_id": name, "versions": {"valkey": f"9.{len(name)}"}}))
    return tmp_path / "one", tmp_path / "other"


def test_the_command_prints_a_table_and_writes_the_same_as_json(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, pair), "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    found = msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=Comparison)
    assert found.verdict == "no difference" and "NO DIFFERENCE" in printed
    assert all(effect.name in printed for effect in found.effects)
    assert "valkey: 9.3 → 9.5" in printed and "block bootstrap" in printed


def test_the_command_says_in_one_line_each_why_not(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    write_run(pair[1], run_files(run={"seed": 99, "rate": 1.0}))
    assert main(["compare", *map(str, pair)]) == 3
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("not comparable: ") == told.err.count("\n") == 2
    (pair[1] / "run.json").unlink()
    assert main(["compare", *map(str, pair)]) == 3
    assert capsys.readouterr().err.startswith("VOID: run.json")


@pytest.mark.parametrize("extra", [["--least", "-1"], ["--least", "nan"], ["--json", "/proc/none/x.json"], ["third"]])
def test_bad_usage_of_compare_is_code_64(pair: tuple[Path, Path], extra: list[str]) -> None:
    assert main(["compare", *map(str, pair), *extra]) == 64
    assert main(["compare", str(pair[0]), str(pair[1] / "none")]) == 64
