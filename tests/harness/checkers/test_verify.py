"""`flashproof verify`: every number of summary.json and of the report follows from the raw files, or is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rundir import counted_files, recorded, write_run

from core.__main__ import main
from loadtests.judge import judge
from loadtests.record.run_files import RunFiles, Unjudgeable, read_run, write_json
from loadtests.record.summary import ReadLag
from loadtests.report import html
from loadtests.verify import verify


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run's directory, as `prove` leaves it."""
    directory = tmp_path_factory.mktemp("untouched") / "run"
    directory.mkdir()
    write_run(directory, counted_files(generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(20)]}))
    files = read_run(directory)
    summary = judge(files)
    write_json(directory / "summary.json", summary)
    html.write(directory, summary, files)
    return directory


@pytest.fixture
def run(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(untouched, tmp_path / "run"))


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
    said["latency_us"]["accepted"]["max"] += 1
    said["invented"] = 99.9
    write_json(run / "summary.json", said)
    found = sorted(difference.split(":")[0] for difference in verify(run))
    assert found == ["invented", "latency_us.accepted.max", "seed", "verdict"]
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


def forged(run: Path, changed: RunFiles) -> list[str]:
    """Write what was changed and all that follows from it, as a careful forger does; return what verify finds."""
    write_run(run, changed)
    files = read_run(run)
    summary = judge(files)
    write_json(run / "summary.json", summary)
    html.write(run, summary, files)
    return verify(run)


def test_a_forged_histogram_is_named_though_summary_and_report_agree_with_it(run: Path) -> None:
    """Stops: percentiles that no request of the history ever had."""
    files = read_run(run)
    quicker = {**files.histograms, "accepted": recorded(*[900] * files.histograms["accepted"].count)}
    found = forged(run, msgspec.structs.replace(files, histograms=quicker))
    assert {difference.split(" ")[1].partition(".")[0] for difference in found} == {"latency"}
    assert any(one.startswith("histograms.json: latency.accepted.max says 900, the history says 3000") for one in found)
    assert any(one.startswith("histograms.json: latency.accepted.hdr: 2 buckets differ") for one in found)


def test_a_single_count_moved_to_the_next_bucket_is_named(run: Path) -> None:
    files = read_run(run)
    service = dict(files.service)
    counts = [2_000] * (service["accepted"].count - 1) + [2_001]
    moved = msgspec.structs.replace(service["accepted"], hdr=recorded(*counts).hdr)
    found = forged(run, msgspec.structs.replace(files, service=service | {"accepted": moved}))
    assert found == [
        "histograms.json: service.accepted.hdr: 2 buckets differ, the first at 2000 µs: "
        f"it says {len(counts) - 1}, the history says {len(counts)}"
    ]


def test_a_histogram_left_out_or_invented_is_named(run: Path) -> None:
    files = read_run(run)
    other = {name: one for name, one in files.histograms.items() if name != "sold_out"} | {"free": recorded(5)}
    found = forged(run, msgspec.structs.replace(files, histograms=other))
    assert found == [
        "histograms.json: latency.free has 1 values, the history none",
        "histograms.json: latency.sold_out is missing; the history has 2 of it",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"requests": 5}, "generator.json: requests says 5, the history says"),
        ({"outcomes": {"accepted": 99}}, "generator.json: outcomes says {'accepted': 99}, the history says"),
        ({"keys_shown": 1}, "generator.json: keys_shown says 1, the history says"),
        ({"cpu_max": 0.2}, "generator.json: cpu_max says 0.2, the history says 0.4"),
        ({"sent": 3, "unsent": 11}, "generator.json: sent says 3, the history says"),
        ({"read_lag_us": ReadLag(p99=9, replies=3)}, "generator.json: read_lag_us says"),
        ({"started_at": "2026-01-01T00:00:00Z"}, "run.json: started_at says"),
    ],
)
def test_the_generators_word_must_be_that_of_the_history(run: Path, changes: dict[str, Any], says: str) -> None:
    """A generator that counts itself better than it was."""
    files = read_run(run)
    found = forged(run, msgspec.structs.replace(files, generator=msgspec.structs.replace(files.generator, **changes)))
    assert any(difference.startswith(says) for difference in found), found


@pytest.mark.parametrize(
    ("name", "find", "instead", "says"),
    [
        # The page draws every entry of the list; read by name alone, the last one hides the one before it.
        ("report.html", html.DATA_OPENS + "[", html.DATA_OPENS + '[{"id":"cpu","lines":[]},', "report.html: it says"),
        ("report.html", ":1,", ":true,", "report.html says True"),
        ("summary.json", ",\n", ",\r\n", "summary.json: it says"),
        ("summary.json", '"verdict": "pass"', '"verdict": "void", "verdict": "pass"', "summary.json: it says"),
    ],
)
def test_what_reads_the_same_and_is_written_differently_is_named(
    run: Path, name: str, find: str, instead: str, says: str
) -> None:
    """Stops: a forged chart that verify reads past, though a browser draws it."""
    edited(run / name, lambda text: text.replace(find, instead, 1))
    assert any(says in one for one in verify(run))


def test_data_nested_beyond_all_reading_is_said(run: Path) -> None:
    edited(run / "report.html", lambda page: page.replace(html.DATA_OPENS, html.DATA_OPENS + "[" * 100_000, 1))
    assert "report.html: the data of its charts cannot be read" in verify(run)


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
