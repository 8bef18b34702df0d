"""The verdict: which rule argues for what, what beats what, and that it can all be computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rundir import recorded, run_files, write_run
from spoiled import altered, pick, spoil
from world import a_good_sale

from loadtests.judge import exit_code, judge
from loadtests.record.axis import WorkerClock
from loadtests.record.figures import latency_of
from loadtests.record.run_files import Unjudgeable, read_run, write_json
from loadtests.record.summary import Budgets, Incident, ReadLag, Summary, WakeLag
from loadtests.report import tables

SLOW = {"budgets": Budgets(accepted_p99_us=1_000)}
SHED = {"shed": 1, "scheduled": 99}


def _wrong() -> Any:
    return spoil(a_good_sale(), facts_left=3)


def test_a_right_sale_passes_with_exit_code_0() -> None:
    summary = judge(run_files())
    assert (summary.verdict, summary.reasons, exit_code(summary)) == ("pass", [], 0)
    assert summary.generator.valid and all(f.holds and f.checked for f in summary.invariants)


def test_a_broken_invariant_is_wrong_and_named_with_exit_code_2() -> None:
    summary = judge(run_files(_wrong()))
    assert (summary.verdict, exit_code(summary)) == ("wrong", 2)
    assert summary.reasons[0].startswith("wrong: stock_across_stores: 3 journal entries")


@pytest.mark.parametrize("budget", ["accepted_p99_us", "sold_out_p99_us", "paid_to_delivered_p99_us"])
def test_a_missed_latency_budget_is_slow_with_exit_code_1(budget: str) -> None:
    summary = judge(run_files(run={"budgets": Budgets(**{budget: 1_000})}))
    assert (summary.verdict, exit_code(summary), len(summary.reasons)) == ("slow", 1, 1)


def test_a_missed_throughput_budget_is_slow() -> None:
    assert judge(run_files(run={"budgets": Budgets(accepted_per_s=1e6)})).verdict == "slow"


@pytest.mark.parametrize(
    "generator",
    [
        {"cpu_max": 0.86},
        {"stalls": [(1_000_000, 50_000)]},
        {"wake_lag_us": WakeLag(p50=1, p99=50_000, max=90_000)},
        {"read_lag_us": ReadLag(p50=1, p99=50_000, max=90_000, replies=100)},
        {"clocks": [WorkerClock(worker=1, machine=run_files().run.machine, same=False, within_us=2_000)]},
        {"shed": 1, "scheduled": 99},
        {"unsent": 2},
        {"sent": 3},
        {"crashed": 1, "complete": False},
        {"complete": False},
    ],
)
def test_an_unfit_generator_makes_the_run_void_with_exit_code_3(generator: dict[str, Any]) -> None:
    summary = judge(run_files(generator=generator))
    assert (summary.verdict, exit_code(summary), summary.generator.valid) == ("void", 3, False)


@pytest.mark.parametrize(("late_us", "verdict"), [(9_000, "pass"), (10_500, "void")])
def test_a_wake_lag_is_forgiven_up_to_a_twentieth_of_the_reported_p99(late_us: int, verdict: str) -> None:
    files = run_files(generator={"wake_lag_us": WakeLag(p99=late_us)}, run={"budgets": Budgets()})
    slow_shop = {**files.histograms, "accepted": recorded(*range(1, 200_000, 10))}  # p99: 198 ms
    assert judge(msgspec.structs.replace(files, histograms=slow_shop)).verdict == verdict


@pytest.mark.parametrize(
    ("many", "late_us", "verdict"), [(1_000, 900, "pass"), (1_000, 1_100, "void"), (9, 1_100, "pass")]
)
def test_payments_sent_late_make_a_run_void_though_the_arrivals_were_punctual(
    many: int, late_us: int, verdict: str
) -> None:
    """Stops: budgets for payments judged by latencies that are partly the generator's own."""
    evidence = a_good_sale()
    pay = pick(evidence, "attempts", op="pay")
    late = msgspec.structs.replace(
        pay, why="pay_again", outcome="repeated", intended_us=pay.sent_us - late_us, waited_us=0, connect_us=0
    )
    copies = [late] * many
    assert judge(run_files(spoil(evidence, attempts=[*evidence.attempts, *copies]))).verdict == verdict


