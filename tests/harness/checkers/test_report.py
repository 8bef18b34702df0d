"""The report: offline, whole, honest, safe against hostile text, and bounded."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from rundir import run_files, samples
from spoiled import spoil
from world import a_good_sale

from loadtests.judge import RULES, judge
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Incident, Window
from loadtests.record.timeline import Sample
from loadtests.report import html, terminal
from loadtests.report.charts import charts_of
from loadtests.report.page import duration, table
from loadtests.report.series import BUCKETS_MOST, OUTCOMES_MOST, SAMPLES_MOST, over_time, spectrum, thinned

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
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        vendored = (Path(html.__file__).parent / "vendor" / name).read_text(encoding="utf-8")
        assert vendored in page
        page = page.replace(vendored, "")
    own = page.replace("<!doctype html>", "").replace("// ", "")
    assert not re.search(r"https?://|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest|import\(", own)
    tags = _parsed(page).tags
    assert not {"link", "iframe", "object", "img"} & {tag for tag, _ in tags}
    assert not [attrs for _, attrs in tags if {"src", "href", "srcset", "xlink:href"} & attrs.keys()]
    assert "default-src 'none'" in page


def test_the_page_carries_the_licence_of_what_it_carries() -> None:
    """MIT: the notice shall be included in all copies."""
    assert "Copyright (c) 2022 Leon Sorokin" in _page(run_files())


def test_every_table_has_a_caption_and_every_chart_a_name_a_text_and_its_numbers() -> None:
    files = run_files(generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(20)]})
    page = _page(files)
    tags = _parsed(page).tags
    assert page.count("<table>") == page.count("<caption>") > 15
    told = {attrs["id"]: attrs for _, attrs in tags if (attrs.get("id") or "").startswith("chart-")}
    charts = charts_of(judge(files), files)
    assert list(told) == [f"chart-{chart.id}" for chart in charts]
    assert {"answers", "latency", "spectrum", "cpu", "memory", "waits", "busy", "batches", "generator"} <= {
        chart.id for chart in charts
    }
    assert all(attrs["role"] == "img" and attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in told.values())
    assert page.count("as numbers</summary><div") == len(charts)
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
    assert "&lt;script" in page and "<script src" not in page and "<img" not in page
    assert sum(tag == "script" for tag, _ in _parsed(page).tags) == 3


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
    files = run_files(run={"incidents": [Incident(at_us=20_000, what="kill -9 of the projector")]})
    assert "kill -9 of the projector" in _page(files)
    begin_s = judge(files).window.begin_us / 1e6
    over_the_sale = [chart for chart in charts_of(judge(files), files) if chart.id in ("answers", "latency", "cpu")]
    assert [chart.marks for chart in over_the_sale] == [[(pytest.approx(0.02 - begin_s), "1")]] * 3


def test_the_generators_stalls_are_shaded() -> None:
    files = run_files(generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(20)], "stalls": [(500_000, 80_000)]})
    page, chart = _page(files), next(c for c in charts_of(judge(files), files) if c.id == "generator")
    assert chart.bands[0][1] - chart.bands[0][0] == pytest.approx(0.08)
    assert "1 × up to 80 ms" in page


def test_an_empty_run_still_has_a_page(tmp_path: Path) -> None:
    files = run_files(spoil(a_good_sale(), attempts=[], charges=[], orders=[], events=[], payments=[], deliveries=[]))
    files = msgspec.structs.replace(files, histograms={}, service={}, timeline=[])
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
    series = over_time(many, many[:1], Window(begin_us=0, end_us=63_000_000))
    buckets = len(series.p99_us)
    assert buckets <= BUCKETS_MOST + 1 and len(series.per_second) == OUTCOMES_MOST + 1
    total = sum(sum(values) for values in series.per_second.values()) * series.width_us / 1_000_000
    assert round(total) == 9_000


def test_the_spectrum_ends_where_ten_values_are_left() -> None:
    from rundir import recorded

    line = spectrum(recorded(*range(1, 10_001)))
    assert line[0][0] == 1.0 and 900 < line[-1][0] <= 1_000
    assert [value for _, value in line] == sorted(value for _, value in line)


def test_a_long_timeline_is_thinned_and_keeps_its_peaks_and_its_gaps() -> None:
    """An hour of samples on a phone; the one second in which the loop stood still is what they look for."""
    hour = [
        Sample(at_us=n * 500_000, cpu={"server": 0.5}, gauges={"loop_lag_us": 2e6 if n == 5_001 else 100.0})
        for n in range(7_200)
        if not 2_000 <= n < 2_400
    ]
    hour += [Sample(at_us=n * 500_000) for n in range(2_000, 2_400)]
    hour.sort(key=lambda sample: sample.at_us)
    thin = thinned(hour, Window(begin_us=0, end_us=3_600_000_000), 0, 0)
    lag = thin.line(lambda sample: sample.gauges.get("loop_lag_us"))
    assert len(thin.at_us) == len(lag) <= SAMPLES_MOST
    assert max(value or 0.0 for value in lag) == 2e6
    assert lag.count(None) >= 10


def test_every_chart_is_small_whatever_the_run() -> None:
    files = run_files(generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(14_400)]})
    files = msgspec.structs.replace(files, timeline=[msgspec.structs.replace(s) for s in samples()] * 500)
    for chart in charts_of(judge(files), files):
        assert len(chart.at) <= 241 and len(chart.lines) <= 8, chart.id
        assert all(len(line.values) == len(chart.at) for line in chart.lines), chart.id


@pytest.mark.parametrize(
    ("us", "text"), [(0, "0 µs"), (999, "999 µs"), (1_500, "1.5 ms"), (99_990, "100 ms"), (2_500_000, "2.5 s")]
)
def test_durations_have_a_fitting_unit(us: float, text: str) -> None:
    assert duration(us) == text


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


def test_who_asked_for_more_than_the_machine_makes_is_told_a_rate_to_try() -> None:
    """Stops: a void run that leaves its reader with no next step."""
    said = _printed(run_files(generator={"cpu_max": 1.0}))
    assert "try --rate " in said and "NOT FIT" in said
    assert "try --rate" not in _printed(run_files()) and "try --rate" not in _printed(_wrong_files())


def test_many_long_reasons_still_fit_one_screen() -> None:
    incidents = [Incident(at_us=n, what="[bold]it died[/bold]\n" * 50, planned=False) for n in range(40)]
    lines = _printed(run_files(run={"incidents": incidents})).splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert any("[bold]" in line for line in lines) and any("more reasons" in line for line in lines)
