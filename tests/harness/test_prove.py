"""`flashproof prove` end to end: an honest shop passes, a broken one is caught, kills lose nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from core.__main__ import main
from loadtests.checkers import non_vacuity
from loadtests.faults import FAULTS
from loadtests.record import timeline
from loadtests.record.run_files import read_run
from loadtests.record.timeline import read_timeline
from loadtests.report import browser
from tests.harness.proving import Proved, prove

FIRST_FAULTS = ("no_stock_check", "claim_without_guard")  # in every test run; the others with `make proofs`
LATER_FAULTS = tuple(fault for fault in FAULTS if fault not in FIRST_FAULTS)
AT_ONCE = 3
KILLS = "serve@1.2,work@2.4,valkey@3.6,postgres@4.8"
# What the sales are played with that do not mind one beside them; the long ones first.
SALES = {
    "killed": ("--kill", KILLS, "--seconds", "10", "--stock", "600"),
    **{fault: ("--fault", fault, "--seconds", "3", "--stock", "250") for fault in FAULTS},
    "restocked": ("--scenario", "restock_race", "--rate", "200", "--seconds", "4", "--stock", "64", "--drain", "1"),
}


@pytest.fixture(scope="module")
def under_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Proved]]]:
    """The sales of all tests that are going to run, three at a time: most of their time is waiting."""
    asked = {item.callspec.params.get("sale") for item in request.session.items if hasattr(item, "callspec")}
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {
            name: pool.submit(prove, tmp_path_factory.mktemp(name) / "run", *options)
            for name, options in SALES.items()
            if name in asked
        }
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def sale(request: pytest.FixtureRequest, under_way: dict[str, Future[Proved]]) -> Proved:
    """How the sale ended that the test names: ``parametrize("sale", [name], indirect=True)``."""
    return under_way[request.param].result()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return prove(tmp_path_factory.mktemp("honest") / "run")


def test_an_honest_shop_passes_and_every_checker_had_something_to_look_at(honest: Proved) -> None:
    """A harness that cannot pass is switched off; one that passes on nothing is worse."""
    assert honest.passes(), honest.printed
    assert honest.summary["verdict"] == ("void" if honest.code else "pass")
    assert all(one["holds"] and one["checked"] > 0 for one in honest.summary["invariants"])
    assert honest.summary["keys"]["duplicated"] == 0


def test_the_verdict_fits_one_screen(honest: Proved) -> None:
    """What scrolls away is not read."""
    screen = [line for line in honest.printed.splitlines() if not line.startswith("[")]
    assert len(screen) <= 24
    assert honest.summary["verdict"].upper() in honest.printed


def test_a_run_can_be_judged_again_from_its_files(honest: Proved) -> None:
    """A number that nobody can recompute is an opinion."""
    again = [sys.executable, "-m", "core", "verify", str(honest.report)]
    done = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_card_key_is_left_in_anything_the_run_wrote(honest: Proved) -> None:
    """History, reports and logs are mailed around."""
    for path in honest.report.rglob("*"):
        if path.is_file():
            assert b"hot-0000" not in path.read_bytes(), path.name


def test_the_report_is_there_and_latest_points_at_the_run(honest: Proved) -> None:
    """The first thing people open."""
    assert (honest.report / "report.html").stat().st_size > 5_000
    assert (honest.report.parent / "latest").resolve() == honest.report.resolve()


@pytest.mark.skipif(browser.missing() is not None, reason=f"no report in a browser: {browser.missing()}")
def test_the_report_of_a_real_run_opens_without_an_error_or_a_request(honest: Proved) -> None:
    """What is tested with made-up runs may still break on a real one."""
    said: list[str] = []
    address = (honest.report / "report.html").resolve().as_uri()
    with browser.chromium() as chromium:
        page = chromium.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(address, timeout=20_000)
        assert page.inner_text("h1.mood") == honest.summary["verdict"].upper()
        assert page.locator("figure .plot canvas").count() == page.locator("figure .plot").count() >= 10
    assert said == [address]


def test_the_timeline_has_every_role_and_every_gauge(honest: Proved) -> None:
    """What a chart or a search for the limiter rests on."""
    samples = read_timeline(honest.report / timeline.NAME)
    assert {role for sample in samples for role in sample.cpu} == set(timeline.ROLES)
    assert {name for sample in samples for name in sample.gauges} == set(timeline.GAUGES)
    assert all(cost is not None for cost in honest.summary["cost"].values())
    assert samples[0].at_us < honest.summary["window"]["begin_us"] < samples[-1].at_us


def assert_found(fault: str, proved: Proved) -> None:
    assert proved.code == 2, proved.printed
    assert FAULTS[fault] in proved.broken(), proved.printed
    assert FAULTS[fault] in proved.printed


@pytest.mark.parametrize(("sale", "fault"), [(one, one) for one in FIRST_FAULTS], indirect=["sale"])
def test_a_planted_fault_is_found_by_its_checker(fault: str, sale: Proved) -> None:
    """A checker that was never seen to fail proves nothing."""
    assert_found(fault, sale)


@pytest.mark.proof
@pytest.mark.parametrize(("sale", "fault"), [(one, one) for one in LATER_FAULTS], indirect=["sale"])
def test_every_other_planted_fault_is_found_by_its_checker(fault: str, sale: Proved) -> None:
    """Stops: a fault that is planted in vain; its checker alone is tested with histories known to be wrong."""
    assert_found(fault, sale)


@pytest.mark.parametrize("sale", ["killed"], indirect=True)
def test_kill_9_of_every_part_in_the_middle_of_a_sale_breaks_no_invariant(sale: Proved) -> None:
    """Nexi77 lost 33 to 67 units in 4 of 4 kills."""
    assert sale.broken() == set(), sale.printed
    assert sale.passes(), sale.printed
    killed = [one["what"] for one in sale.summary["incidents"]]
    assert len(killed) == 4
    assert all(one.get("planned", True) for one in sale.summary["incidents"])


@pytest.mark.parametrize("sale", ["restocked"], indirect=True)
def test_keys_that_come_in_while_the_flood_runs_are_sold_and_nothing_is_oversold(sale: Proved) -> None:
    """The race of an import with a sold-out shop: units raised twice, or sold before they are there."""
    assert sale.broken() == set(), sale.printed
    assert sale.summary["non_vacuity"]["holds"], sale.printed
    assert sale.summary["keys"]["loaded"] == 64 + 64 + 32 + 64 + 5 * 100
    assert not sale.summary["incidents"]
    assert non_vacuity.reached(read_run(sale.report).evidence)["restock"] > 50


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "0"], "--rate"),
        (["--seconds", "nan"], "--seconds"),
        (["--stock", "-5"], "--stock"),
        (["--kill", "nginx@3"], "serve@3"),
        (["--kill", "serve@99"], "would come after"),
        (["--fault", "gremlin"], "no_stock_check"),
        (["--rate", "many"], "invalid float"),
    ],
)
def test_bad_usage_is_one_clear_line_and_code_64(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo must not start a database."""
    assert main(["prove", "--report", str(tmp_path / "run"), *options]) == 64
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_report_directory_that_cannot_be_written_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Thirty seconds of load for nothing."""
    (tmp_path / "file").write_text("")
    argv = [sys.executable, "-m", "core", "prove", "--report", str(tmp_path / "file" / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64
    assert "--report" in done.stderr
