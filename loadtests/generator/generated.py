"""What a generator tells of itself: its progress while it runs, and ``generator.json`` at the end."""

from __future__ import annotations

import msgspec


class WakeLag(msgspec.Struct, frozen=True):
    """How late arrivals began, in µs: the generator's own lateness."""

    p50: int
    p99: int
    max: int


class ReadLag(msgspec.Struct, frozen=True):
    """How long replies lay in the kernel unread, in µs: the generator's lateness at the other end."""

    p50: int
    p99: int
    max: int
    replies: int  # that were looked at


class Rates(msgspec.Struct, frozen=True):
    """What was reached, a second: ``offered`` and ``accepted`` over the sale, ``requests`` over all."""

    offered_per_s: float
    accepted_per_s: float
    requests_per_s: float


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """``generator.json``: what the generator did and whether it can be believed."""

    complete: bool  # the whole plan was run
    scheduled: int
    sent: int
    unsent: int
    shed: int
    crashed: int  # arrivals that ended by a fault of the generator; anything but 0 is a bug
    left: int  # arrivals cut off at the end of the drain
    requests: int
    waited_for_connection: int
    cpu_max: float  # fraction of one core, the highest quarter of a second
    cpu_mean: float
    wake_lag_us: WakeLag
    read_lag_us: ReadLag | None  # None: the kernel stamps nothing here
    started_at: str  # ISO 8601, UTC
    started_unix_us: int  # the zero of every instant in the history
    elapsed_s: float
    sale_s: float
    rates: Rates
    cpu_samples: list[tuple[int, float]]  # (instant in µs, share of one core), every 0.25 s
    stalls: list[tuple[int, int]]  # (instant in µs, length in µs): it stood still for 50 ms or more
    scheduling: str  # what the kernel granted: fifo (real time) or other
    processes: int = 1
    outcomes: dict[str, int]  # first place attempts by outcome; they add up to `scheduled`
    keys_shown: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of progress."""

    elapsed_s: float
    phase: str  # sale, drain
    scheduled: int
    sent: int
    under_way: int
    accepted: int
    refused: int
    sold: int  # keys shown to buyers
    p99_us: int  # of the orders accepted since the last line
    shed: int
    cpu: float
