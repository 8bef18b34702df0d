"""On which machine and from which tree a figure comes, and where its run is written."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran: words a reader can compare, no name and no path."""

    cpu: str
    cores: int
    kernel: str
    python: str


def describe_machine() -> Machine:
    """Return this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return Machine(
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def git_commit() -> str:
    """Return the commit of the tree this runs from, with ``+`` when it was changed, or nothing outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        dirty = subprocess.run(
            ["git", "-C", here, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def point_latest(report: Path) -> None:
    """Let ``latest`` beside the run point at it, by one atomic rename; where that may not be, it does not."""
    link = report.parent / "latest"
    fresh = report.parent / f".latest-{os.getpid()}"
    if os.path.lexists(link) and not link.is_symlink():
        return
    with contextlib.suppress(OSError):  # the directory above the run is not ours to write
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(report.name)
        fresh.replace(link)
