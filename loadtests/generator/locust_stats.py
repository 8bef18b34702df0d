"""Locust's own statistics, kept usable without paying for them request by request.

``events.request`` costs 5 µs in a tight loop and more between other work, a tenth of a whole request here.
So answered requests are collected and merged every half second, the way Locust's master merges the reports
of its workers (``StatsEntry.extend``): the same counts, times and totals, but each request is put into the
second of its merging. A request whose outcome is *unknown* is fired as ``events.request`` with its reason,
one by one, so Locust lists it among its failures.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from locust.stats import StatsEntry, bucket_response_time

_MERGED_MOST: Final = 20_000  # requests held between two merges; more are merged at once


class _Batch:
    __slots__ = ("latencies_us", "length")

    def __init__(self) -> None:
        self.latencies_us: list[int] = []
        self.length = 0


class LocustStats:
    """Takes every request of a run and passes it on to one Locust environment."""

    def __init__(self, environment: Any) -> None:
        """Take Locust's environment."""
        self._environment, self._fire = environment, environment.events.request.fire
        self._batches: dict[tuple[str, str], _Batch] = {}

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
        batch = self._batches.get((name, op)) or self._batch(name, op)
        batch.latencies_us.append(latency_us)
        batch.length += length
        if len(batch.latencies_us) > _MERGED_MOST:
            self.flush()

    def add_all(self, op: str, name: str, latencies_us: list[int], length: int) -> None:
        """Take many requests whose outcomes are known; ``length`` is the sum of their answers' bytes."""
        batch = self._batches.get((name, op)) or self._batch(name, op)
        batch.latencies_us += latencies_us
        batch.length += length
        if len(batch.latencies_us) > _MERGED_MOST:
            self.flush()

    def _batch(self, name: str, op: str) -> _Batch:
        return self._batches.setdefault((name, op), _Batch())

    def flush(self) -> None:
        """Merge what is held into Locust's statistics."""
        for _ in self.flushing():
            pass

    def flushing(self) -> Iterator[None]:
        """Do the same in steps, one name each."""
        stats = self._environment.stats
        for (name, op), batch in list(self._batches.items()):
            if batch.latencies_us:
                now = time.time()
                entry = _entry(stats, name, op, batch, now)
                stats.get(name, op).extend(entry)
                stats.total.extend(entry)
                batch.latencies_us, batch.length = [], 0
                yield


def _entry(stats: Any, name: str, op: str, batch: _Batch, now: float) -> StatsEntry:
    latencies_us = batch.latencies_us
    entry = StatsEntry(stats, name, op)
    entry.start_time = stats.total.start_time
    entry.last_request_timestamp = now
    entry.num_requests = len(latencies_us)
    entry.num_reqs_per_sec[int(now)] = len(latencies_us)
    entry.total_content_length = batch.length
    entry.total_response_time = sum(latencies_us) / 1000
    entry.min_response_time, entry.max_response_time = min(latencies_us) / 1000, max(latencies_us) / 1000
    counts = entry.response_times
    # Below 100 ms Locust's buckets are whole ms: the common case, without a call for each.
    for latency_ms, count in Counter([round(us / 1000) for us in latencies_us if us < 100_000]).items():
        counts[latency_ms] += count
    for latency_us in latencies_us:
        if latency_us >= 100_000:
            counts[bucket_response_time(latency_us / 1000)] += 1
    return entry
