"""`flashproof sweep` end to end, short, on a real shop; and what it says to bad usage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.__main__ import main

RUN_MOST_S = 120.0


def sweep(*options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "core", "sweep", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=RUN_MOST_S, check=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    report = tmp_path_factory.mktemp("sweep") / "run"
    options = ("--from", "400", "--to", "500", "--seconds", "1", "--p99-ms", "5000", "--errors", "0.05")
    return sweep(*options, "--trials", "3", "--report", str(report)), report


@pytest.mark.proof
def test_a_short_sweep_confirms_a_rate_and_leaves_its_page_and_data(
    swept: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """Three trials: the lowest rate passes, the highest passes twice."""
    done, report = swept
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads((report / "sweep.json").read_text())
    assert told["answer"] == {"rate": 500.0, "confirmed": True, "above": None, "end": "at_least"}
    assert [one["rate"] for one in told["trials"]] == [400, 500, 500]
    assert [one["number"] for one in told["trials"]] == [1, 2, 3]
    assert "At least 500 arrivals/s keep" in done.stdout
    assert "Why not double?" in done.stdout
    page = (report / "sweep.html").read_text()
    assert "Why not double?" in page
    assert "<svg" in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert (report.parent / "latest").resolve() == report.resolve()


@pytest.mark.proof
def test_every_trial_has_fresh_buyers_enough_stock_and_figures_that_its_history_gives_again(
    swept: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """A trial that sells the last one's leftovers, or replays its orders, measures another shop."""
    _, report = swept
    told = json.loads((report / "sweep.json").read_text())
    buyers: set[str] = set()
    for one in told["trials"]:
        folder = report / f"trial-{one['number']:03d}"
        attempts = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        firsts = [a for a in attempts if a["why"] in ("first", "over_limit")]
        assert len(firsts) == one["figures"]["scheduled"] >= 500
        assert sum(a.get("outcome") == "accepted" for a in firsts) == one["figures"]["accepted"]
        assert not any(a.get("outcome") == "sold_out" for a in attempts)
        mine = {a["buyer"] for a in attempts}
        assert not mine & buyers
        buyers |= mine
        assert {"server", "valkey"} <= set(one["figures"]["cpu"])
        assert one["figures"]["gauges"]["others_cores"] >= 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--from", "0"), "--from must be from 1"),
        (("--from", "500", "--to", "500"), "--to must be above --from"),
        (("--p99-ms", "nan"), "--p99-ms must be from"),
        (("--errors", "2"), "--errors must be from 0 to 1"),
        (("--scenario", "flash_sail"), "Did you mean flash_sale?"),
        (("--report", "/proc/none/run"), "--report /proc/none/run"),
    ],
)
def test_bad_usage_is_one_line_and_starts_nothing(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo must not start a database."""
    report = () if "--report" in options else ("--report", str(tmp_path / "run"))
    assert main(["sweep", *options, *report]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("left", ["sweep.json", "trial-001"])
def test_a_directory_with_somebodys_files_is_left_alone(
    left: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stops: a sweep into a directory of something else, or into that of a sweep that is under way."""
    (tmp_path / left).mkdir()
    assert main(["sweep", "--report", str(tmp_path)]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{left} is there, and nothing says that a run left it" in line
    assert [path.name for path in tmp_path.iterdir()] == [left]
