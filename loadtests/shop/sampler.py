"""Looks at every part of a shop twice a second while a sale runs: processor, memory, gauges.

What it costs: one look at some twenty processes through psutil (1 ms); every second a short read of each operators'
page and one pipelined question to Valkey (2 ms here, as much there); every other second a list of all processes below
this one (4 ms), so one that has just begun is seen up to two seconds late, with all it has used by then.
``Sampler.cost`` is the share of a core that this thread took.

It reads and never waits long: a part that is down or frozen is absent from the sample.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust
import redis
from prometheus_client.parser import text_string_to_metric_families

from core.sale.orders.stream import FACTS
from loadtests.record.timeline import Sample, write_timeline
from loadtests.shop.deployment import Deployment
from loadtests.shop.parts import Family

EVERY_S: Final = 0.5
LIST_EVERY: Final = 4  # looks
_SHORT_S: Final = 0.05  # processor times come in hundredths: one of them in the last millisecond would be ten cores
GAUGES_EVERY: Final = 2  # looks: a page costs its process a millisecond or two, and what it shows is half a second old
_ANSWER_MOST_S: Final = 1.0
_WANTED: Final = (
    "flashproof_loop_late_seconds",
    "flashproof_batch_size_sum",
    "flashproof_batch_size_count",
    "flashproof_store_call_seconds_sum",
    "flashproof_store_call_seconds_count",
    "flashproof_pool_wait_seconds_total",
    "flashproof_pool_waits_total",
    "flashproof_projector_lag_seconds",
)
_QUERY: Final = urlencode([("name[]", name) for name in _WANTED])
_NOT_BUSY: Final = ("iowait", "guest", "guest_nice")  # a guest's time is in user and nice already
_WRITING: Final = ("place", "pay", "cancel", "expire", "settle")  # lanes whose every call ends in an fsync
_AOF_US, _TURNS, _TURNS_US = "eventloop_duration_aof_sum", "eventloop_cycles", "eventloop_duration_sum"
Counts = dict[str, float]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the sampler looks."""

    pids: Callable[[], Mapping[str, int | None]]  # role -> its root process while it runs
    pages: Mapping[str, tuple[str, int]] = {}  # role -> host and port of its operators' face
    valkey_url: str | None = None
    workers: int = 1  # server processes that call Valkey


def sources_of(shop: Deployment) -> Sources:
    """Return where to look at a deployment of our own."""
    parts = {"server": "serve", "worker": "work", "valkey": "valkey", "postgres": "postgres"}
    settings = shop.settings
    return Sources(
        pids=lambda: {role: shop.pid(part) for role, part in parts.items() if part in shop.parts},
        pages={
            "server": (settings.ops_host, settings.ops_port),
            "worker": (settings.ops_host, settings.work_ops_port),
        },
        valkey_url=settings.valkey_url,
        workers=shop.workers,
    )


