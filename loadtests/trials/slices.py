"""Makes a shop small: a part of it gets the processor in slices, a fixed share of every few milliseconds.

A load generator on one core cannot send five and ten times what another core sells, so the shop is made small instead
of the load big. Two ways, for two shops:

- ``store``: the store's process is stopped (SIGSTOP) and let go on (SIGCONT) in turn, as one on a weak machine of its
  own; within a slice it goes before the worker, where real time is permitted. Needs no privilege. What the kernel does
  for it meanwhile (an fsync that was begun) goes on.
- ``core``: a real-time process (``SCHED_FIFO``) keeps the shop's core busy for the rest of every period, so that all of
  the shop, and what the kernel does there in its name, is slower by the same factor. Needs root or CAP_SYS_NICE.

The process slices until its standard input ends, lets everything go on, and writes one line of JSON: what it gave.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from core.errors import Fault
from loadtests.generator.punctual import PRIORITY, ask_real_time
from loadtests.trials.answering import answer

PERIOD_S: Final = 0.01
_LATE_S: Final = 0.001  # a slice that began or ended later than this was not the slice that was asked for


class Slices(msgspec.Struct, frozen=True):
    """What was given."""

    small: str  # what was made small: store or core
    asked: float  # share of the time
    given: float = 1.0
    periods: int = 0
    late: float = 0.0  # share of the periods that began or ended more than a millisecond late
    scheduled: str = "other"  # how the slicer ran: fifo or other


def _hold(pids: Sequence[int], until_s: float) -> None:
    """Keep the part from running until an instant."""
    if pids:
        _signal(pids, signal.SIGSTOP)
        time.sleep(max(0.0, until_s - time.monotonic()))
        _signal(pids, signal.SIGCONT)
        return
    while time.monotonic() < until_s:
        pass


def _signal(pids: Sequence[int], what: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def _schedule(pids: Sequence[int], policy: int, priority: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.sched_setscheduler(pid, policy, os.sched_param(priority))


def cut(small: str, share: float, pids: Sequence[int], scheduled: str) -> Slices:
    """Slice until standard input ends."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    began = time.monotonic()
    given, periods, late = 0.0, 0, 0
    try:
        _schedule(pids, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, PRIORITY)
        while not poll.poll(0):
            on_s = time.monotonic()  # each period from its own begin: one that was late takes nothing from the next
            time.sleep(share * PERIOD_S)
            off_s = time.monotonic()
            _hold(pids, on_s + PERIOD_S)
            over_s = time.monotonic()
            given, periods = given + off_s - on_s, periods + 1
            late += off_s - on_s > share * PERIOD_S + _LATE_S or over_s - on_s > PERIOD_S + _LATE_S
    finally:
        _schedule(pids, os.SCHED_OTHER, 0)
        _signal(pids, signal.SIGCONT)
    seconds = max(time.monotonic() - began, 1e-9)
    return Slices(small, share, given / seconds, periods, late / max(periods, 1), scheduled)


@contextlib.contextmanager
def sliced(small: str, share: float, core: int, pids: Sequence[int]) -> Iterator[list[Slices]]:
    """Make it small for the time of the block; what was given is in the list afterwards.

    Args:
        small: ``store`` or ``core``.
        share: of the time that is left to it; 1: nothing is done.
        core: the shop's.
        pids: what ``store`` stops.

    Raises:
        Fault: there is no real time to be had, or the slicer failed.
    """
    told = [Slices(small, share)]
    if share >= 1:
        yield told
        return
    command = [sys.executable, "-m", "loadtests.trials.slices", small, str(share), str(core), *map(str, pids)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as slicer:
        assert slicer.stdout is not None, "a pipe was asked for"
        try:
            if slicer.stdout.readline() != b"begun\n":
                raise Fault("the shop cannot be made small; why stands above")
            yield told
        finally:
            said = slicer.communicate()[0]
    if slicer.returncode != 0:
        raise Fault("what made the shop small has failed; its own words are above")
    told[:] = [msgspec.json.decode(said, type=Slices)]


def main() -> int:
    """Read what to slice from the arguments, slice, and write what was given."""
    small, share, core, *pids = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    scheduled = ask_real_time()
    if scheduled == "fifo":  # above the store, or it could not be stopped in its slice
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY + 1))
    if small == "core" and scheduled != "fifo":
        sys.stderr.write("--small core needs real-time scheduling: root or CAP_SYS_NICE; --small store does not\n")
        return 1
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    told = cut(small, float(share), [int(pid) for pid in pids] if small == "store" else [], scheduled)
    answer(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