def test_accepted_orders_without_a_latency_make_the_run_void() -> None:
    """Stops: a budget that holds because nothing was counted under its name."""
    files = run_files()
    histograms = {name: one for name, one in files.histograms.items() if name != "accepted"}
    summary = judge(msgspec.structs.replace(files, histograms=histograms))
    assert summary.verdict == "void"
    assert any("histograms.json has no latency of theirs" in reason for reason in summary.reasons)


@pytest.mark.parametrize(("late_us", "verdict"), [(9_000, "pass"), (10_500, "void")])
def test_reading_late_is_forgiven_as_far_as_sending_late(late_us: int, verdict: str) -> None:
    """By the history alone: a generator that keeps silent about it is found all the same."""
    evidence = a_good_sale()
    attempts = [msgspec.structs.replace(a, read_late_us=late_us) for a in evidence.attempts]
    files = run_files(spoil(evidence, attempts=attempts), run={"budgets": Budgets()})
    slow_shop = {**files.histograms, "accepted": recorded(*range(1, 200_000, 10))}  # p99: 198 ms
    summary = judge(msgspec.structs.replace(files, histograms=slow_shop))
    assert (summary.verdict, summary.generator.read_lag_us_p99) == (verdict, late_us)


def test_what_nobody_measured_of_reading_is_told_as_that_and_never_as_nothing() -> None:
    summary = judge(run_files())
    assert summary.generator.read_lag_us_p99 is None
    assert "not measured: the kernel gave no stamp of any reply" in tables.generator(summary, run_files())


def test_instants_that_contradict_each_other_make_the_run_void() -> None:
    """Stops: a wait that is longer than the time there was, which a sum cut off at zero would hide."""
    evidence = a_good_sale()
    first = pick(evidence, "attempts", op="place")
    longer = altered(evidence, "attempts", first, waited_us=900, connect_us=101)
    assert judge(run_files(altered(evidence, "attempts", first, waited_us=900, connect_us=100))).verdict == "pass"
    assert any("longer than there was time" in reason for reason in judge(run_files(longer)).reasons)


@pytest.mark.parametrize(
    "run",
    [
        {"incidents": [Incident(at_us=1, what="valkey died", planned=False)]},
        {"quiet_after_s": None},
    ],
)
def test_an_accident_or_unrest_makes_the_run_void(run: dict[str, Any]) -> None:
    assert judge(run_files(run=run)).verdict == "void"


def test_a_planned_kill_is_no_accident() -> None:
    assert judge(run_files(run={"incidents": [Incident(at_us=1, what="kill -9 of valkey")]})).verdict == "pass"


def test_a_sale_that_never_sold_out_is_void_and_says_so() -> None:
    files = run_files()
    tame = [a for a in files.evidence.attempts if a.outcome != "sold_out"]
    summary = judge(run_files(spoil(files.evidence, attempts=tame)))
    assert summary.verdict == "void" and any("never ran out" in reason for reason in summary.reasons)


def test_wrong_beats_void_beats_slow_and_all_reasons_are_given() -> None:
    three = judge(run_files(_wrong(), run=SLOW, generator=SHED))
    assert three.verdict == "wrong" and {r.split(":")[0] for r in three.reasons} == {"wrong", "void", "slow"}
    assert judge(run_files(run=SLOW, generator=SHED)).verdict == "void"
    assert judge(run_files(run=SLOW)).verdict == "slow"