class _Page:
    """An operators' page on a connection that is kept: a new one each time costs both sides more than the page."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_MOST_S)

    def read(self) -> str:
        """Return what is wanted of it, or nothing when it does not answer."""
        try:
            self._connection.request("GET", f"/metrics?{_QUERY}")
            return self._connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            self.close()  # the next request connects anew
            return ""

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()


class Sampler:
    """A thread that samples from enter to exit; ``write`` leaves what it saw as ``timeline.jsonl``."""

    def __init__(self, sources: Sources, every_s: float = EVERY_S) -> None:
        self.samples: list[Sample] = []  # at_us in µs since 1970 until written
        self.cost = 0.0  # share of one core the sampling itself took
        self._sources, self._every_s = sources, every_s
        self._more: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._families: dict[str, Family] = {}
        self._pages = {role: _Page(*where) for role, where in sources.pages.items()}
        self._busy_s = (0.0, 0.0)  # of the machine and of this process, at the last look
        self._counts: Counts = {}
        self._counted_s = time.monotonic()
        self._valkey: redis.Redis | None = None

    def watch(self, role: str, pid: int) -> None:
        """Look at one more process and all below it, e.g. the generator that has just been started."""
        self._more[role] = pid

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look a last time and end."""
        self._stop.set()
        self._thread.join()

    def write(self, path: Path, started_unix_us: int) -> None:
        """Write the samples on the clock whose zero is ``started_unix_us``."""
        write_timeline(path, self.samples, -started_unix_us)

    # --- how ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        began_s = before_s = due_s = time.monotonic()
        looks = 0
        while True:
            stopping = self._stop.wait(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            if stopping and looks and now_s - before_s < _SHORT_S:
                break  # the look before is as good a last one
            self._look(now_s, now_s - before_s, looks)
            looks += 1
            before_s, due_s = now_s, max(due_s + self._every_s, now_s + _SHORT_S)
            self.cost = time.thread_time() / max(time.monotonic() - began_s, 1e-9)
            if stopping:
                break
        for page in self._pages.values():
            page.close()
        if self._valkey is not None:
            self._valkey.close()

    def _look(self, now_s: float, passed_s: float, number: int) -> None:
        at_us = time.time_ns() // 1000
        cpu, rss = self._processes(passed_s, number % LIST_EVERY == 0)
        others = self._others(passed_s, cpu)
        gauges = {} if others is None else {"others_cores": others}
        if number % GAUGES_EVERY == 0:
            counts = self._read()
            gauges |= gauges_between(self._counts, counts, now_s - self._counted_s, self._sources.workers)
            self._counts, self._counted_s = counts, now_s
        self.samples.append(Sample(at_us=at_us, cpu=cpu, rss_bytes=rss, gauges=gauges))

    def _processes(self, passed_s: float, list_anew: bool) -> tuple[dict[str, float], dict[str, int]]:
        roots = {**self._sources.pids(), **self._more}
        below = _children() if list_anew else None
        cpu, rss = {}, {}
        for role, pid in roots.items():
            family = self._families.get(role)
            if pid is None:
                self._families.pop(role, None)
                continue
            if family is None or family.pid != pid:
                family = self._families[role] = Family(pid)
                below = below if below is not None else _children()
            if below is not None:
                family.adopt(below)
            spent_s, rss_bytes = family.spent()
            if rss_bytes:
                rss[role] = rss_bytes
                if spent_s is not None and passed_s > 0:
                    cpu[role] = round(spent_s / passed_s, 4)
        return cpu, rss

    def _others(self, passed_s: float, cpu: Mapping[str, float]) -> float | None:
        """Return the cores used since the last look by what is neither a part nor this process."""
        times = psutil.cpu_times()
        now_s = sum(times) - times.idle - sum(getattr(times, name, 0.0) for name in _NOT_BUSY)
        own_s = time.process_time()
        (before_s, own_before_s), self._busy_s = self._busy_s, (now_s, own_s)
        if not before_s or passed_s <= 0:
            return None
        others = (now_s - before_s - own_s + own_before_s) / passed_s - sum(cpu.values())
        return round(max(0.0, float(others)), 4)

    def _read(self) -> Counts:
        """Return every count of now, by name and lane."""
        counts: Counts = {}
        for role, page in self._pages.items():
            counts |= {f"{role} {name}": value for name, value in _counts(page.read()).items()}
        with contextlib.suppress(redis.RedisError, OSError):
            counts |= self._ask_valkey()
        return counts

    def _ask_valkey(self) -> Counts:
        if self._sources.valkey_url is None:
            return {}
        if self._valkey is None:
            self._valkey = redis.Redis.from_url(
                self._sources.valkey_url, socket_timeout=_ANSWER_MOST_S, socket_connect_timeout=_ANSWER_MOST_S
            )
        pipe = self._valkey.pipeline(transaction=False)
        pipe.info("stats")
        pipe.info("debug")
        pipe.xlen(FACTS)
        stats, debug, waiting = pipe.execute()
        found: dict[str, Any] = {**stats, **debug}
        counts = {name: float(found[name]) for name in (_AOF_US, _TURNS, _TURNS_US) if name in found}
        return {**counts, "facts_waiting": float(waiting)}


def _children() -> dict[int, list[psutil.Process]]:
    """Return every process below this one, by its parent."""
    found: dict[int, list[psutil.Process]] = {}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.setdefault(process.ppid(), []).append(process)
    return found


def _counts(page: str) -> Counts:
    """Return what an operators' page says, by name and lane."""
    return {
        f"{sample.name}{'/' + sample.labels['lane'] if 'lane' in sample.labels else ''}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def gauges_between(before: Counts, now: Counts, passed_s: float, workers: int) -> dict[str, float]:
    """Return the gauges of ``loadtests.record.timeline.GAUGES`` from the counts of two looks ``passed_s`` apart.

    A count that fell (its process began anew) or is missing in either gives no gauge.
    """

    def grown(name: str) -> float | None:
        """Return by how much a count grew."""
        if name not in now or name not in before or now[name] < before[name]:
            return None
        return now[name] - before[name]

    def mean(total: str, times: str, unit: float) -> float | None:
        spent, count = grown(total), grown(times)
        return None if spent is None or not count else spent / count * unit

    def share(total: str) -> float | None:
        """Return the share of time a total of µs stands for."""
        spent_us = grown(total)
        return None if spent_us is None or passed_s <= 0 else spent_us / 1e6 / passed_s

    def gauge(name: str, unit: float) -> float | None:
        return now[name] * unit if name in now else None

    call, size, pool = "flashproof_store_call_seconds", "server flashproof_batch_size", "server flashproof_pool_wait"
    lanes = [spent for name in now if name.startswith(f"server {call}_sum/") and (spent := grown(name)) is not None]
    writes = sum(grown(f"{role} {call}_count/{lane}") or 0.0 for role in ("server", "worker") for lane in _WRITING)
    aof_us, fsyncs = grown(_AOF_US), min(grown(_TURNS) or 0.0, writes)
    found = {
        "loop_lag_us": gauge("server flashproof_loop_late_seconds", 1e6),
        "batch_orders": mean(f"{size}_sum/place", f"{size}_count/place", 1.0),
        "batch_ms": mean(f"server {call}_sum/place", f"server {call}_count/place", 1e3),
        "store_busy": max(lanes) / passed_s / workers if lanes and passed_s > 0 else None,
        "pool_wait_ms": mean(f"{pool}_seconds_total", f"{pool}s_total", 1e3),
        "fsync_us": aof_us / fsyncs if aof_us is not None and fsyncs else None,
        "fsync_share": share(_AOF_US),
        "valkey_busy": share(_TURNS_US),
        "projector_lag_ms": gauge("worker flashproof_projector_lag_seconds", 1e3),
        "facts_waiting": gauge("facts_waiting", 1.0),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}
