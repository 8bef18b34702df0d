"""A run's directory holds one run: what an earlier one left is gone before the next begins, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.__main__ import main
from core.errors import BadInput
from loadtests.record.folder import MARK, NAMES, directory, occupied

FOREIGN = ("notes.txt", "report.html.bak", "logs/nginx.log", "trial-001/history.jsonl", "history.jsonl.old")


def write(report: Path, *names: str) -> None:
    for name in names:
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        (report / name).write_text("of an earlier run")


def left(report: Path) -> set[str]:
    return {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}


def test_a_run_begins_by_removing_what_an_earlier_run_left_and_nothing_else(tmp_path: Path) -> None:
    with occupied(tmp_path / "run"):
        write(tmp_path / "run", *NAMES, "summary.json.new", ".parts-x1/0/history.jsonl", *FOREIGN)
    with occupied(tmp_path / "run"):
        assert left(tmp_path / "run") == {MARK, *FOREIGN}


@pytest.mark.parametrize("text", ["", "/"])
def test_a_report_that_names_no_directory_is_refused(text: str) -> None:
    """Stops: the hundreds of files of a run strewn into whatever directory one stands in."""
    with pytest.raises(BadInput, match="--report must name a directory"):
        directory(text)


def test_a_report_by_a_path_without_a_name_gets_the_directorys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a run called nothing, whose last step fails because it cannot be pointed at."""
    (tmp_path / "run" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "inner")
    assert [directory(text).name for text in (".", "..", "new", "../x/")] == ["inner", "run", "new", "x"]


def test_a_second_run_that_fails_leaves_no_report_of_the_first(tmp_path: Path) -> None:
    """Stops: the verdict of yesterday beside the history of today. A real `prove`, whose generator cannot begin."""
    report = tmp_path / "run"
    with occupied(report):
        write(report, *NAMES)
    argv = ["prove", "--report", str(report), "--ceiling", "0"]
    code = "import sys, loadtests.prove as prove\nprove.run_sale = lambda *_: 1 / 0\nsys.exit(prove.main(sys.argv[2:]))"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "VOID: ZeroDivisionError" in done.stderr
    assert left(report) == {MARK}


@pytest.mark.parametrize("name", [*NAMES, "run.json.new"])
def test_a_file_that_no_run_is_known_to_have_left_is_never_removed(tmp_path: Path, name: str) -> None:
    """Stops: `--report .` in somebody's project, whose own report.html is then gone."""
    write(tmp_path, name)
    with pytest.raises(BadInput, match="nothing says that a run left it; remove it, or name another directory"):
        occupied(tmp_path).__enter__()
    assert left(tmp_path) == {name}


def test_a_refused_directory_is_told_in_one_line_with_exit_code_64(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "summary.json")
    assert main(["prove", "--report", str(tmp_path)]) == 64
    said = capsys.readouterr().err
    assert f"--report {tmp_path}: summary.json is there" in said
    assert said.count("\n") == 1


def test_a_directory_in_which_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    with occupied(tmp_path):
        write(tmp_path, "history.jsonl")
        with pytest.raises(BadInput, match="another run is writing there"):
            occupied(tmp_path).__enter__()
        assert left(tmp_path) == {MARK, "history.jsonl"}


def test_stores_of_a_run_that_was_killed_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    """Stops: a sale on yesterday's keys."""
    with occupied(tmp_path):
        write(tmp_path, "stores/valkey/server.log")
    with pytest.raises(BadInput, match="the stores of a run that was killed"):
        occupied(tmp_path).__enter__()
    assert "stores/valkey/server.log" in left(tmp_path)
