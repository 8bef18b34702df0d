"""The generator's watch over itself: no stall of 50 ms is missed, whatever stopped it."""

from __future__ import annotations

import gc
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from loadtests.generator.clock import Clock
from loadtests.generator.watch import STALL_US, Watch
from tests.harness.test_generator import generated, null_shop, start

STALLS = 15  # of each kind


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def collect(seconds: float) -> None:
    """Stand still in collections of a large heap, as a careless generator does."""
    end = time.monotonic() + seconds
    heap = [[n] for n in range(20_000)]
    while time.monotonic() < end:
        gc.collect()
    del heap


@pytest.mark.parametrize("stand_still", [time.sleep, spin, collect])
def test_every_injected_stall_of_50_ms_is_listed_whole(stand_still: Callable[[float], None]) -> None:
    clock, dice, injected = Clock(), random.Random(stand_still.__name__), []
    watch = Watch(clock.now_us)
    watch.start()
    for _ in range(STALLS):
        gevent.sleep(dice.uniform(0, 0.03))
        begin = clock.now_us()
        stand_still(STALL_US / 1e6)
        injected.append((begin, clock.now_us()))
    watch.stop()  # at once: a stall just before the end must not escape either
    for begin, end in injected:
        assert end - begin >= STALL_US
        assert any(at <= begin and at + length >= end for at, length in watch.stalls), (begin, end, watch.stalls)


def test_the_cpu_is_sampled_four_times_a_second() -> None:
    clock = Clock()
    watch = Watch(clock.now_us)
    watch.start()
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        spin(0.005)
        gevent.sleep(0)
    watch.stop()
    assert len(watch.cpu_samples) >= 2
    assert watch.cpu_max > 0.2  # of a machine that may be busy with other things
    assert all(0 <= share <= 1.2 for _, share in watch.cpu_samples)


def test_a_stopped_generator_lists_every_stop(tmp_path: Path) -> None:
    """Stops: a laptop that slept, a container that was frozen, a machine that was given to others."""
    stops = []
    with null_shop() as url:
        process = start(url, tmp_path, 50, 3, "--fp-drain", "1")
        assert process.stdout is not None
        while "FLASHPROOF" not in process.stdout.readline():
            time.sleep(0.01)
        for pause_s in (0.11, 0.23, 0.17, 0.29):
            time.sleep(pause_s)
            process.send_signal(signal.SIGSTOP)
            begin = time.time_ns() // 1000
            time.sleep(0.08)
            stops.append((begin + time.time_ns() // 1000) // 2)
            process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
    told = generated(tmp_path)
    for middle in stops:
        at_us = middle - told["started_unix_us"]
        assert any(at <= at_us <= at + length for at, length in told["stalls"]), (at_us, told["stalls"])


_REAL_TIME = """
import os, time
from loadtests.generator.punctual import ask_real_time, give_real_time_back

before, granted, ends = os.sched_getscheduler(0), ask_real_time(), time.monotonic() + 10.0
assert granted == ("fifo" if os.sched_getscheduler(0) & 0xFF == os.SCHED_FIFO else "other")
if granted == "fifo":
    assert os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK
    while os.sched_getscheduler(0) != os.SCHED_OTHER and time.monotonic() < ends:
        pass  # without a pause: the kernel's limit ends it
assert give_real_time_back(granted) == ("fifo, then other" if granted == "fifo" else "other")
assert os.sched_getscheduler(0) == before
"""


def test_real_time_is_taken_where_it_is_permitted_and_given_back() -> None:
    """The report says which it was; a generator that kept it would starve whoever comes after.

    In a process of its own: a second thread that asks for the interpreter is a pause, and the limit counts anew.
    """
    done = subprocess.run([sys.executable, "-c", _REAL_TIME], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
