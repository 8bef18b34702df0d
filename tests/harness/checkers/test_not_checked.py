"""What nobody could look into is not checked, and never passed; and the budgets of single scenarios."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rundir import run_files
from spoiled import spoil
from world import a_good_sale

from loadtests import checkers
from loadtests.judge import judge
from loadtests.record.evidence import NO_POSTGRES, NO_VALKEY, Evidence
from loadtests.record.memory import growth
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Budgets, Window
from loadtests.record.timeline import Sample
from loadtests.report.terminal import last_words

MIB = 2**20


def blind(evidence: Evidence, *stores: str) -> Evidence:
    """Return the evidence as it is where nobody could look into these stores."""
    empty: dict[str, Any] = {"postgres": NO_POSTGRES, "valkey": NO_VALKEY}
    return msgspec.structs.replace(evidence, unread=frozenset(stores), **{store: empty[store] for store in stores})


def judged(*stores: str) -> Any:
    files = run_files(run={"unread": list(stores)})
    return judge(msgspec.structs.replace(files, evidence=blind(files.evidence, *stores)))


def test_without_any_store_thirteen_invariants_are_not_checked_and_the_first_line_says_so() -> None:
    """`PASS, every invariant holds`, of a shop whose stores were never opened."""
    summary = judged("postgres", "valkey")
    assert summary.verdict == "pass", summary.reasons
    assert {one.name for one in summary.invariants if one.holds} == checkers.FROM_HISTORY
    assert {one.holds for one in summary.invariants if one.name not in checkers.FROM_HISTORY} == {None}
    first = str(last_words(summary, "out/run").renderables[0])
    assert "13 invariants NOT CHECKED; every other holds" in first
    assert sum("not checked" in line for line in summary.not_tested) == 13
    assert any(line.startswith("expiry: not looked for") for line in summary.not_tested)
    assert "expiry" not in summary.reached


def test_with_postgresql_alone_what_needs_valkey_too_is_not_checked() -> None:
    summary = judged("valkey")
    assert {one.name for one in summary.invariants if one.holds is None} == checkers.FROM_BOTH
    assert all(one.holds for one in summary.invariants if one.name not in checkers.FROM_BOTH)
    assert all("valkey" in line for line in summary.not_tested if "not checked" in line)


def test_with_both_stores_every_invariant_is_checked_and_none_is_on_the_list() -> None:
    summary = judged()
    assert all(one.holds is not None for one in summary.invariants)
    assert not any("not checked" in line for line in summary.not_tested)


def test_one_key_shown_to_two_buyers_is_wrong_also_where_no_store_could_be_read() -> None:
    evidence = a_good_sale()
    shown = [a for a in evidence.attempts if a.keys]
    other = next(a for a in shown if a.buyer != shown[0].buyer)
    copied = msgspec.structs.replace(other, keys=shown[0].keys)
    files = run_files(spoil(evidence, attempts=[*evidence.attempts, copied]), run={"unread": ["postgres", "valkey"]})
    summary = judge(msgspec.structs.replace(files, evidence=blind(files.evidence, "postgres", "valkey")))
    assert summary.verdict == "wrong"
    assert summary.reasons[0].startswith("wrong: one_key_one_buyer")


def test_a_run_of_which_nothing_could_be_checked_is_void() -> None:
    files = run_files(run={"unread": ["postgres", "valkey"]})
    nothing = blind(spoil(files.evidence, attempts=[]), "postgres", "valkey")
    summary = judge(msgspec.structs.replace(files, evidence=nothing))
    assert any("Nothing that must always hold could be checked" in reason for reason in summary.reasons)


# --- budgets of single scenarios ----------------------------------------------------------------------------


def soaked(grows_mib: float) -> list[Sample]:
    """Return forty looks at a server over four seconds that grows by so much a second."""
    return [Sample(at_us=n * 100_000, rss_bytes={"server": round((100 + grows_mib * n / 10) * MIB)}) for n in range(41)]


def test_growth_is_told_between_the_second_quarter_and_the_last() -> None:
    """A cache that fills at the start is no leak; what grows to the end is."""
    window = Window(begin_us=0, end_us=4_000_000)
    assert growth(soaked(3.0), window)["server"] == pytest.approx(6 * MIB, abs=MIB / 2)
    filled = [Sample(at_us=s.at_us, rss_bytes={"server": min(s.rss_bytes["server"], 110 * MIB)}) for s in soaked(20.0)]
    assert growth(filled, window)["server"] == 0
    assert growth(soaked(3.0)[:15], window) == {}


def with_samples(samples: list[Sample], budgets: Budgets) -> RunFiles:
    return msgspec.structs.replace(run_files(run={"budgets": budgets}), timeline=samples)


def stretched(samples: list[Sample]) -> list[Sample]:
    """Return the samples over the whole window of the good sale."""
    window = judge(run_files()).window
    step = (window.end_us - window.begin_us) / len(samples)
    return [
        msgspec.structs.replace(sample, at_us=round(window.begin_us + n * step)) for n, sample in enumerate(samples)
    ]


@pytest.mark.parametrize(("grows", "verdict"), [(0.0, "pass"), (9.0, "slow")])
def test_memory_beyond_its_budget_is_slow(grows: float, verdict: str) -> None:
    summary = judge(with_samples(stretched(soaked(grows)), Budgets(rss_growth_bytes={"server": 8 * MIB})))
    assert summary.verdict == verdict, summary.reasons


def test_memory_with_a_budget_that_nobody_measured_is_no_pass() -> None:
    summary = judge(with_samples([], Budgets(rss_growth_bytes={"server": 8 * MIB})))
    assert summary.verdict == "slow"
    assert "not measured" in summary.reasons[0]


@pytest.mark.parametrize(("name", "says"), [("sold_out", "the budget is 0.0 ms"), ("list_ok", "no such answer")])
def test_any_name_may_have_a_latency_budget_and_one_without_answers_is_no_pass(name: str, says: str) -> None:
    summary = judge(run_files(run={"budgets": Budgets(p99_us={name: 10})}))
    assert summary.verdict == "slow"
    assert says in summary.reasons[0]


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "pass"), (0.0, "slow")])
def test_requests_that_were_put_off_count_against_their_budget(share: float, verdict: str) -> None:
    """Latencies of answers alone look best when most are turned away."""
    evidence = a_good_sale()
    look = next(a for a in evidence.attempts if a.op == "track")
    away = {"op": "browse", "why": "product", "keys": (), "result": "fail", "status": 503, "outcome": "overloaded"}
    put_off = msgspec.structs.replace(look, **away)
    files = run_files(
        spoil(evidence, attempts=[*evidence.attempts, put_off]), {"budgets": Budgets(unserved_share=share)}
    )
    summary = judge(files)
    assert summary.verdict == verdict, summary.reasons
    assert share or "3 of 45 requests were not served (2 of them place timeout)" in summary.reasons[0]
