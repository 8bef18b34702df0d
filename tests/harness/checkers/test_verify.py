"""`flashproof verify`: every number of summary.json and of the report follows from the raw files, or is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rundir import run_files, write_run

from core.__main__ import main
from loadtests.judge import Unjudgeable, judge, read_run, write_json
from loadtests.report import html
from loadtests.verify import verify


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run's directory, as `prove` leaves it."""
    write_run(tmp_path, run_files(generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(20)]}))
    files = read_run(tmp_path)
    summary = judge(files)
    write_json(tmp_path / "summary.json", summary)
    html.write(tmp_path, summary, files)
    return tmp_path


def edited(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before, "the test changed nothing"
    path.write_text(after, encoding="utf-8")


def test_an_untouched_run_verifies(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(run) == []
    assert main(["verify", str(run)]) == 0
    assert "follows from the raw files" in capsys.readouterr().out


def test_a_forged_summary_is_found_field_by_field(run: Path) -> None:
    """A verdict edited by hand."""
    said = msgspec.json.decode((run / "summary.json").read_bytes())
    said["verdict"], said["seed"] = "slow", 8
    said["latency_us"]["accepted"]["p50"] += 1
    said["invented"] = 99.9
    write_json(run / "summary.json", said)
    found = sorted(difference.split(":")[0] for difference in verify(run))
    assert found == ["invented", "latency_us.accepted.p50", "seed", "verdict"]
    assert main(["verify", str(run)]) == 2


def test_a_number_changed_in_a_chart_of_the_report_is_named(run: Path) -> None:
    """The picture is what people believe."""
    edited(
        run / "report.html", lambda page: re.sub(r'("name":"server","values":\[)[\d.]+', r"\g<1>0.0123", page, count=1)
    )
    found = verify(run)
    assert len(found) == 1 and found[0].startswith("cpu.lines[0].values[0]: report.html says 0.0123")


@pytest.mark.parametrize(
    ("find", "instead"),
    [
        ('<h1 class="mood">PASS', '<h1 class="mood">VOID'),
        ("keys delivered twice", "keys delivered once"),
        ("default-src 'none'", "default-src *"),
    ],
)
def test_a_word_changed_on_the_page_is_found_where_it_stands(run: Path, find: str, instead: str) -> None:
    edited(run / "report.html", lambda text: text.replace(find, instead, 1))
    found = verify(run)
    assert len(found) == 1 and "report.html line" in found[0] and instead[-4:] in found[0]


@pytest.mark.parametrize(
    ("name", "find", "instead"),
    [
        ("timeline.jsonl", '"rss_bytes":{"server":50000000', '"rss_bytes":{"server":90000000'),
        ("generator.json", "0.4", "0.41"),
        ("history.jsonl", '"outcome":"sold_out"', '"outcome":"limit_reached"'),
        ("run.json", '"kernel": "Linux 6.1"', '"kernel": "Linux 6.2"'),
    ],
)
def test_a_raw_file_changed_afterwards_shows_in_the_report(run: Path, name: str, find: str, instead: str) -> None:
    """Whatever is drawn or said comes from these files and from nothing else."""
    edited(run / name, lambda text: text.replace(find, instead))
    assert any("report.html" in difference for difference in verify(run))


def test_data_that_is_no_data_is_said(run: Path) -> None:
    edited(run / "report.html", lambda page: page.replace(html.DATA_OPENS + "[", html.DATA_OPENS + "{", 1))
    assert "report.html: the data of its charts cannot be read" in verify(run)


@pytest.mark.parametrize("name", ["summary.json", "report.html", "timeline.jsonl"])
def test_a_missing_or_broken_file_is_void_in_one_line(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).write_bytes(b"\xff{half")
    with pytest.raises(Unjudgeable, match=name):
        verify(run)
    assert main(["verify", str(run)]) == 3
    said = capsys.readouterr().err
    assert said.startswith("VOID: ") and said.count("\n") == 1
