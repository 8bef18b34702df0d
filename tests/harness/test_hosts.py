"""`prove` over several hosts: real masters and workers on network stacks of their own, one verdict."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest

from loadtests.generator import likeness, luggage
from loadtests.generator.load import reason
from loadtests.machine import Machine
from loadtests.record import fitness
from loadtests.record.axis import EXACT, Reading, WorkerClock, believed, read_once, settled, surest
from loadtests.record.history import read
from loadtests.record.latency import open_histogram
from loadtests.record.summary import Generator, Histograms, Latency, WakeLag
from loadtests.shop.deployment import free_ports
from loadtests.verify import main as verify
from tests.harness.namespaces import CLOCKS_AHEAD_S, MASTER, Network, network
from tests.harness.proving import SMALL, Proved
from tests.harness.test_targets import FOREIGN, corner_shop

SECRETS = {f"FLASHPROOF_{name}": base64.b64encode(name.encode() * 8).decode() for name in ("SECRET", "SANDBOX_SECRET")}
PROVE = (sys.executable, "-m", "core", "prove")
RUN_MOST_S = 120.0
ARRIVALS = 1_000
MACHINE = Machine(cpu="a", cores=2, kernel="Linux", python="3.11")


class Running(NamedTuple):
    """A run over hosts that has been started."""

    master: subprocess.Popen[str]
    workers: list[subprocess.Popen[str]]

    def end(self) -> None:
        """Leave nothing running."""
        for process in (self.master, *self.workers):
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process that still runs, and all below it."""
    if process.poll() is None:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                one.kill()
    process.communicate(timeout=20)