def test_every_arrival_is_in_exactly_one_outcome() -> None:
    summary = judge(run_files())
    ended = sum(n for name, n in summary.outcomes.items() if name != "replayed")
    assert ended == summary.offered.scheduled
    assert summary.outcomes["sold_out"] == 1 and summary.outcomes["unknown"] == 2


def test_the_summary_has_every_field_of_schema_1() -> None:
    said = msgspec.to_builtins(judge(run_files()))
    top = "schema run_id scenario seed started_at git_commit machine verdict reasons offered outcomes orders keys rates"
    assert {*top.split(), "latency_us", "cost", "invariants", "generator"} <= said.keys() and said["schema"] == 1
    for part, fields in {
        "machine": "cpu cores kernel python",
        "offered": "scheduled sent unsent shed",
        "outcomes": "accepted replayed sold_out limit_reached unknown",
        "orders": "accepted paid delivered expired refund_due",
        "keys": "loaded delivered duplicated",
        "rates": "accepted_per_s refused_per_s delivered_per_s",
        "latency_us": "accepted sold_out paid_to_delivered",
        "cost": "server_cpu_us_per_order valkey_cpu_us_per_order postgres_cpu_us_per_order",
        "generator": "valid cpu_max wake_lag_us_p99",
    }.items():
        assert set(fields.split()) <= said[part].keys(), part
    assert set(said["invariants"][0]) == {"name", "holds", "checked", "violations"}
    assert set(said["latency_us"]["accepted"]) == {*["p50", "p90", "p99", "p999", "max", "count", "interval_us"]}


def test_the_figures_are_those_of_the_evidence() -> None:
    summary = judge(run_files())
    assert (summary.keys.loaded, summary.keys.delivered, summary.keys.duplicated) == (14, 12, 0)
    assert summary.orders.accepted == 14 and summary.orders.refunds_due == 2
    assert summary.cost.server_cpu_us_per_order == round(1.5e6 / 14, 1)
    assert summary.cost.postgres_cpu_us_per_order is None


def test_percentiles_come_from_the_histogram_itself() -> None:
    latency = latency_of(recorded(*range(1, 10_001)))
    assert abs(latency.p50 - 5_000) <= 5 and abs(latency.p99 - 9_900) <= 10 and latency.max == 10_000
    assert latency_of(recorded()).count == 0


def test_paid_to_delivered_comes_from_the_stores_when_nobody_recorded_it() -> None:
    files = run_files()
    unrecorded = {name: h for name, h in files.histograms.items() if name != "paid_to_delivered"}
    summary = judge(msgspec.structs.replace(files, histograms=unrecorded))
    assert summary.latency_us["paid_to_delivered"].count == summary.orders.delivered


# --- files ------------------------------------------------------------------------------------------------------


def test_a_run_is_judged_again_from_its_files(tmp_path: Path) -> None:
    write_run(tmp_path, run_files())
    summary = judge(read_run(tmp_path))
    assert summary.verdict == "pass"
    write_json(tmp_path / "summary.json", summary)
    assert msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary) == summary


@pytest.mark.parametrize("name", ["run.json", "generator.json", "histograms.json", "postgres.json", "valkey.json"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, run_files())
    (tmp_path / name).write_text('{"half":')
    with pytest.raises(Unjudgeable, match=name):
        read_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(Unjudgeable, match=name):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["history.jsonl", "charges.jsonl"])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, run_files())
    with (tmp_path / name).open("a") as file:
        file.write("{}\n")
    with pytest.raises(Unjudgeable, match=rf"{name} line \d+"):
        read_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(Unjudgeable, match=name):
        read_run(tmp_path)


def test_a_broken_histogram_makes_the_run_unjudgeable(tmp_path: Path) -> None:
    files = run_files()
    broken = {**files.histograms, "accepted": msgspec.structs.replace(files.histograms["accepted"], hdr="nonsense")}
    with pytest.raises(Unjudgeable, match="accepted"):
        judge(msgspec.structs.replace(files, histograms=broken))
