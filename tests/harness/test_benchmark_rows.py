"""The rows of performance: their arithmetic, their verdicts, and that each command still runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from benchmarks import bars, commands, crowded, durability, fill, rows
from benchmarks.__main__ import VERBS, main
from benchmarks.counted import Counts, Trips, fields, trips
from benchmarks.pinned import Progress
from core.errors import BadInput, Fault

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SMALL: Final = {
    "durability": ["--rounds", "1", "--seconds", "0.2"],
    "commands": ["--rounds", "1", "--seconds", "0.2"],
    "crowded": ["--rounds", "1", "--seconds", "0.2", "--orders", "1000", "--skus", "10"],
}
MOST_S: Final = 120.0
SILENCE_MOST_S: Final = 2.0
MEMORY: Final = crowded.Memory(
    [300.0, 250.0], [100.0] * 2, [120.0, 140.0, 130.0], [160.0] * 3, [40.0] * 3, [17.0] * 3, [45.0] * 3
)


# --- arithmetic -----------------------------------------------------------------------------------------


def test_a_ratio_is_met_at_the_bar_and_missed_just_beside_it() -> None:
    """Stops: a bar that is read the wrong way round, or off by the bar itself."""
    assert bars.ratio("more", [0.8], 0.8).met and not bars.ratio("more", [0.7999], 0.8).met
    assert bars.ratio("less", [0.2], 0.2, at_most=True).met and not bars.ratio("less", [0.2001], 0.2, at_most=True).met


def test_the_median_is_judged_and_the_extremes_are_told() -> None:
    """Stops: one lucky round that carries a verdict."""
    one = bars.ratio("more", [0.5, 0.7, 2.0], 0.8)
    assert (one.value, one.least, one.greatest, one.met) == (0.7, 0.5, 2.0, False)
    assert bars.lines([one])[1].split() == ["more", "0.700", "(0.500", "to", "2.00)", "≥", "0.8", "MISSED"]


def test_the_spread_is_a_part_of_the_median() -> None:
    """Stops: a spread that a reader cannot compare between rows, or that divides by nothing."""
    assert bars.spread([90.0, 100.0, 120.0]) == 0.3
    assert bars.spread([0.0, 0.0]) == 0.0


def test_numbers_are_as_long_as_one_reads() -> None:
    """Stops: 15012.3333333 in a table, 0.00 for 0.0031, and 0.797 that is told as 0.80 and MISSED."""
    assert [bars.short(n) for n in (15_012.3, 12.34, 1.2, 0.797, 0.0031, 0.0)] == [
        "15,012",
        "12.3",
        "1.20",
        "0.797",
        "0.0031",
        "0.000",
    ]


def test_durability_is_judged_inside_each_round() -> None:
    """Stops: a ratio of two medians, which noise that comes and goes would move."""
    before = Counts(live=100, scripts=7, reads=0, commands={})
    kept = durability.window(900.0, before, Counts(live=1_000, scripts=37, reads=0, commands={}))
    assert (kept.orders, kept.scripts) == (900, 30)
    slow = durability.Window(90.0, 200, 10)
    found = durability.ratios(
        [
            {"always": kept, "everysec": durability.Window(1_000.0, 1_000, 30)},
            {"always": slow, "everysec": durability.Window(100.0, 1_000, 30)},
        ]
    )
    assert [one.value for one in found] == [0.9, 25.0]
    assert all(one.met for one in found)
    assert durability.figures([{"always": kept, "everysec": slow}])[-1].values == [30.0]


def test_what_a_store_was_asked_is_shared_among_the_orders() -> None:
    """Stops: calls counted for the requests sent instead of the orders accepted."""
    one = commands.Round(1_000, reads=190, scripts=50, trips=Trips(1, 30, 39, 20), per_s=1.0, drained_s=0.0)
    assert [(ratio.value, ratio.met) for ratio in commands.ratios([one])] == [(0.19, True), (0.06, False)]


def test_the_log_of_postgres_is_counted_by_the_step_of_the_protocol() -> None:
    """Stops: a statement over several lines counted twice, or a bind taken for a trip of its own."""
    log = b"""2026-01-01 LOG:  duration: 0.120 ms  parse __asyncpg_stmt_1__: SELECT 1
