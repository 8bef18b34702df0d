"""The measurement of hostile clients: its arithmetic on made-up runs, and the whole of it on a small one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from core.errors import BadInput
from loadtests.trials import hostile, siege
from loadtests.trials.hostile import Measured, Phase, bars, latencies, percentile, read_options, table
from loadtests.trials.paced import Order
from loadtests.trials.siege import Fate

CALM, SIEGE = Phase("calm", 0.0, 10.0, 60.0), Phase("siege", 20.0, 30.0, 100.0)


def run(
    *,
    calm_ms: float = 10.0,
    siege_ms: float = 10.5,
    memory: float = 100.0,
    oldest_s: float = 9.0,
    held: int = hostile.NUMBERS["slow_head"],
) -> Measured:
    """Return a run in which all orders of a phase took equally long."""
    orders = [Order(at / 10, calm_ms, 201) for at in range(100)]
    orders += [Order(20 + at / 10, siege_ms, 201) for at in range(100)]
    orders.append(Order(15.0, 5_000.0, 201))  # while the siege is laid: in no phase
    siege_phase = SIEGE._replace(memory_mib=memory)
    fates = {"slow_head": Fate(opened=9, cut=9, oldest_s=oldest_s, held=held)}
    return Measured([CALM, siege_phase], orders, fates, {}, real_time=True)


def missed(measured: Measured) -> list[str]:
    """Return what does not hold."""
    return [bar.what for bar in bars(measured) if not bar.holds]


def test_each_bar_is_missed_by_what_it_is_for_and_by_nothing_else() -> None:
    """Stops: a bar that nothing can miss; an order between two phases that decides both."""
    assert missed(run()) == []
    assert missed(run(siege_ms=11.5)) == ["honest p99, up by"]
    assert missed(run(memory=125.0)) == ["workers' memory, up by"]
    assert missed(run(oldest_s=10.1)) == ["oldest slow_head"]
    assert missed(run(held=1_900)) == ["slow_head not there"], "a siege of fewer is another siege"
    lost = run()
    lost.orders[3] = Order(0.3, 10.0, 0)
    assert missed(lost) == ["honest orders not accepted"]


def test_a_run_without_orders_passes_nothing() -> None:
    """Stops: a pass because nothing was measured."""
    assert "honest p99, up by" in missed(run()._replace(orders=[]))


def test_percentiles_are_values_that_were_seen() -> None:
    """Stops: a p99 off by one, which with few orders is the slowest or never is."""
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.991, 1.0)] == [50.0, 99.0, 100.0, 100.0]
    assert percentile([7.0], 0.01) == 7.0
    assert latencies(run(), [CALM]) == [10.0] * 100


def test_the_table_names_every_bar_and_whether_it_holds() -> None:
    """Stops: a red exit code under a green table."""
    said = table(run(siege_ms=20.0), bars(run(siege_ms=20.0)))
    assert said.count("MISSED") == 1
    assert said.count("holds") == len(bars(run())) - 1
    assert "10.0 ms calm and 20.0 besieged, +100 %" in said
    assert "waited for a processor" not in said
    assert "waited for a processor" in table(run()._replace(real_time=False), bars(run()))


@pytest.mark.parametrize(
    "argv", [["--pairs", "0"], ["--calm", "nan"], ["--siege", "1"], ["--rate", "0"], ["--pairs", "10"]], ids=" ".join
)
def test_options_out_of_bounds_are_refused(argv: list[str]) -> None:
    """Stops: a run that measures nothing, or has no end."""
    with pytest.raises(BadInput):
        read_options(argv)


def test_too_few_open_files_are_said_before_anything_is_opened() -> None:
    """Stops: a siege of fewer sockets than it says, and an EMFILE in the middle of a run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system sets no limit")
    with pytest.raises(BadInput, match="ulimit -Hn"):
        siege.raise_files(hard + 1)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux schedules so")
def test_the_besiegers_take_only_what_nobody_else_wants_of_the_processors() -> None:
    """Stops: a siege that is noticed because its own processes stand before the shop's."""
    argv = [sys.executable, "-m", "loadtests.trials.siege", "127.0.0.1", "1", "{}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert os.getsid(process.pid) == process.pid
        process.communicate(timeout=10)


@pytest.mark.proof
def test_a_small_siege_is_measured_from_start_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stops: a command that rots; it is run whole only when somebody measures."""
    monkeypatch.setattr(hostile, "NUMBERS", {"slow_head": 40, "slow_body": 20, "slow_read": 20})
    monkeypatch.setattr(hostile, "MISSING_MOST", 0.1)  # one of twenty
    monkeypatch.setattr(hostile, "P99_UP_MOST", 1_000.0)  # on a busy machine a difference is chance
    code = hostile.main(["--pairs", "1", "--calm", "1", "--siege", str(hostile.SIEGE_LEAST_S), "--rate", "50"])
    said = capsys.readouterr().out
    assert code == 0, said
    for word in ("slow_head", "slow_body", "slow_read", "408: ", "answer_not_taken"):
        assert word in said
