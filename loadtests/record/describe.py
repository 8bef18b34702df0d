"""``run.json``: what was asked for, on what, and what befell it."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from loadtests.machine import describe_machine, git_commit
from loadtests.options import Options
from loadtests.record.summary import Generator, Incident, Run
from loadtests.targets import UNSEEN_WITHOUT

_PACKAGES: Final = ("locust", "aiohttp", "uvloop", "redis", "asyncpg")
_HERE: Final = (
    "More than one machine: load, server and stores shared this one's cores and its memory bus.",
    "A real payment gateway: the sandbox signs callbacks as one would.",
    "TLS, and a network between buyers and server.",
)
_HOSTS: Final = (
    "Server and stores on machines of their own: only the load came from other hosts.",
    "A real payment gateway: the sandbox signs callbacks as one would.",
    "TLS: the load speaks plain HTTP.",
)
_THERE: Final = (
    "A real payment gateway: the load pays as the adapter says.",
    "TLS: the load speaks plain HTTP.",
    "The target's processor, memory and queues: nothing of it was looked at but its answers and its stores.",
)


def read_generator(directory: Path) -> Generator:
    """Return what the load generator said of itself."""
    found: Generator = msgspec.json.decode((directory / "generator.json").read_bytes(), type=Generator)
    return found


def began(generator: Generator, fallback: float) -> float:
    """Return the instant 0 of the history's clock, in seconds since 1970."""
    try:
        return datetime.fromisoformat(str(generator.started_at)).timestamp()
    except ValueError:
        return fallback


def describe(
    options: Options,
    generator: Generator,
    *,
    cpu: dict[str, float],
    incidents: list[Incident],
    versions: dict[str, str],
    quiet_after_s: float | None,
    lacks: frozenset[str] = frozenset(),
) -> Run:
    """Return the run as its directory shall tell it; ``lacks`` is what its shop cannot do."""
    not_tested = list(_THERE if options.elsewhere else _HERE)
    if not options.elsewhere and any(not clock.same for clock in generator.clocks):
        not_tested = list(_HOSTS)
    if options.kills:
        not_tested.append("Latency: processes were killed on purpose, so no latency budget applies.")
    missing = {name for lack in lacks for name in UNSEEN_WITHOUT.get(lack, ())}
    not_tested += [f"{name.replace('_', ' ')}: the shop's adapter says it has none." for name in sorted(missing)]
    unread = []
    if options.elsewhere is not None:
        stores = {"postgres": options.elsewhere.postgres_dsn, "valkey": options.elsewhere.valkey_url}
        unread = [store for store, address in stores.items() if not address]
    return Run(
        run_id=options.report.name,
        scenario=options.scenario.name,
        seed=options.seed,
        rate=options.rate,
        seconds=options.seconds,
        stock=options.stock,
        hot_sku=options.hot_sku,
        cold_skus=options.cold,
        budgets=options.budgets,
        machine=describe_machine(),
        git_commit=git_commit(),
        started_at=str(generator.started_at),
        command=options.command,
        wanted=[name for name in options.scenario.wanted if name not in missing],
        versions=versions | {name: version(name) for name in _PACKAGES},
        cpu_seconds=cpu,
        incidents=incidents,
        not_tested=not_tested,
        quiet_after_s=quiet_after_s,
        unread=unread,
        target=options.elsewhere.url if options.elsewhere else "",
    )
