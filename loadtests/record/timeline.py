"""What the machine did while the sale ran: ``timeline.jsonl``, one ``Sample`` a line, about two a second.

CPU and memory by role, and gauges of server, projector and Valkey. Whatever could not be measured at an instant is
absent from that sample, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "timeline.jsonl"
ROLES: Final = ("server", "valkey", "postgres", "worker", "generator")
GAUGES: Final[dict[str, str]] = {
    "others_cores": "cores used by whatever does not belong to the run, the hypervisor's other guests included",
    "loop_lag_us": "how late the server's event loop came to what was due, the latest worker, in µs",
    "batch_orders": "orders in one script call, on average",
    "batch_ms": "time of one script call as the server sees it, on average, in ms",
    "store_busy": "share of time a Valkey call of the busiest lane was under way, for each server worker",
    "pool_wait_ms": "wait for a PostgreSQL connection of the pool, on average, in ms",
    "fsync_us": "write and fsync of Valkey's append-only file, for each writing turn at most, on average, in µs",
    "fsync_share": "share of time Valkey was in write and fsync of its append-only file",
    "valkey_busy": "share of time Valkey's event loop was at work, waiting for the disk included",
    "projector_lag_ms": "age of the oldest fact when it was last projected, in ms",
    "facts_waiting": "journal entries that PostgreSQL does not have yet",
}
_line = msgspec.json.Encoder()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at everything; shares and averages are over the time since the look before."""

    at_us: int  # on the history's clock
    cpu: dict[str, float] = {}  # role -> share of one core, all its processes together; above 1 on several cores
    rss_bytes: dict[str, int] = {}  # role -> resident memory; memory that processes share is counted once for each
    gauges: dict[str, float] = {}  # of GAUGES


def write_timeline(path: Path, samples: Iterable[Sample], shift_us: int = 0) -> None:
    """Write samples, each instant moved by ``shift_us``, whole or not at all."""
    whole = path.with_name(path.name + ".new")
    with whole.open("wb") as file:
        for sample in samples:
            file.write(_line.encode(msgspec.structs.replace(sample, at_us=sample.at_us + shift_us)) + b"\n")
    whole.replace(path)


def others_cores(samples: Iterable[Sample], begin_us: int, end_us: int) -> float | None:
    """Return how many cores others used between two instants, on average, or None where nobody looked."""
    seen = [s.gauges["others_cores"] for s in samples if begin_us <= s.at_us <= end_us and "others_cores" in s.gauges]
    return sum(seen) / len(seen) if seen else None


def read_timeline(path: Path) -> list[Sample]:
    """Return the samples in the order they were taken; none when the run has no such file.

    Raises:
        ValueError: a line is not what it should be.
        OSError: the file is there and cannot be read.
    """
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(b"[" + b",".join(path.read_bytes().splitlines()) + b"]", type=list[Sample])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name} is not what it should be: {error}") from error
