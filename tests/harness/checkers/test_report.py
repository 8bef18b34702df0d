"""The report: offline, whole, honest, safe against hostile text, and bounded."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from rundir import run_files
from spoiled import spoil
from world import a_good_sale

from loadtests.judge import RULES, RunFiles, judge
from loadtests.record.summary import Incident, Window
from loadtests.report import chart, html, terminal
from loadtests.report.page import table
from loadtests.report.series import BUCKETS_MOST, OUTCOMES_MOST, over_time, spectrum

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "<script src=//evil.example/x.js></script>\"'><img src=x onerror=alert(1)>"


class Balance(HTMLParser):
    """Fails on a tag that is closed but not open; remembers what was opened and with which attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:])
        self.open.pop()


def _page(files: RunFiles) -> str:
    return html.render(judge(files), files)


def _parsed(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    return balance


def _wrong_files() -> RunFiles:
    return run_files(spoil(a_good_sale(), facts_left=3, quarantined=2))


@pytest.mark.parametrize("files", [run_files(), _wrong_files(), run_files(generator={"shed": 4})])
def test_the_page_says_the_verdict_and_its_rule(files: RunFiles) -> None:
    summary = judge(files)
    page = html.render(summary, files)
    _parsed(page)
    assert f'<h1 class="mood">{summary.verdict.upper()}</h1>' in page
    assert all(when.replace("'", "&#x27;") in page for _, when, _ in RULES)
    assert all(finding.name.replace("_", " ") in page for finding in summary.invariants)
    assert summary.git_commit in page and "seed" in page and "make prove ARGS" in page


def test_the_page_asks_nobody_for_anything() -> None:
    page = _page(run_files())
    assert not re.search(r"https?://|//[a-z]|url\(|@import", page.replace("<!doctype html>", ""))
    tags = _parsed(page).tags
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in tags}
    assert not [attrs for _, attrs in tags if {"src", "href", "srcset", "xlink:href"} & attrs.keys()]
    assert "default-src 'none'" in page


def test_every_table_has_a_caption_and_every_chart_a_name() -> None:
    page = _page(run_files())
    tags = _parsed(page).tags
    assert page.count("<table>") == page.count("<caption>") > 6
    charts = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(charts) == 3 and all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_hostile_text_stays_text_wherever_it_comes_from() -> None:
    files = run_files(
        spoil(a_good_sale(), attempts=[msgspec.structs.replace(a, outcome=HOSTILE) for a in a_good_sale().attempts]),
        run={
            "command": HOSTILE,
            "scenario": HOSTILE,
            "run_id": HOSTILE,
            "not_tested": [HOSTILE],
            "versions": {HOSTILE: HOSTILE},
            "incidents": [Incident(at_us=1, what=HOSTILE)],
            "git_commit": HOSTILE,
        },
    )
    histograms = {**files.histograms, HOSTILE: files.histograms["accepted"]}
    page = _page(msgspec.structs.replace(files, histograms=histograms))
    assert "&lt;script" in page and "<script" not in page and "<img" not in page
    _parsed(page)


def test_a_run_with_endless_different_errors_gives_a_page_of_ordinary_size() -> None:
    evidence = a_good_sale()
    one = next(a for a in evidence.attempts if a.op == "place")
    errors = [
        msgspec.structs.replace(one, result="fail", outcome=f"error {n} " + "x" * 500, order_id="", arrival=n + 100)
        for n in range(20_000)
    ]
    files = run_files(
        spoil(evidence, attempts=[*evidence.attempts, *errors]),
        run={"incidents": [Incident(at_us=n, what="kill " * 200) for n in range(5_000)]},
    )
    assert len(_page(files)) < 400_000


def test_incidents_are_marked_in_the_charts_and_named_below() -> None:
    page = _page(run_files(run={"incidents": [Incident(at_us=20_000, what="kill -9 of the projector")]}))
    assert "kill -9 of the projector" in page and 'class="mark"' in page


def test_an_empty_run_still_has_a_page(tmp_path: Path) -> None:
    files = run_files(spoil(a_good_sale(), attempts=[], charges=[], orders=[], events=[], payments=[], deliveries=[]))
    files = msgspec.structs.replace(files, histograms={})
    path = html.write(tmp_path, judge(files), files)
    _parsed(path.read_text(encoding="utf-8"))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# --- series and charts ------------------------------------------------------------------------------------------


def test_series_are_bounded_and_lose_no_answer() -> None:
    one = a_good_sale().attempts[0]
    many = [
        msgspec.structs.replace(one, outcome=f"o{n % 9}", result="fail", done_us=n * 7_000, intended_us=0)
        for n in range(9_000)
    ]
    series = over_time(many, Window(begin_us=0, end_us=63_000_000))
    buckets = len(series.p99_us)
    assert buckets <= BUCKETS_MOST + 1 and len(series.per_second) == OUTCOMES_MOST + 1
    total = sum(sum(values) for values in series.per_second.values()) * series.width_us / 1_000_000
    assert round(total) == 9_000


def test_the_spectrum_ends_where_ten_values_are_left() -> None:
    from rundir import recorded

    line = spectrum(recorded(*range(1, 10_001)))
    assert line[0][0] == 1.0 and 900 < line[-1][0] <= 1_000
    assert [value for _, value in line] == sorted(value for _, value in line)


@pytest.mark.parametrize(("high", "last"), [(0, 1), (7, 8), (10, 10), (1999, 2000), (0.3, 0.3)])
def test_ticks_are_round_and_reach_the_highest_value(high: float, last: float) -> None:
    ticks = chart.nice_ticks(high)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(last) and len(ticks) <= 7


@pytest.mark.parametrize(
    ("us", "text"), [(0, "0 µs"), (999, "999 µs"), (1_500, "1.5 ms"), (99_990, "100 ms"), (2_500_000, "2.5 s")]
)
def test_durations_have_a_fitting_unit(us: float, text: str) -> None:
    assert chart.duration(us) == text


def test_a_long_table_is_cut_and_counted() -> None:
    assert "… and 940 more" in table("c", ["a"], [[n] for n in range(1_000)])


# --- the terminal -----------------------------------------------------------------------------------------------


def _printed(files: RunFiles, *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=colour, color_system="standard" if colour else None)
    terminal.show(judge(files), "out/prove/20260101T000000-7/report.html", console)
    return out.getvalue()


@pytest.mark.parametrize("files", [run_files(), _wrong_files(), run_files(generator={"shed": 4, "cpu_max": 1.0})])
def test_the_last_words_fit_one_screen_and_say_what_and_why(files: RunFiles) -> None:
    summary, lines = judge(files), _printed(files).splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert lines[0].strip().startswith(summary.verdict.upper()) and "exit code" in lines[0]
    assert any("report.html" in line for line in lines)
    assert all(any(reason[:40] in line for line in lines) for reason in summary.reasons[:3])


def test_the_last_words_are_plain_without_a_terminal_and_coloured_with_one() -> None:
    assert "\x1b" not in _printed(run_files()) and "\x1b[" in _printed(run_files(), colour=True)


def test_many_long_reasons_still_fit_one_screen() -> None:
    incidents = [Incident(at_us=n, what="[bold]it died[/bold]\n" * 50, planned=False) for n in range(40)]
    lines = _printed(run_files(run={"incidents": incidents})).splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert any("[bold]" in line for line in lines) and any("more reasons" in line for line in lines)