def begin(hosts: Network, report: Path, *options: str) -> Running:
    """Start a master and two workers, each on its host."""

    def start(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    master = [*PROVE, *SMALL, "--master", "--expect-workers", "2", *options, "--report", str(report)]
    worker = [*PROVE, "--worker", "--master-host", MASTER]
    return Running(
        start(hosts.on_master(*master), SECRETS | {"FLASHPROOF_HOST": MASTER}),
        [start(hosts.on_worker(number, *worker), SECRETS) for number in range(2)],
    )


def started(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROVE, *words],
        env=os.environ | SECRETS | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def foreign(url: str) -> tuple[str, ...]:
    return ("--target", url, *FOREIGN, "--p99-ms", "5000", "--ceiling", "0")


def void(said: str) -> str:
    (line,) = (line for line in said.splitlines() if line.startswith("VOID: "))
    return line


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.fixture(scope="module")
def proved(hosts: Network, tmp_path_factory: pytest.TempPathFactory) -> tuple[Proved, list[str]]:
    """A sale played from two hosts on a trace that only the master can read; what the workers said."""
    report = tmp_path_factory.mktemp("hosts") / "run"
    trace = report.parent / "trace.txt"
    trace.write_text("".join(f"{number / 250:.6f}\n" for number in range(ARRIVALS)))
    running = begin(hosts, report, "--arrivals", f"trace:{trace}")
    try:
        printed = "".join(running.master.communicate(timeout=RUN_MOST_S))
        told = [worker.communicate(timeout=20)[1] for worker in running.workers]
        assert [worker.returncode for worker in running.workers] == [0, 0], told
    finally:
        running.end()
    summary = json.loads((report / "summary.json").read_text()) if (report / "summary.json").exists() else {}
    return Proved(running.master.returncode, printed, report, summary), told


# --- over hosts ---------------------------------------------------------------------------------------------------


def test_two_hosts_play_one_sale_and_one_verdict_is_given(proved: tuple[Proved, list[str]]) -> None:
    run, told = proved
    assert run.passes(), run.printed
    assert run.summary["generator"]["processes"] == 2
    assert run.summary["identity"]["scheduled"] == ARRIVALS
    assert {attempt.arrival for attempt in read(run.report / "history.jsonl")} == set(range(ARRIVALS))
    assert all("its part is home" in one for one in told)
    assert verify([str(run.report)]) == 0


def test_the_histograms_of_two_hosts_are_those_of_the_merged_history(proved: tuple[Proved, list[str]]) -> None:
    report = proved[0].report
    merged = msgspec.json.decode((report / "histograms.json").read_bytes(), type=Histograms)
    places = [attempt for attempt in read(report / "history.jsonl") if attempt.op == "place"]
    for outcome in ("accepted", "sold_out"):
        asked = [attempt.done_us - attempt.intended_us for attempt in places if attempt.outcome == outcome]
        assert merged.latency[outcome].count == len(asked) > 0
        assert (merged.latency[outcome].max, open_histogram(merged.latency[outcome]).total_count) == (
            max(asked),
            len(asked),
        )


def test_the_clocks_of_hosts_are_read_as_well_as_the_record_says(proved: tuple[Proved, list[str]]) -> None:
    """The truth is known here: the kernel gave each worker a clock that is ahead by so many seconds, to the ns."""
    clocks = json.loads((proved[0].report / "generator.json").read_text())["clocks"]
    ahead_us = sorted(clock["offset_us"] for clock in clocks)
    for read_us, true_s in zip(ahead_us, sorted(CLOCKS_AHEAD_S), strict=True):
        clock = next(one for one in clocks if one["offset_us"] == read_us)
        assert not clock["same"]
        assert abs(read_us - true_s * 1_000_000) <= clock["within_us"]
        assert 0 < clock["within_us"] < 50_000
    worst = proved[0].summary["generator"]["clocks_within_us"]
    assert worst == max(clock["within_us"] for clock in clocks)
    assert "Who played, and how instants came onto one axis" in (proved[0].report / "report.html").read_text()


def test_arrivals_of_two_hosts_are_due_and_sent_on_one_axis(proved: tuple[Proved, list[str]]) -> None:
    """An hour between the clocks, and neighbours in the plan are still sent as neighbours."""
    firsts = {a.arrival: a for a in read(proved[0].report / "history.jsonl") if a.why in ("first", "over_limit")}
    for number, attempt in firsts.items():
        assert attempt.intended_us == number * 4_000
        assert 0 <= attempt.sent_us - attempt.intended_us < 5_000_000


@pytest.mark.proof  # in every test run: a worker process that dies (test_fleet)
def test_a_host_that_dies_makes_the_run_void_in_one_line_and_the_others_hear_of_it(
    hosts: Network, tmp_path: Path
) -> None:
    running = begin(hosts, tmp_path / "run", "--seconds", "60", "--stock", "5000")
    try:
        stderr = running.workers[0].stderr
        assert stderr is not None
        while "playing its part" not in (line := stderr.readline()):
            assert line, "the worker never played"
        for child in psutil.Process(running.workers[1].pid).children(recursive=True):
            child.send_signal(signal.SIGKILL)
        said = running.master.communicate(timeout=60)[1]
        other = running.workers[0].communicate(timeout=20)[1]
    finally:
        running.end()
    assert (running.master.returncode, running.workers[0].returncode) == (3, 3)
    why = ") died, and its part of the history with it"
    assert sum(why in line and line.startswith("VOID: worker") for line in said.splitlines()) == 1, said
    assert why in other
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_foreign_shop_is_loaded_by_another_process_with_the_masters_own_adapter(tmp_path: Path) -> None:
    port = str(free_ports(1)[0])
    with corner_shop("--stock", "80") as url:
        report = tmp_path / "run"
        listen = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
        words = (*foreign(url), *listen, "--master", "--expect-workers", "2", "--report", str(report))
        running = Running(
            started(*words),
            [started("--worker", "--master-host", "127.0.0.1", "--master-port", port, "--processes", "2")],
        )
        try:
            said = "".join(running.master.communicate(timeout=60))
            told = running.workers[0].communicate(timeout=20)[1]
        finally:
            running.end()
    summary = json.loads((report / "summary.json").read_text())
    assert not [one for one in summary["invariants"] if one["holds"] is False], said
    assert summary["non_vacuity"]["holds"], said
    assert summary["identity"]["scheduled"] == len({a.arrival for a in read(report / "history.jsonl")}) == 300
    assert (running.workers[0].returncode, summary["generator"]["processes"]) == (0, 2), told
    assert summary["generator"]["clocks_within_us"] == 0, "one kernel, one clock: nothing to be unsure of"


# --- what must agree ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there_us", [0, 40, 3_000])
@pytest.mark.parametrize("back_us", [0, 55, 9_000])
@pytest.mark.parametrize("ahead_us", [-7_000_000_000, 0, 123_457])
def test_a_clock_read_from_afar_is_never_farther_off_than_half_the_round_trip(
    there_us: int, back_us: int, ahead_us: int
) -> None:
    reading = read_once(1_000, 1_000 + there_us + ahead_us, 1_000 + there_us + back_us)
    assert abs(reading.offset_us - ahead_us) <= reading.within_us <= (there_us + back_us + 1) // 2


def test_the_least_round_trip_counts_and_drift_counts_as_uncertainty() -> None:
    before = surest([Reading(900, 400), Reading(1_000, 90), Reading(700, 1_000)])
    assert before == Reading(1_000, 90)
    clock = settled(2, MACHINE, before, Reading(1_400, 50))
    assert (clock.offset_us, clock.drift_us, clock.within_us) == (1_000, 400, 450)
    assert settled(2, MACHINE, before, Reading(1_000, 50)).within_us == 90


def test_a_clock_that_seems_to_be_the_masters_is_only_believed_if_it_shows_the_same() -> None:
    """Two machines begun from one snapshot have kernels of the same name and clocks an hour apart."""
    assert believed(Reading(80, 90), alike=True) == EXACT
    assert believed(Reading(80, 90), alike=False) == Reading(80, 90)
    assert believed(Reading(-3_600_000_000, 90), alike=True) == Reading(-3_600_000_000, 90)
    assert settled(1, MACHINE, EXACT, EXACT).same
    assert not settled(1, MACHINE, EXACT, Reading(5_000, 90)).same


def test_hosts_whose_clocks_are_not_known_well_enough_void_the_run() -> None:
    generator = Generator(
        scheduled=1, sent=1, unsent=0, shed=0, cpu_max=0.1, wake_lag_us=WakeLag(),
        clocks=[WorkerClock(worker=2, machine=MACHINE, same=False, within_us=1_300, drift_us=-700)],
    )  # fmt: skip
    assert list(fitness.apart(generator, fitness.wake_lag_most_us(Latency(p99=40_000)))) == []
    (why,) = fitness.apart(generator, fitness.wake_lag_most_us(Latency(p99=20_000)))
    assert "worker 2 is known to 1.3 ms only, and it drifted by -0.7 ms; 1.0 ms is the most" in why


def test_a_worker_of_other_code_versions_or_secrets_is_told_what_to_do() -> None:
    ours = likeness.likeness("w", b"secret")
    assert likeness.unlike(ours, likeness.likeness("w", b"secret")) == ""
    replace = msgspec.structs.replace
    other = {**ours.versions, "locust": "2.0"}
    assert "has locust 2.0, the master" in likeness.unlike(ours, replace(ours, versions=other))
    assert "commit abc" in likeness.unlike(ours, replace(ours, source="0", commit="abc"))
    said = likeness.unlike(ours, likeness.likeness("w", b"other"))
    assert "the same FLASHPROOF_SECRET" in said
    assert "other" not in said.replace("has other secrets", "")


def test_a_trace_and_an_adapter_come_along_with_the_options(tmp_path: Path) -> None:
    trace, adapter = tmp_path / "trace.txt", tmp_path / "mine.py"
    trace.write_text("0.1\n")
    adapter.write_text("x = 1\n")
    said = Namespace(fp_arrivals=f"trace:{trace}", fp_adapter=str(adapter))
    luggage.pack(said)
    sent = Namespace(**json.loads(json.dumps(vars(said), default=bytes.decode)))
    for file in sent.fp_files.values():
        file["bytes"] = file["bytes"].encode()
    trace.unlink()
    adapter.unlink()
    with luggage.unpacked(sent):
        assert Path(sent.fp_arrivals.removeprefix("trace:")).read_text() == "0.1\n"
        assert Path(sent.fp_adapter).read_text() == "x = 1\n"
    assert (sent.fp_arrivals, sent.fp_adapter) == (f"trace:{trace}", str(adapter))
    plain = Namespace(fp_arrivals="constant", fp_adapter="core")
    luggage.pack(plain)
    assert plain.fp_files == {}


def test_the_reason_is_found_above_locusts_own_tables_and_a_traceback_is_not_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "locust.log"
    log.write_text("flash_sale: worker 1 of 2 died\n" + "Type     Name\n" * 1_000)
    assert reason(log, "flash_sale") == "worker 1 of 2 died"
    log.write_text("flash_sale: 3 faults, the first:\nTraceback …\n")
    assert reason(log, "flash_sale") == ""


# --- who does not come, or should not -----------------------------------------------------------------------------


def test_nothing_waits_for_ever_and_a_host_with_other_secrets_is_turned_away(tmp_path: Path) -> None:
    ports = [str(port) for port in free_ports(3)]
    with corner_shop("--stock", "80") as url:
        lead = (*foreign(url), "--master", "--master-bind-host", "127.0.0.1", "--report")
        follow = ("--worker", "--master-host", "127.0.0.1", "--master-port")
        running = {
            "alone": started(
                *lead, str(tmp_path / "alone"), "--master-bind-port", ports[0], "--expect-workers", "2", "--wait", "2"
            ),
            "lost": started(*follow, ports[1], "--wait", "4"),
            "led": started(
                *lead, str(tmp_path / "led"), "--master-bind-port", ports[2], "--expect-workers", "1", "--wait", "30"
            ),
            "stranger": started(
                *follow, ports[2], "--wait", "20", FLASHPROOF_SECRET=base64.b64encode(b"x" * 32).decode()
            ),
        }
        try:
            said = {name: process.communicate(timeout=60)[1] for name, process in running.items()}
        finally:
            for process in running.values():
                end(process)
    assert {process.returncode for process in running.values()} == {3}, said
    assert "0 of 2 workers came within 2 s: run `flashproof prove --worker" in void(said["alone"])
    assert f"no master answered at 127.0.0.1:{ports[1]} within 4 s: run `flashproof prove --master`" in void(
        said["lost"]
    )
    for name in ("led", "stranger"):
        assert ") has other secrets than the shop: give every host the same" in void(said[name])
