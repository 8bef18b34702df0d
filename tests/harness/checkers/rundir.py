"""A run's directory around some evidence, as `prove` would leave it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram
from world import a_good_sale

from core.clock import iso8601
from loadtests.generator.recorder import Buckets
from loadtests.machine import Machine
from loadtests.record.counted import outcome_of
from loadtests.record.evidence import Evidence
from loadtests.record.identity import first_places
from loadtests.record.rebuild import rebuild
from loadtests.record.run_files import RunFiles, write_json
from loadtests.record.summary import Budgets, Generator, Histograms, Recorded, Run, WakeLag
from loadtests.record.timeline import ROLES, Sample, write_timeline

EPOCH_MS = 1_760_000_000_000


def recorded(*values_us: int) -> Recorded:
    histogram = HdrHistogram(1, 60_000_000, 3)
    for value in values_us:
        histogram.record_value(value)
    return Recorded(hdr=histogram.encode().decode(), count=len(values_us), max=max(values_us, default=0))


def run_files(
    evidence: Evidence | None = None, run: dict[str, Any] | None = None, generator: dict[str, Any] | None = None
) -> RunFiles:
    """Return a run that passes, but for what is changed."""
    evidence = evidence or a_good_sale()
    arrivals = len({a.arrival for a in evidence.attempts if a.op == "place" and a.why == "first"})
    told = Run(
        run_id="20260101T000000-7",
        scenario="flash_sale",
        seed=7,
        rate=2000.0,
        seconds=20.0,
        stock=9,
        hot_sku="hot",
        cold_skus=1,
        budgets=Budgets(accepted_p99_us=100_000),
        machine=Machine(cpu="Test CPU", cores=2, kernel="Linux 6.1", python="3.11"),
        git_commit="abc1234",
        started_at=iso8601(EPOCH_MS),
        command="make prove ARGS='--seed 7'",
        wanted=list(evidence.wanted),
        versions={"valkey": "9.1.2"},
        cpu_seconds={"server": 1.5, "valkey": 0.5},
        quiet_after_s=1.5,
    )
    of_load = Generator(
        scheduled=arrivals,
        sent=arrivals,
        unsent=0,
        shed=0,
        cpu_max=0.4,
        wake_lag_us=WakeLag(p50=50, p99=900, max=2_000),
    )
    return RunFiles(
        run=msgspec.structs.replace(told, **(run or {})),
        generator=msgspec.structs.replace(of_load, **(generator or {})),
        histograms={
            "accepted": recorded(*range(1_000, 20_000, 10)),
            "sold_out": recorded(*range(500, 2_000, 10)),
            "paid_to_delivered": recorded(*range(5_000, 90_000, 100)),
        },
        service={"accepted": recorded(*range(900, 19_900, 10)), "sold_out": recorded(*range(400, 1_900, 10))},
        evidence=evidence,
        timeline=samples(),
    )


def counted_files(**changes: Any) -> RunFiles:
    """Return a run whose histograms and whose generator's word were counted from its own history, as `prove` does."""
    files = run_files(**changes)
    latency, service = rebuild(files.evidence.attempts, files.evidence.charges)
    firsts = first_places(files.evidence.attempts).values()
    return msgspec.structs.replace(
        files,
        histograms={name: _recorded(buckets) for name, buckets in latency.items()},
        service={name: _recorded(buckets) for name, buckets in service.items()},
        generator=msgspec.structs.replace(
            files.generator,
            started_at=files.run.started_at,
            outcomes=dict(Counter(map(outcome_of, firsts))),
            requests=sum(a.why != "resolve" for a in files.evidence.attempts),
            keys_shown=len({key for a in files.evidence.attempts for key in a.keys}),
        ),
    )


def _recorded(buckets: Buckets) -> Recorded:
    return msgspec.convert(msgspec.to_builtins(buckets.summary()), Recorded)


def samples() -> list[Sample]:
    """Return what the sampler of such a run saw, twice a second from before the sale until after it."""
    gauges = {"loop_lag_us": 900.0, "batch_orders": 12.5, "batch_ms": 2.5, "store_busy": 0.4, "fsync_us": 700.0}
    return [
        Sample(
            at_us=n * 500_000,
            cpu={role: 0.1 * at for at, role in enumerate(ROLES, 1)},
            rss_bytes=dict.fromkeys(ROLES, 50000000 + n),
            gauges=gauges if n % 2 else {},
        )
        for n in range(-4, 12)
    ]


def write_run(directory: Path, files: RunFiles) -> None:
    """Write a run's raw files."""
    evidence = files.evidence
    for name, rows in (("history", evidence.attempts), ("charges", evidence.charges)):
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        (directory / f"{name}.jsonl").write_bytes(lines)
    write_timeline(directory / "timeline.jsonl", files.timeline)
    for name, value in (
        ("run", files.run),
        ("generator", files.generator),
        ("histograms", Histograms(latency=files.histograms, service=files.service)),
        ("postgres", evidence.postgres),
        ("valkey", evidence.valkey),
    ):
        write_json(directory / f"{name}.json", value)
