"""What a run leaves behind: the history, the gateway's ledger, and one histogram per operation and outcome.

The hot path is ``note``: it puts the attempt on a list. A few hundred are then encoded, counted and told to Locust
together, while that code is warm in the processor's caches: between two requests it never is. The history is written
when the buffer is large or ``flush`` is called (every half second).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec
from hdrh.histogram import HdrHistogram

from loadtests.record.counted import NAMES_MOST, OTHER, is_invented
from loadtests.record.history import Attempt, Charge

LATENCY_US_MOST: Final = 60_000_000
DIGITS: Final = 3
BUFFER_BYTES_MOST: Final = 262_144
HELD_MOST: Final = 64  # attempts settled together, in some tenths of a millisecond: replies wait meanwhile
WINDOW_LEAST: Final = 100  # of them that say how long orders take
WINDOW_MOST: Final = 100_000  # latencies kept for the live line between two looks
_EXACT_BITS: Final = 11  # 3 significant digits: 2,048 sub-buckets, as HdrHistogram has them


class Report(Protocol):
    """Someone else who wants to hear of every request."""

    def add(self, op: str, name: str, latency_us: int, length: int, error: str) -> None:
        """Take one request; ``error`` says why its outcome is unknown, if it is."""

    def add_all(self, op: str, name: str, latencies_us: list[int], length: int) -> None:
        """Take many requests whose outcomes are known; ``length`` is the sum of their answers' bytes."""

    def flushing(self) -> Iterator[None]:
        """Pass on what is held, in small steps."""


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

    def add_all(self, values_us: list[int]) -> None:
        """Count many values; the same as ``add`` for each."""
        counts = self.counts
        for value_us in values_us:
            if not 1 <= value_us <= LATENCY_US_MOST:
                self.add(value_us)
                self.total -= 1  # counted with the others below
                continue
            shift = value_us.bit_length() - _EXACT_BITS
            edge_us = value_us >> shift << shift if shift > 0 else value_us
            counts[edge_us] = counts.get(edge_us, 0) + 1
        self.total += len(values_us)
        self.max_us = max(self.max_us, *values_us) if values_us else self.max_us

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


