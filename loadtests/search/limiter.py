"""What keeps a shop from selling twice as much: named from measurements, with the figures that say so. Pure.

Two kinds of evidence. A *utilisation* is a share of something finite (a core, all cores, one process's one
thread). Below saturation it rises in proportion to load (the utilisation law: P. J. Denning and J. P. Buzen, ACM
Computing Surveys 10, 1978), so a straight line through the trials that kept the budget says what twice the rate
would need: more than all there is means it cannot be had. A *wait* is time an order spends for something (the
event loop, the store's answer, the disk, a pool), set against the budget. A utilisation is a cause and a wait may
be its symptom; so a wait is named as the limiter only when nothing finite is used up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

FULL: Final = 0.85  # of a resource in use: what comes on top waits longer than it is served
STRANGE_LEAST: Final = 0.15  # of all cores, used by others: worth saying
SPENT: Final = 0.5  # of the budget, gone by waiting in one place

Kind = Literal["utilisation", "wait"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One trial's means while orders came: ``cpu`` in cores by role, and what gauges there were."""

    rate: float
    kept: bool  # the trial kept the budget
    cpu: dict[str, float]
    gauges: dict[str, float] = {}


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of each thing, and the budget."""

    cores: int
    workers: int
    budget_ms: float
    generators: int = 1


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that could run out."""

    name: str
    kind: Kind
    what: str  # in words, with its unit
    now: float | None  # share of capacity, or of the budget, at the highest load tried; None: not measured
    kept: float | None  # the same at the highest rate that kept the budget
    double: float | None  # utilisations: what twice that rate would need
    advice: str


class Limiter(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "why not double?"."""

    name: str  # of a resource, or "unknown"
    sentences: list[str]  # the evidence, the deciding one first
    resources: list[Resource]


_Read = Callable[[Usage, Sizes], float | None]


def _cpu(role: str, of: Callable[[Sizes], float]) -> _Read:
    return lambda usage, sizes: usage.cpu[role] / of(sizes) if role in usage.cpu else None


def _wait(gauge: str, to_ms: float, times: float = 1.0) -> _Read:
    def read(usage: Usage, sizes: Sizes) -> float | None:
        return usage.gauges[gauge] * to_ms * times / sizes.budget_ms if gauge in usage.gauges else None

    return read


def _machine(usage: Usage, sizes: Sizes) -> float | None:
    """All cores: this run's processes, and what others take, other guests of the host included."""
    if not usage.cpu:
        return None
    return (sum(usage.cpu.values()) + usage.gauges.get("others_cores", 0.0)) / sizes.cores


_TABLE: Final[tuple[tuple[str, Kind, str, _Read, str], ...]] = (
    (
        "generator",
        "utilisation",
        "the load generator's core",
        _cpu("generator", lambda sizes: sizes.generators),
        "The load gave out before the shop did: generate it with more processes or from another machine.",
    ),
    (
        "fsync",
        "utilisation",
        "Valkey's main thread in write and fsync of its append-only file",
        lambda usage, _: usage.gauges.get("fsync_share"),
        "The disk decides: a faster one for Valkey's append-only file, or fewer and larger batches.",
    ),
    (
        "valkey",
        "utilisation",
        "Valkey's one main thread, computing",
        _cpu("valkey", lambda _: 1.0),
        "Valkey runs scripts on one thread: shard the SKUs over more Valkey servers, or make the script cheaper.",
    ),
    (
        "server",
        "utilisation",
        "the server's workers, a core each",
        _cpu("server", lambda sizes: sizes.workers),
        "Give the server more workers (--workers), as long as the machine has cores for them.",
    ),
    (
        "worker",
        "utilisation",
        "the projector's core",
        _cpu("worker", lambda _: 1.0),
        "The projector is one process a shard: shard the SKUs, or let it write larger batches.",
    ),
    (
        "machine",
        "utilisation",
        "all cores of this machine together",
        _machine,
        "The machine is full: move the load generator away first, then the stores, then add cores.",
    ),
    (
        "pool",
        "wait",
        "waiting for a PostgreSQL connection of the pool",
        _wait("pool_wait_ms", 1.0),
        "The pool of PostgreSQL connections is too small for what is asked of it, or its queries are slow.",
    ),
    (
        "store",
        "wait",
        "a script call's time, twice: the batch before and one's own",
        _wait("batch_ms", 1.0, 2.0),
        "Orders wait for Valkey though its thread is not full: look at its latency events and the batch size.",
    ),
    (
        "loop",
        "wait",
        "lag of the server's event loop",
        _wait("loop_lag_us", 0.001),
        "Something holds the event loop: `flashproof prove --profile` shows which call.",
    ),
)


def name_limiter(usages: Sequence[Usage], rate: float | None, sizes: Sizes) -> Limiter:
    """Return what keeps the shop from twice the rate.

    Args:
        usages: the trials that can be judged, in any order.
        rate: the highest rate that keeps the budget; None: none does.
        sizes: capacities and the budget.
    """
    resources = [_resource(row, usages, rate, sizes) for row in _TABLE]
    full = [one for one in resources if one.kind == "utilisation" and (one.now or 0) >= FULL]
    spent = [one for one in resources if one.kind == "wait" and (one.now or 0) >= SPENT]
    short = [one for one in resources if one.kind == "utilisation" and (one.double or 0) > 1]
    first = _first(full, spent, short)
    if first is None:
        return Limiter(name="unknown", sentences=[_nothing(resources)], resources=resources)
    others = [one for one in resources if one in (*full, *spent, *short) and one.name != first.name]
    sentences = [
        _says(first, rate),
        *_advice(first, usages, sizes),
        *(_says(one, rate) for one in others),
    ]
    return Limiter(name=first.name, sentences=sentences, resources=resources)


def _first(full: Sequence[Resource], spent: Sequence[Resource], short: Sequence[Resource]) -> Resource | None:
    """Return the one that decides: the generator makes all else unknowable, a full machine makes all parts slow."""
    for name in ("generator", "machine"):
        if found := next((one for one in full if one.name == name), None):
            return found
    if full:
        return max(full, key=lambda one: one.now or 0)
    if spent:
        return max(spent, key=lambda one: one.now or 0)
    return max(short, key=lambda one: one.double or 0, default=None)


def _resource(
    row: tuple[str, Kind, str, _Read, str], usages: Sequence[Usage], rate: float | None, sizes: Sizes
) -> Resource:
    name, kind, what, read, advice = row
    seen = [(usage.rate, share, usage.kept) for usage in usages if (share := read(usage, sizes)) is not None]
    at_most = max((usage_rate for usage_rate, _, _ in seen), default=0.0)
    top = [share for usage_rate, share, _ in seen if usage_rate == at_most]
    line = [(usage_rate, share) for usage_rate, share, kept in seen if kept]
    at_rate = [share for usage_rate, share in line if usage_rate == rate]
    return Resource(
        name=name,
        kind=kind,
        what=what,
        now=_mean(top),
        kept=_mean(at_rate),
        double=_at(2 * rate, line) if kind == "utilisation" and rate and line else None,
        advice=advice,
    )


def _at(rate: float, line: Sequence[tuple[float, float]]) -> float:
    """Return a straight line's value at a rate, fitted by least squares with no part below zero at rest."""
    mean_x, mean_y = sum(x for x, _ in line) / len(line), sum(y for _, y in line) / len(line)
    spread = sum((x - mean_x) ** 2 for x, _ in line)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in line) / spread if spread else 0.0
    rest = mean_y - slope * mean_x
    if not spread or rest < 0:
        return rate * sum(x * y for x, y in line) / sum(x * x for x, _ in line)
    return rest + slope * rate


