"""One axis for the instants of several hosts: how a worker's clock is read from afar, and how sure that is.

Every worker stamps what it sees by its own monotonic clock, which nobody sets: wall clocks need not agree. The master
asks a worker for its time and notes its own before and after; the answer was made somewhere between the two, so half
the round trip bounds the error, however unlike the two ways are. The least of many round trips is kept (F. Cristian,
Probabilistic clock synchronization, Distributed Computing 3, 1989). It is asked before the run and after it: by how
much the two differ is drift, and counts as uncertainty, for the instants in between were not corrected by it.

Processes of one kernel (and of one time namespace) read one clock: unless the reading denies it, nothing is unsure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from loadtests.machine import Machine


class Reading(msgspec.Struct, frozen=True):
    """A worker's clock, read from afar: it shows ``offset_us`` more than ours, give or take ``within_us``."""

    offset_us: int = 0
    within_us: int = 0


EXACT: Final = Reading()  # of a clock that is ours


class WorkerClock(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of a run over several hosts, and how its instants came onto the master's axis."""

    worker: int  # from 1
    machine: Machine
    same: bool  # it reads the very clock the master reads
    offset_us: int = 0  # what its clock shows more, as it was taken into account
    within_us: int = 0  # how far its instants may be off: the uncertainty of the readings, and the drift between them
    drift_us: int = 0  # from the reading before the run to the one after it


def read_once(sent_us: int, theirs_us: int, back_us: int) -> Reading:
    """Return what one question tells: sent and answered by our clock, answered by theirs, in µs."""
    round_trip_us = back_us - sent_us
    within_us = -(-round_trip_us // 2)
    return Reading(theirs_us - sent_us - round_trip_us // 2, within_us)


def surest(readings: Iterable[Reading]) -> Reading:
    """Return the reading of the least round trip.

    Raises:
        ValueError: there is none.
    """
    return min(readings, key=lambda reading: reading.within_us)


def believed(reading: Reading, alike: bool) -> Reading:
    """Return how a worker's clock is taken: one that seems to be ours (``alike``) is, unless the reading denies it.

    Machines begun from one snapshot call their kernels by the same name, and their clocks are not the same.
    """
    return EXACT if alike and abs(reading.offset_us) <= reading.within_us else reading


def settled(worker: int, machine: Machine, before: Reading, after: Reading) -> WorkerClock:
    """Return a worker's clock over a whole run, whose instants all went by the reading ``before`` it."""
    drift_us = after.offset_us - before.offset_us
    return WorkerClock(
        worker=worker,
        machine=machine,
        same=before == after == EXACT,
        offset_us=before.offset_us,
        within_us=max(before.within_us, after.within_us + abs(drift_us)),
        drift_us=drift_us,
    )
