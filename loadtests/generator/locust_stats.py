"""Locust's own statistics, kept usable without paying for them request by request.

``events.request`` costs 5 µs in a tight loop and more between other work, a tenth of a whole request here.
So answered requests are collected and merged every half second, the way Locust's master merges the reports
of its workers (``StatsEntry.extend``): the same counts, times and totals, but each request is put into the
second of its merging. A request whose outcome is *unknown* is fired as ``events.request`` with its reason,
one by one, so Locust lists it among its failures.
"""

from __future__ import annotations

import time
from typing import Any, Final

from locust.stats import StatsEntry, bucket_response_time

_MERGED_MOST: Final = 20_000  # requests held between two merges; more are merged at once


class _Batch:
    __slots__ = ("latencies_us", "length", "op")

    def __init__(self, op: str) -> None:
        self.op = op
        self.latencies_us: list[int] = []
        self.length = 0


class LocustStats:
    """Takes every request of a run and passes it on to one Locust environment."""

    def __init__(self, environment: Any) -> None:
        """Take Locust's environment."""
        self._stats, self._fire = environment.stats, environment.events.request.fire
        self._batches: dict[str, _Batch] = {}
        self._held = 0

    def add(self, op: str, name: str, latency_us: int, length: int, error: str) -> None:
        """Take one request: its latency in µs, its answer's bytes, and why its outcome is unknown, if it is."""
        if error:
            self._fire(
                request_type=op,
                name=name,
                response_time=latency_us / 1000,
                response_length=length,
                exception=error,
                context={},
            )
            return
        batch = self._batches.get(name)
        if batch is None:
            batch = self._batches[name] = _Batch(op)
        batch.latencies_us.append(latency_us)
        batch.length += length
        self._held += 1
        if self._held > _MERGED_MOST:
            self.flush()

    def flush(self) -> None:
        """Merge what is held into Locust's statistics."""
        self._held = 0
        now = time.time()
        for name, batch in self._batches.items():
            if batch.latencies_us:
                entry = self._entry(name, batch, now)
                self._stats.get(name, batch.op).extend(entry)
                self._stats.total.extend(entry)
                batch.latencies_us, batch.length = [], 0

    def _entry(self, name: str, batch: _Batch, now: float) -> StatsEntry:
        latencies_ms = [latency_us / 1000 for latency_us in batch.latencies_us]
        entry = StatsEntry(self._stats, name, batch.op)
        entry.start_time = self._stats.total.start_time
        entry.last_request_timestamp = now
        entry.num_requests = len(latencies_ms)
        entry.num_reqs_per_sec[int(now)] = len(latencies_ms)
        entry.total_content_length = batch.length
        entry.total_response_time = sum(latencies_ms)
        entry.min_response_time, entry.max_response_time = min(latencies_ms), max(latencies_ms)
        counts = entry.response_times
        for latency_ms in latencies_ms:
            counts[bucket_response_time(latency_ms)] += 1
        return entry