def _says(one: Resource, rate: float | None) -> str:
    unit = "in use" if one.kind == "utilisation" else "of the budget"
    text = f"{one.what[0].upper()}{one.what[1:]}: {one.now or 0:.0%} {unit} at the highest load tried"
    if one.kept is not None and rate is not None:
        text += f", {one.kept:.0%} at {rate:,.0f}/s"
    if one.double is not None and rate is not None:
        text += f"; {2 * rate:,.0f}/s would take {one.double:.0%}"
    return text + "."


def _advice(first: Resource, usages: Sequence[Usage], sizes: Sizes) -> list[str]:
    """Return what to do, after who uses the machine when that is what has run out."""
    top = max(usages, key=lambda usage: usage.rate, default=None)
    if first.name != "machine" or top is None or not top.cpu:
        return [first.advice]
    parts = ", ".join(f"{role} {cores:.2f}" for role, cores in sorted(top.cpu.items(), key=lambda one: -one[1]))
    by_process = f"Cores by process at {top.rate:,.0f}/s: {parts}."
    strange = top.gauges.get("others_cores", 0.0)
    if strange <= STRANGE_LEAST * sizes.cores:
        return [by_process, first.advice]
    return [
        by_process,
        f"{strange:.2f} cores went to none of them: end the other work on this machine and sweep again, "
        "for without it the answer would be higher.",
    ]


def _nothing(resources: Sequence[Resource]) -> str:
    unseen = [one.name for one in resources if one.now is None]
    seen = [f"{one.name} {one.now:.0%}" for one in resources if one.now is not None]
    text = f"Nothing that was measured is near its end ({', '.join(seen) or 'nothing was measured'})"
    return text + (f"; not measured: {', '.join(unseen)}." if unseen else ".")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
