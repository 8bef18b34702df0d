"""The report in a real browser, opened from disk: quiet, offline, drawn, readable on a phone and in the dark.

Without a Chromium these tests are skipped, and the skip says how to get one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rundir import run_files
from spoiled import spoil
from world import a_good_sale

from loadtests.judge import judge
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Incident
from loadtests.report import browser, html, picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=f"no report in a browser: {browser.missing()}")

ERRORS = 30_000
# How many different colours a canvas shows; a blank one shows one.
COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3]) seen.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
  return seen.size;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as one:
        yield one


def whole_run() -> RunFiles:
    return run_files(
        run={"incidents": [Incident(at_us=20_000, what="kill -9 of the projector")]},
        generator={"cpu_samples": [(n * 250_000, 0.4) for n in range(20)], "stalls": [(500_000, 80_000)]},
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = whole_run()
    return html.write(tmp_path_factory.mktemp("run"), judge(files), files)


class Opened:
    """A page opened from disk, with all it said and asked for."""

    def __init__(self, chromium: Browser, path: Path, **how: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = chromium.new_context(**how).new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri(), timeout=20_000)
        self.address = path.as_uri()

    def colours(self) -> list[int]:
        return [canvas.evaluate(COLOURS) for canvas in self.page.query_selector_all("canvas")]

    def is_as_wide_as_the_window(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_the_report_opens_from_disk_without_an_error_or_a_request_and_draws_every_chart(
    chromium: Browser, report: Path
) -> None:
    opened = Opened(chromium, report)
    assert opened.said == []
    assert opened.asked == [opened.address]
    assert opened.page.is_visible("h1.mood") and opened.page.inner_text("h1.mood") == "VOID"  # the stall
    colours = opened.colours()
    assert len(colours) == opened.page.locator("figure .plot").count() >= 10
    assert all(seen > 10 for seen in colours), colours


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_in_either_light(chromium: Browser, report: Path, scheme: str) -> None:
    opened = Opened(chromium, report, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for details in opened.page.query_selector_all("details"):
        details.evaluate("one => { one.open = true }")
    assert opened.is_as_wide_as_the_window()
    assert opened.said == []
    assert all(seen > 10 for seen in opened.colours())
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in paper[4:-1].split(",")) > 3 * 128
    assert light == (scheme == "light")


def until(opened: Opened, predicate: str, argument: object = None) -> None:
    """Wait up to 5 s. Playwright's own waiting evaluates a text in the page, which the page's policy forbids."""
    for _ in range(100):
        if opened.page.evaluate(predicate, argument):
            return
        opened.page.wait_for_timeout(50)
    raise AssertionError(predicate)


def test_the_charts_follow_the_light_and_the_width_while_the_page_is_open(chromium: Browser, report: Path) -> None:
    """A phone that is turned, an evening that begins."""
    opened = Opened(chromium, report, viewport={"width": 360, "height": 740}, color_scheme="light")
    drawn = "document.querySelector('canvas')?.toDataURL()"  # none for a moment, while it is drawn anew
    before = opened.page.evaluate(drawn)
    opened.page.emulate_media(color_scheme="dark")
    until(opened, f"before => ({drawn} ?? before) !== before", before)
    opened.page.set_viewport_size({"width": 800, "height": 360})
    until(opened, "() => document.querySelector('canvas')?.clientWidth > 600")
    assert opened.is_as_wide_as_the_window() and opened.said == []


def test_a_chart_is_read_by_arrow_keys(chromium: Browser, report: Path) -> None:
    """Without a mouse, and aloud."""
    opened = Opened(chromium, report)
    opened.page.focus("#chart-cpu")
    opened.page.keyboard.press("ArrowRight")
    first = opened.page.inner_text("figure:has(#chart-cpu) .said")
    assert "server" in first and "%" in first
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.inner_text("figure:has(#chart-cpu) .said") != first


def test_tens_of_thousands_of_different_errors_do_not_freeze_it(chromium: Browser, tmp_path: Path) -> None:
    """One text an error, each with its own request id, as real shops answer."""
    sale = a_good_sale()
    one = next(attempt for attempt in sale.attempts if attempt.op == "place")
    errors = [
        msgspec.structs.replace(
            one, result="fail", status=500, outcome=f"error {n} <b>of</b> {'x' * 200}", order_id="", arrival=n + 100
        )
        for n in range(ERRORS)
    ]
    files = run_files(spoil(sale, attempts=[*sale.attempts, *errors]))
    began = time.process_time()
    path = html.write(tmp_path, judge(files), files)
    assert time.process_time() - began < 30
    assert path.stat().st_size < 500_000
    opened = Opened(chromium, path)
    opened.page.set_default_timeout(5_000)
    opened.page.click("summary >> nth=0")
    assert opened.page.inner_text("h1.mood") == "WRONG"
    assert opened.said == [] and all(seen > 5 for seen in opened.colours())


def test_a_page_whose_script_was_changed_is_refused_by_its_own_policy(
    chromium: Browser, report: Path, tmp_path: Path
) -> None:
    """The policy names the two scripts by their hash; and so this file's first test is seen to be able to fail."""
    changed = tmp_path / "report.html"
    changed.write_text(report.read_text(encoding="utf-8").replace('"use strict";\n//', '"use strict";fetch("/x");\n//'))
    opened = Opened(chromium, changed)
    assert any("Content Security Policy" in said for said in opened.said)
    assert opened.asked == [opened.address] and opened.colours() == []


def test_the_readmes_picture_is_taken_of_the_page_and_is_small(report: Path, tmp_path: Path) -> None:
    """In a process of its own: this one's browser keeps its event loop busy."""
    argv = [sys.executable, "-m", "loadtests", "picture", str(report.parent)]
    argv += ["--out", str(tmp_path / "docs" / "report.png")]
    subprocess.run(argv, check=True, timeout=60)
    png = (tmp_path / "docs" / "report.png").read_bytes()
    assert png.startswith(b"\x89PNG") and 20_000 < len(png) <= picture.BYTES_MOST
