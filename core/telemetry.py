"""Logs and metrics. A log line is one JSON object; it takes numbers and short words, and can never hold a card key.

The rule is in the types: ``log`` accepts only the fields it knows how to write, and ``Secret`` has no text form but
``***``. Metrics are Prometheus's; several processes of one deployment share them through files when
``PROMETHEUS_MULTIPROC_DIR`` is set (the parent of the workers sets it before anything is imported).
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections import defaultdict
from typing import Final, NoReturn

import msgspec
from prometheus_client import Counter, Gauge, Histogram

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_FIELD_CHARS_MOST: Final = 300
_least: int = _LEVELS["info"]


class Secret:
    """A text that must not be shown: it prints, formats and serialises as ``***`` and opens only by ``reveal``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Grep for this word to see every place where a card key leaves its wrapper."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


def set_level(level: str) -> None:
    """Log only this level and what is graver (debug, info, warning, error)."""
    global _least
    _least = _LEVELS[level]


def log(level: str, event: str, **fields: str | int | float | bool | Exception | None) -> None:
    """Write one line to standard error: ``event`` is a fixed word, the fields say what is particular.

    Anything that is not a number, a truth value or a text is written as ``***``; an exception as its class and, for
    our own errors, its message (a library's message may quote a row).
    """
    if _LEVELS[level] < _least:
        return
    line: dict[str, object] = {"at": round(time.time(), 3), "level": level, "event": event}
    for name, value in fields.items():
        line[name] = _plain(value)
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")


def _plain(value: object) -> object:
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, Exception):
        ours = hasattr(value, "code") and type(value).__module__.startswith("core.")
        return _short(f"{type(value).__name__}: {value}") if ours else type(value).__name__
    return "***"


def _short(text: str) -> str:
    return text[:_FIELD_CHARS_MOST].encode(errors="replace").decode()  # half a surrogate pair is no JSON


class Tally:
    """A labelled counter for the hot path: counts in a dictionary, and is brought into Prometheus's now and then.

    Why: with several processes a Prometheus counter is a memory-mapped file behind a lock and a ``getpid`` a time, 7 %
    of a worker's processor in a profile of the sale; an addition in a dictionary is none.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.counts: defaultdict[str, int] = defaultdict(int)  # where a call of ``add`` is too much, add here
        _tallies.append(self)

    def add(self, label: str) -> None:
        """Count one."""
        self.counts[label] += 1

    def flush(self) -> None:
        """Bring what was counted into Prometheus's counter."""
        counts, self.counts = self.counts, defaultdict(int)
        for label, count in counts.items():
            self._counter.labels(label).inc(count)


class Waits:
    """Seconds waited and how often, for the hot path; brought into Prometheus's counters as a ``Tally`` is."""

    def __init__(self, seconds: Counter, times: Counter) -> None:
        self._seconds, self._times = seconds, times
        self._waited_s, self._count = 0.0, 0
        _tallies.append(self)

    def add(self, waited_s: float) -> None:
        """Count one wait."""
        self._waited_s += waited_s
        self._count += 1

    def flush(self) -> None:
        """Bring what was counted into Prometheus's counters."""
        self._seconds.inc(self._waited_s)
        self._times.inc(self._count)
        self._waited_s, self._count = 0.0, 0


class Distribution:
    """One label of ``Distributions``: how many values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_child", "_counts", "_sum")

    def __init__(self, child: Histogram) -> None:
        self._child, self._bounds = child, child._upper_bounds
        self._begin()

    def _begin(self) -> None:
        self._counts, self._sum = [0] * len(self._bounds), 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Bring what was counted into Prometheus's histogram, which itself takes nothing but one value at a time."""
        counts, total = self._counts, self._sum
        if not any(counts):
            return
        self._begin()
        self._child._sum.inc(total)
        for bucket, count in zip(self._child._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Distributions:
    """A labelled histogram for the hot path, brought into Prometheus's as a ``Tally`` is.

    Why: two values a call of a script were a fortieth of what an order costs a worker behind 64 buyers.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._labels: dict[str, Distribution] = {}
        _tallies.append(self)

    def labels(self, label: str) -> Distribution:
        """Return a label's own; always the same."""
        found = self._labels.get(label)
        if found is None:
            found = self._labels[label] = Distribution(self._histogram.labels(label))
        return found

    def flush(self) -> None:
        """Bring every label's values into Prometheus's histogram."""
        for distribution in self._labels.values():
            distribution.flush()


_tallies: list[Tally | Waits | Distributions] = []


def flush_tallies() -> None:
    """Bring every tally of this process into Prometheus's counters."""
    for tally in _tallies:
        tally.flush()


# --- metrics: every name once ---------------------------------------------------------------------------------

_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

PLACES = Tally(Counter("flashproof_places_total", "Orders asked for, by what became of them", ["outcome"]))
PAYMENTS = Tally(
    Counter("flashproof_payment_callbacks_total", "Payment callbacks, by what became of them", ["outcome"])
)
CANCELS = Tally(Counter("flashproof_cancels_total", "Cancellations asked for, by what became of them", ["outcome"]))
REFUSALS = Tally(Counter("flashproof_refusals_total", "Requests refused with a problem document", ["code"]))
CUTS = Tally(Counter("flashproof_connections_cut_total", "Connections ended for what their client did", ["reason"]))
CONNECTIONS = Gauge("flashproof_connections", "Connections open", multiprocess_mode="livesum")
BATCH_SIZE = Distributions(Histogram("flashproof_batch_size", "Items in one script call", ["lane"], buckets=_SIZES))
CALL_SECONDS = Distributions(
    Histogram("flashproof_store_call_seconds", "Time of one script call", ["lane"], buckets=_SECONDS)
)
POOL_WAITS = Waits(
    Counter("flashproof_pool_wait_seconds_total", "Time waited for a PostgreSQL connection of the pool"),
    Counter("flashproof_pool_waits_total", "Times a PostgreSQL connection of the pool was taken"),
)
WAITERS = Gauge("flashproof_waiters", "Buyers waiting for their order", multiprocess_mode="livesum")
ORDERS_MOST = Gauge("flashproof_orders_most", "Orders the workers may have under way now", multiprocess_mode="livesum")
LOOP_LATE = Gauge("flashproof_loop_late_seconds", "Lateness of the event loop, lately", multiprocess_mode="livemax")
PROJECTED = Counter("flashproof_projected_records_total", "Facts projected into PostgreSQL", ["kind"])
PROJECT_SECONDS = Histogram("flashproof_project_seconds", "Time of one projected transaction", buckets=_SECONDS)
PROJECTOR_LAG = Gauge("flashproof_projector_lag_seconds", "Age of the oldest fact when it was last projected")
QUARANTINED = Counter("flashproof_quarantined_records_total", "Facts set aside: each is an alarm")
DELIVERED = Counter("flashproof_delivered_keys_total", "Card keys claimed and committed")
EXPIRED = Counter("flashproof_expired_orders_total", "Reservations released for want of payment")
MISMATCHES = Counter("flashproof_payment_mismatches_total", "Charges of a wrong amount or currency: each is an alarm")
OWED = Gauge("flashproof_paid_orders_without_key", "Paid orders that wait for stock in PostgreSQL: alarm above zero")
EPOCH = Gauge("flashproof_epoch", "Epoch opened last by this projector; 0 while selling is closed")