class ByName(dict[str, Buckets]):
    """Counts by name; those whose names a shop invents beyond ``NAMES_MOST`` are counted together."""

    def __init__(self) -> None:
        """Begin empty."""
        self._invented = 0

    def of(self, name: str) -> Buckets:
        """Return the counts under a name, or under ``OTHER``."""
        found = self.get(name)
        if found is None:
            if is_invented(name):
                if self._invented >= NAMES_MOST:
                    return self.setdefault(OTHER, Buckets())
                self._invented += 1
            found = self[name] = Buckets()
        return found


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
        self._buckets, self._service = ByName(), ByName()
        self._window: list[int] = []
        self._window_service: list[int] = []
        self._held: list[tuple[Attempt, str, int, int]] = []  # the arguments of `note`
        self._requests = self._accepted = 0
        self.firsts: dict[str, int] = {}  # outcome -> arrivals whose first place attempt ended so
        self.keys_shown = 0
        self._read_lag = Buckets()

    @property
    def requests(self) -> int:
        """Return how many requests were sent."""
        self._settle()
        return self._requests

    @property
    def accepted(self) -> int:
        """Return how many orders were accepted."""
        self._settle()
        return self._accepted

    @property
    def read_lag(self) -> Buckets:
        """Return how late the replies that were looked at were read."""
        self._settle()
        return self._read_lag

    def histograms(self) -> dict[str, tuple[Buckets, Buckets | None]]:
        """Return what was counted so far, by name: latency from the due instant, and from the send."""
        self._settle()
        return {name: (due, self._service.get(name)) for name, due in self._buckets.items()}

    def note(self, attempt: Attempt, name: str = "", from_us: int = -1, length: int = 0) -> None:
        """Take one finished attempt: a line of the history and a count of its latency.

        Args:
            attempt: what happened.
            name: its histogram; "" for attempts that were never sent.
            from_us: where its latency begins, if not at ``intended_us``.
            length: bytes of the answer's body, for Locust's statistics.
        """
        self._held.append((attempt, name, from_us, length))
        if len(self._held) >= HELD_MOST:
            self._settle()

    def _settle(self) -> None:
        """Encode and count what is held."""
        held, self._held = self._held, []
        if not held:
            return
        self._history_buffer += self._encoder.encode_lines([attempt for attempt, _, _, _ in held])
        self._read_lag.add_all([one[0].read_late_us for one in held if one[0].read_late_us is not None])
        if len(self._history_buffer) > BUFFER_BYTES_MOST:
            _write(self._history, self._history_buffer)
        groups: dict[tuple[str, str], tuple[list[int], list[int], list[int]]] = {}
        for attempt, name, from_us, length in held:
            if not name:
                continue
            latency_us = attempt.done_us - (from_us if from_us >= 0 else attempt.intended_us)
            if attempt.result == "unknown":
                self._count(name, [latency_us], [attempt.done_us - attempt.sent_us])
                if self._report is not None:
                    self._report.add(attempt.op, name, latency_us, length, attempt.outcome)
                continue
            group = groups.get((attempt.op, name))
            if group is None:
                group = groups[attempt.op, name] = ([], [], [])
            group[0].append(latency_us)
            group[1].append(attempt.done_us - attempt.sent_us)
            group[2].append(length)
        for (op, name), (latencies_us, services_us, lengths) in groups.items():
            self._count(name, latencies_us, services_us)
            if self._report is not None:
                self._report.add_all(op, name, latencies_us, sum(lengths))

    def _count(self, name: str, latencies_us: list[int], services_us: list[int]) -> None:
        self._requests += len(latencies_us)
        self._buckets.of(name).add_all(latencies_us)
        self._service.of(name).add_all(services_us)
        if name == "accepted":
            self._accepted += len(latencies_us)
            if len(self._window) < WINDOW_MOST:
                self._window += latencies_us
                self._window_service += services_us

    def first(self, outcome: str) -> None:
        """Count how an arrival's first place attempt ended; every arrival is counted exactly once."""
        self.firsts[outcome] = self.firsts.get(outcome, 0) + 1

    def charge(self, charge: Charge) -> None:
        """Write one charge to the file at once: money taken is on record before any callback tells of it."""
        line = self._encoder.encode(charge) + b"\n"
        written = self._charges.write(line) or 0
        if written < len(line):
            _write(self._charges, bytearray(line[written:]))

    def latency(self, name: str, latency_us: int) -> None:
        """Count one latency under a name."""
        self._buckets.of(name).add(latency_us)

    def window(self) -> tuple[int, int]:
        """Return p99 of the orders accepted since this was last asked, from their due instants (0: none).

        And from their sending, in which the generator's own lateness is not; 0 with fewer than ``WINDOW_LEAST``.
        """
        self._settle()
        window, self._window = sorted(self._window), []
        services, self._window_service = sorted(self._window_service), []
        return _p99(window), _p99(services) if len(services) >= WINDOW_LEAST else 0

    def flush(self) -> None:
        """Write what is held."""
        for _ in self.flushing():
            pass

    def flushing(self) -> Iterator[None]:
        """Write what is held, in steps of well below a millisecond: between two of them arrivals may be sent."""
        self._settle()
        yield
        _write(self._history, self._history_buffer)
        if self._report is not None:
            yield
            yield from self._report.flushing()

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


def _p99(values: list[int]) -> int:
    return values[min(len(values) - 1, len(values) * 99 // 100)] if values else 0


def _write(file: io.FileIO, buffer: bytearray) -> None:
    """Write all of a buffer and empty it; a raw file may take less than it is given."""
    while buffer:
        del buffer[: file.write(buffer) or 0]
