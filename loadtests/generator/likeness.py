"""What a worker says of itself when it is ready, and what of it must be as it is with the master.

Two trees that differ play two different runs, so the whole of the source is compared and not its number. Secrets must
agree too, or what one worker saw could not be set beside what another did; they are compared by a keyed hash and never
leave their host.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from core import __version__
from loadtests.machine import Machine, describe_machine, git_commit

_ROOT: Final = Path(__file__).resolve().parents[2]
_PACKAGES: Final = ("locust", "gevent", "msgspec", "hdrhistogram")


class Likeness(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the load generator."""

    source: str  # digest of the code that plays
    commit: str
    versions: dict[str, str]
    clock: str  # alike: both read one clock
    secrets: str  # keyed hash of the worker's own name
    machine: Machine


def likeness(client: str, secrets: bytes) -> Likeness:
    """Return what this process is; ``client`` is the worker's name with Locust."""
    return Likeness(
        source=_source(),
        commit=_commit(),
        versions={
            "flashproof": __version__,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            **{name: version(name) for name in _PACKAGES},
        },
        clock=_clock(),
        secrets=hmac.digest(secrets, client.encode(), "sha256").hex(),
        machine=describe_machine(),
    )


def unlike(master: Likeness, worker: Likeness) -> str:
    """Return why the two cannot play one run, and what to do; "" if they can. Both were asked for the same client."""
    for name, ours in master.versions.items():
        theirs = worker.versions.get(name, "none")
        if theirs != ours:
            return f"has {name} {theirs}, the master {ours}: install the same on every host"
    if worker.source != master.source:
        commits = f"commit {worker.commit or 'unknown'}, the master's {master.commit or 'unknown'}"
        return f"runs other code than the master ({commits}): bring every host to the same commit"
    if worker.secrets != master.secrets:
        return (
            "has other secrets than the shop: give every host the same FLASHPROOF_SECRET and FLASHPROOF_SANDBOX_SECRET"
        )
    return ""


@cache
def _source() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("core", "loadtests") for path in (_ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def _commit() -> str:
    return git_commit()


def _clock() -> str:
    """Return a word that two processes share where they read the same monotonic clock; elsewhere one's own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return f"{os.urandom(16).hex()}"


def read(told: Any) -> Likeness:
    """Return what a worker told.

    Raises:
        msgspec.ValidationError: it is of another version, which told something else.
    """
    return msgspec.convert(told, Likeness)