\t-- LOG of what it does
2026-01-01 LOG:  duration: 0.020 ms  bind __asyncpg_stmt_1__: SELECT 1
2026-01-01 LOG:  duration: 0.030 ms  execute __asyncpg_stmt_1__: SELECT 1,
\t 2
2026-01-01 LOG:  duration: 0.011 ms  statement: COMMIT;
2026-01-01 LOG:  checkpoint complete
"""
    assert trips(log) == Trips(parse=1, bind=1, execute=1, statement=1)
    assert trips(log).total == 3


def test_info_is_read_line_by_line() -> None:
    """Stops: a heading or a value with a colon in it that ends the measurement."""
    assert fields(b"# Stats\r\na:1\r\nunix:/tmp/x:y\r\n\r\n") == {"a": "1", "unix": "/tmp/x:y"}


def test_the_crowd_is_half_of_one_sku_and_half_of_all_others() -> None:
    """Stops: a million orders of which one SKU has none, or one batch more than Lua takes."""
    hot, spread = fill.crowd(10_001, 10)
    assert len(hot.skus) + len(spread.skus) == 10_001
    assert spread.first == hot.first + len(hot.skus)
    assert len(set(spread.skus)) == 10 and {len(sku) for sku in (*hot.skus, *spread.skus)} == {11}
    parts = list(fill.batches(spread))
    assert [number for part in parts for number in range(part.first, part.first + len(part.skus))] == list(
        range(spread.first, spread.first + len(spread.skus))
    )
    assert max(len(part.skus) for part in parts) <= fill.BATCH


def test_memory_is_judged_by_the_median_of_its_sizes() -> None:
    """Stops: a table that has just grown and is half empty deciding alone."""
    found = {one.name: one for one in crowded.ratios([crowded.Round(100.0, 93.0)], MEMORY)}
    assert found["full / empty at 64"].met
    assert found["bytes a live order"].value == 275.0
    assert found["bytes a cancelled order"].value == 130.0 and found["bytes a cancelled order"].met
    assert not found["bytes a delivered order"].met


def test_a_report_fits_a_screen_and_says_where_and_when() -> None:
    """Stops: figures without a machine and a date, and a table that wraps."""
    rounds = [crowded.Round(100.0, 93.0), crowded.Round(110.0, 99.0)]
    told = rows.report(
        "crowded", 2, 1.5, crowded.figures(rounds, MEMORY), crowded.ratios(rounds, MEMORY), crowded.NOTES
    )
    lines = rows.table(told).splitlines()
    assert len(lines) <= 35 and max(map(len, lines)) <= 125
    assert told.machine.cpu in lines[0] and told.started_at in lines[0] and "2 rounds" in lines[0]
    assert sum(line.endswith((" met", " MISSED")) for line in lines) == 4


# --- bounds ---------------------------------------------------------------------------------------------


def test_a_run_that_takes_too_long_ends_at_the_next_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Stops: a benchmark on a busy machine that nobody sees the end of."""
    with pytest.raises(Fault, match="filling: not done within 0 s"):
        Progress(limit_s=0.0)("filling")
    assert "filling" in capsys.readouterr().err


def test_a_slow_machine_gets_fewer_rounds_but_at_least_one() -> None:
    """Stops: a run beyond its time, and one without a figure."""
    assert list(rows.rounds_in_time(3, Progress(), 1_000.0)) == [1, 2, 3]
    assert list(rows.rounds_in_time(3, Progress(), 0.0)) == [1]


@pytest.mark.parametrize(("rounds", "seconds"), [(0, 1.0), (21, 1.0), (1, 0.1), (1, 10.5)])
def test_bounds_of_a_run_are_told(rounds: int, seconds: float) -> None:
    """Stops: a run of an hour by a slip of the finger."""
    with pytest.raises(BadInput, match="--rounds must be from 1 to 20"):
        rows.check(rounds, seconds)


# --- the commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["ceilings"], ["crowded", "--orders", "3"], ["commands", "--rounds", "x"]])
def test_bad_usage_is_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Stops: a mistyped verb that a gate takes for a missed bar."""
    assert main(arguments) == 64
    said = capsys.readouterr()
    assert said.out or said.err


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Stops: a row that nobody finds, and a wrong verb without the list of right ones."""
    assert main(["--help"]) == 0
    assert main(["nothing"]) == 64
    said = capsys.readouterr()
    for overview in (said.out, said.err):
        assert all(re.search(rf"^  {verb} +\S", overview, re.MULTILINE) for verb in VERBS)


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    said: str
    progress: str
    report: dict[str, Any]
    silence_s: float


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    """Every command at its smallest, side by side."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("rows")
    under_way = {
        verb: subprocess.Popen(
            [sys.executable, "-m", "benchmarks", verb, *options],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for verb, options in SMALL.items()
    }
    found = {}
    deadline = time.monotonic() + MOST_S
    try:
        for verb, process in under_way.items():
            said, progress = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            report = folder / "out" / verb / "latest" / f"{verb}.json"
            instants = [float(at) for at in re.findall(r"^\[ *([0-9.]+) s\]", progress, re.MULTILINE)]
            silence_s = max((b - a for a, b in zip([0.0, *instants], instants, strict=False)), default=0.0)
            told = json.loads(report.read_text()) if report.exists() else {}
            found[verb] = Ran(process.returncode, said, progress, told, silence_s)
        yield found
    finally:
        for process in under_way.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.proof
@pytest.mark.parametrize("verb", SMALL)
def test_each_row_runs_and_its_exit_code_is_its_verdict(ran: dict[str, Ran], verb: str) -> None:
    """Stops: a benchmark that rots until the day it is needed."""
    one = ran[verb]
    assert one.report, one.progress
    assert one.code == (0 if all(ratio["met"] for ratio in one.report["ratios"]) else 1), one.said + one.progress
    assert one.report["verb"] == verb and one.report["rounds"] == 1
    assert one.report["ratios"][0]["value"] > 0 and one.report["figures"][0]["values"][0] > 0, one.said
    assert f"out/{verb}/" in one.said and "Traceback" not in one.progress


@pytest.mark.proof
@pytest.mark.parametrize("verb", SMALL)
def test_a_row_is_never_silent_for_long(ran: dict[str, Ran], verb: str) -> None:
    """Stops: a command that seems to hang."""
    assert ran[verb].silence_s <= 2 * SILENCE_MOST_S, ran[verb].progress  # twice: this machine runs three at once


@pytest.mark.proof
def test_orders_come_in_batches_even_in_a_tiny_run(ran: dict[str, Ran]) -> None:
    """Stops: counters that are read at the wrong server, which would tell zero or one."""
    batches = {figure["name"]: figure["values"][0] for figure in ran["durability"].report["figures"]}
    assert 1.5 < batches["batch, always"] <= 64
    calls = {ratio["name"]: ratio["value"] for ratio in ran["commands"].report["ratios"]}
    assert 1 / 64 < calls["Valkey calls an order at 64"] < 1
