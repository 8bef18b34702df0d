"""What a run leaves behind: the history, the gateway's ledger, and one histogram per operation and outcome.

The hot path is ``note``: it encodes the attempt into a buffer, adds one to a bucket and tells Locust. The
history is written when the buffer is large or ``flush`` is called (every half second).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final, Protocol

import msgspec
from hdrh.histogram import HdrHistogram

from loadtests.record.history import Attempt, Charge

LATENCY_US_MOST: Final = 60_000_000
DIGITS: Final = 3
NAMES_MOST: Final = 200  # histograms of one run; a shop that invents codes ends in one called `other`
BUFFER_BYTES_MOST: Final = 262_144
WINDOW_MOST: Final = 100_000  # latencies kept for the live line between two looks
_EXACT_BITS: Final = 11  # 3 significant digits: 2,048 sub-buckets, as HdrHistogram has them


class Report(Protocol):
    """Someone else who wants to hear of every request."""

    def add(self, op: str, name: str, latency_us: int, length: int, error: str) -> None:
        """Take one request; ``error`` says why its outcome is unknown, if it is."""

    def flush(self) -> None:
        """Pass on what is held."""


class Summary(msgspec.Struct, frozen=True):
    """A histogram in short, in µs (``count``, ``over``: values), and all of it as HdrHistogram's base64 text."""

    count: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    over: int  # values above 60 s, counted as 60 s
    hdr: str


class Buckets:
    """Counts of values in HdrHistogram's own buckets (1 µs..60 s, 3 digits), at a third of a µs a value.

    Pure Python's ``HdrHistogram.record_value`` costs 2 µs; here a value goes to its bucket's lower edge in a
    dict and the real histogram is made once, at the end. Nothing is lost: the buckets are the same.
    """

    __slots__ = ("counts", "max_us", "over", "total")

    def __init__(self) -> None:
        """Begin empty."""
        self.counts: dict[int, int] = {}
        self.total = self.max_us = self.over = 0

    def add(self, value_us: int) -> None:
        """Count one value in µs; below 1 counts as 1, above 60 s as 60 s."""
        if value_us > self.max_us:
            self.max_us = value_us
        if value_us < 1:
            value_us = 1
        elif value_us > LATENCY_US_MOST:
            value_us = LATENCY_US_MOST
            self.over += 1
        shift = value_us.bit_length() - _EXACT_BITS
        if shift > 0:
            value_us = value_us >> shift << shift
        self.counts[value_us] = self.counts.get(value_us, 0) + 1
        self.total += 1

    def histogram(self) -> HdrHistogram:
        """Return the same as an HdrHistogram."""
        histogram = HdrHistogram(1, LATENCY_US_MOST, DIGITS)
        for value_us, count in self.counts.items():
            histogram.record_value(value_us, count)
        return histogram

    def summary(self) -> Summary:
        """Return the percentiles (upper edges of their buckets, at most the true maximum) and the text."""
        histogram = self.histogram()
        at = histogram.get_percentile_to_value_dict([50, 90, 99, 99.9]) if self.total else {}
        p50, p90, p99, p999 = (min(int(at.get(p, 0)), self.max_us) for p in (50, 90, 99, 99.9))
        encoded = histogram.encode()
        text = encoded.decode("ascii") if isinstance(encoded, bytes) else str(encoded)
        return Summary(self.total, p50, p90, p99, p999, self.max_us, self.over, text)


class Recorder:
    """Takes every attempt and charge of one run; open until ``close``."""

    def __init__(self, out_dir: Path, report: Report | None = None) -> None:
        """Open ``history.jsonl`` and ``charges.jsonl`` in ``out_dir``, which is made if missing.

        Raises:
            OSError: the directory or a file cannot be written.
        """
        out_dir.mkdir(parents=True, exist_ok=True)
        self._out_dir = out_dir
        self._report = report
        self._history = (out_dir / "history.jsonl").open("wb", buffering=0)
        self._charges = (out_dir / "charges.jsonl").open("wb", buffering=0)
        self._history_buffer = bytearray()
        self._encoder = msgspec.json.Encoder()
        self._buckets: dict[str, Buckets] = {}
        self._service: dict[str, Buckets] = {}
        self._window: list[int] = []
        self.firsts: dict[str, int] = {}  # outcome -> arrivals whose first place attempt ended so
        self.requests = self.accepted = self.keys_shown = 0

    def note(self, attempt: Attempt, name: str = "", from_us: int = -1, length: int = 0) -> None:
        """Write one finished attempt and count its latency.

        Args:
            attempt: what happened.
            name: its histogram; "" for attempts that were never sent.
            from_us: where its latency begins, if not at ``intended_us``.
            length: bytes of the answer's body, for Locust's statistics.
        """
        self._encoder.encode_into(attempt, self._history_buffer, -1)
        self._history_buffer += b"\n"
        if len(self._history_buffer) > BUFFER_BYTES_MOST:
            _write(self._history, self._history_buffer)
        if not name:
            return
        self.requests += 1
        latency_us = attempt.done_us - (from_us if from_us >= 0 else attempt.intended_us)
        self.latency(name, latency_us)
        _add(self._service, name, attempt.done_us - attempt.sent_us)
        if name == "accepted":
            self.accepted += 1
            if len(self._window) < WINDOW_MOST:
                self._window.append(latency_us)
        if self._report is not None:
            error = attempt.outcome if attempt.result == "unknown" else ""
            self._report.add(attempt.op, name, latency_us, length, error)

    def first(self, outcome: str) -> None:
        """Count how an arrival's first place attempt ended; every arrival is counted exactly once."""
        self.firsts[outcome] = self.firsts.get(outcome, 0) + 1

    def charge(self, charge: Charge) -> None:
        """Write one charge to the file at once: money taken is on record before any callback tells of it."""
        _write(self._charges, bytearray(self._encoder.encode(charge) + b"\n"))

    def latency(self, name: str, latency_us: int) -> None:
        """Count one latency under a name."""
        _add(self._buckets, name, latency_us)

    def window_p99_us(self) -> int:
        """Return p99 of the orders accepted since this was last asked (0: none)."""
        window, self._window = sorted(self._window), []
        return window[min(len(window) - 1, len(window) * 99 // 100)] if window else 0

    def flush(self) -> None:
        """Write what is buffered."""
        _write(self._history, self._history_buffer)
        if self._report is not None:
            self._report.flush()

    def close(self) -> None:
        """Write everything, and ``histograms.json``."""
        self.flush()
        self._charges.close()
        self._history.close()
        summaries = {
            beginning: {name: buckets.summary() for name, buckets in sorted(found.items())}
            for beginning, found in (("latency", self._buckets), ("service", self._service))
        }
        path = self._out_dir / "histograms.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(summaries), indent=1) + b"\n")


def _add(found: dict[str, Buckets], name: str, latency_us: int) -> None:
    buckets = found.get(name)
    if buckets is None:
        if len(found) >= NAMES_MOST:
            name = "other"
        buckets = found.setdefault(name, Buckets())
    buckets.add(latency_us)


def _write(file: io.FileIO, buffer: bytearray) -> None:
    """Write all of a buffer and empty it; a raw file may take less than it is given."""
    while buffer:
        del buffer[: file.write(buffer) or 0]
