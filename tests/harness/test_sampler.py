"""The sampler sees what every part uses, says nothing of what it cannot see, and costs next to nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from core.local.server import wait_until
from loadtests.record.timeline import GAUGES, ROLES, Sample, read_timeline, write_timeline
from loadtests.shop.deployment import Deployment
from loadtests.shop.sampler import Sampler, Sources, gauges_between, sources_of

BUSY = "import time\nend = time.process_time() + 20\nwhile time.process_time() < end: pass"
EVERY_S = 0.25
CALL, SIZE = "server flashproof_store_call_seconds", "server flashproof_batch_size"


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sampler, int]]:
    """A real shop at rest, looked at for some seconds; its server is killed in the middle. And where."""
    with Deployment(tmp_path_factory.mktemp("shop")) as shop:
        shop.wait_ready()
        with Sampler(sources_of(shop), every_s=EVERY_S) as sampler:
            sampler.watch("generator", shop.pid("work") or 0)
            assert wait_until(lambda: len(sampler.samples) >= 10, 20)
            first = shop.pid("serve")
            shop.kill("serve")
            seen = len(sampler.samples)
            assert wait_until(lambda: shop.pid("serve") not in (None, first), 20)
            shop.wait_ready()
            assert wait_until(lambda: len(sampler.samples) >= seen + 8, 20)
        yield sampler, seen


def test_every_role_and_the_gauges_of_a_shop_at_rest_are_there(sampled: tuple[Sampler, int]) -> None:
    """A chart that stays empty because a metric was renamed."""
    samples = sampled[0].samples[2:10]
    assert {role for sample in samples for role in sample.cpu} == set(ROLES)
    assert all(size > 1_000_000 for sample in samples for size in sample.rss_bytes.values())
    seen = {name for sample in samples for name in sample.gauges}
    assert seen >= {"loop_lag_us", "store_busy", "fsync_share", "valkey_busy", "projector_lag_ms", "facts_waiting"}
    assert seen <= set(GAUGES)


def test_a_killed_part_is_absent_and_comes_back(sampled: tuple[Sampler, int]) -> None:
    """A zero would say: it was there and idle."""
    sampler, killed = sampled
    after = sampler.samples[killed:]
    assert any("server" not in sample.cpu for sample in after)
    assert "server" in after[-1].cpu
    assert all("valkey" in sample.cpu for sample in after)


def test_a_look_costs_no_more_than_a_few_looks_at_the_process_table(sampled: tuple[Sampler, int]) -> None:
    """Stops: an observer that slows what it observes. Against a reference of the same moment, for machines differ."""

    def table_s() -> float:
        began_s = time.thread_time()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                process.cpu_times()
                process.memory_info()
        return time.thread_time() - began_s

    assert sampled[0].cost * EVERY_S < 4 * sorted(table_s() for _ in range(9))[4]  # seen: 0.9 to 1.7


def test_a_busy_process_is_counted_with_its_children_and_else_among_the_others() -> None:
    """The launcher of a server uses nothing; its children do. And a neighbour's load must not go unseen."""
    launcher = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"
    with subprocess.Popen([sys.executable, "-c", launcher], start_new_session=True) as process:
        try:
            with Sampler(Sources(pids=dict), every_s=0.1) as unaware:
                assert wait_until(lambda: any(s.gauges.get("others_cores", 0) > 0.1 for s in unaware.samples), 15)
            with Sampler(Sources(pids=lambda: {"generator": process.pid}), every_s=0.1) as sampler:
                assert wait_until(lambda: any(s.cpu.get("generator", 0) > 0.1 for s in sampler.samples), 15)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    used = sum(sample.cpu.get("generator", 0.0) * 0.1 for sample in sampler.samples)
    assert used < 2 * (sampler.samples[-1].at_us - sampler.samples[0].at_us) / 1e6 + 0.5


def test_no_two_looks_are_so_close_that_a_tick_is_ten_cores() -> None:
    """Stops: a last look a millisecond behind another, and fifteen cores on a machine of two."""
    for _ in range(5):
        with Sampler(Sources(pids=dict), every_s=0.1) as sampler:
            assert wait_until(lambda: len(sampler.samples) >= 2, 15)
        apart_us = [after.at_us - before.at_us for before, after in pairwise(sampler.samples)]
        assert min(apart_us) >= 45_000


def test_gauges_are_means_and_shares_between_two_looks() -> None:
    """Lifetime averages hide the moment that mattered."""
    before = {
        f"{CALL}_sum/place": 10.0, f"{CALL}_count/place": 1_000.0, f"{CALL}_sum/track": 1.0,
        f"{SIZE}_sum/place": 5_000.0, f"{SIZE}_count/place": 1_000.0,
        "eventloop_duration_aof_sum": 0.0, "eventloop_cycles": 0.0, "eventloop_duration_sum": 0.0,
    }  # fmt: skip
    now = {
        f"{CALL}_sum/place": 11.0, f"{CALL}_count/place": 1_500.0, f"{CALL}_sum/track": 1.2,
        f"{SIZE}_sum/place": 25_000.0, f"{SIZE}_count/place": 1_500.0,
        "eventloop_duration_aof_sum": 400_000.0, "eventloop_cycles": 600.0, "eventloop_duration_sum": 1_500_000.0,
        "facts_waiting": 7.0,
    }  # fmt: skip
    found = gauges_between(before, now, 2.0, workers=1)
    assert found == {
        "batch_orders": 40.0, "batch_ms": 2.0, "store_busy": 0.5, "fsync_us": 800.0, "fsync_share": 0.2,
        "valkey_busy": 0.75, "facts_waiting": 7.0,
    }  # fmt: skip
    assert gauges_between(before, now, 2.0, workers=2)["store_busy"] == 0.25


def test_a_count_that_began_anew_gives_no_gauge() -> None:
    """A killed server's counters fall to zero; a negative batch is nonsense."""
    before = {f"{CALL}_sum/place": 10.0, f"{CALL}_count/place": 1_000.0}
    assert gauges_between(before, {f"{CALL}_sum/place": 0.1, f"{CALL}_count/place": 5.0}, 1.0, 1) == {}


def test_the_timeline_is_read_as_it_was_written_on_the_clock_of_the_history(tmp_path: Path) -> None:
    """Charts of two files must share one axis."""
    samples = [Sample(at_us=1_000_000 + n, cpu={"server": 0.5}, gauges={"batch_ms": 1.5}) for n in range(3)]
    write_timeline(tmp_path / "timeline.jsonl", samples, shift_us=-1_000_000)
    assert [sample.at_us for sample in read_timeline(tmp_path / "timeline.jsonl")] == [0, 1, 2]
    assert read_timeline(tmp_path / "none.jsonl") == []
    (tmp_path / "broken.jsonl").write_text('{"at_us": 1}\n{"at_us": "later"}\n')
    with pytest.raises(ValueError, match=r"broken\.jsonl"):
        read_timeline(tmp_path / "broken.jsonl")
