"""The histograms, and what the generator says of its own counting, made again from the history: every count of it.

A request counts from the instant it was due; a retried place from the instant at which its buyer began to wait, that of
the last place of the same arrival that was no retry. ``paid_to_delivered`` goes from the gateway's charge to the first
sight of the key, where that was at a long poll. Lines of one arrival stand in the order in which they ended.

What cannot be made again, because only the generator could see it (its wake lag, its processor's samples, its
stalls, its ceiling), is raw itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from loadtests.generator.recorder import Buckets
from loadtests.record.counted import (
    AFTERWARDS,
    NAMES_MOST,
    OTHER,
    PAID_TO_DELIVERED,
    histogram_of,
    is_invented,
    outcome_of,
)
from loadtests.record.figures import read_lags
from loadtests.record.history import Attempt, Charge
from loadtests.record.identity import first_places
from loadtests.record.latency import open_histogram
from loadtests.record.summary import Generator, Recorded

_NOT_WAITED_FOR: Final = frozenset({"retry", "replay", "conflict", *AFTERWARDS})  # no buyer begins to wait with these
_FIELDS: Final = ("count", "max", "over", "p50", "p90", "p99", "p999")
Found = Mapping[str, Buckets]


def rebuild(attempts: Iterable[Attempt], charges: Iterable[Charge]) -> tuple[dict[str, Buckets], dict[str, Buckets]]:
    """Return the histograms by name, from the instant intended and from the send."""
    latency: dict[str, Buckets] = {}
    service: dict[str, Buckets] = {}
    began_us: dict[int, int] = {}  # by arrival
    charged_us = {charge.order_id: charge.at_us for charge in charges}
    shown: set[str] = set()
    for attempt in attempts:
        if attempt.op == "place" and attempt.why not in _NOT_WAITED_FOR:
            began_us[attempt.arrival] = attempt.intended_us
        name = histogram_of(attempt)
        if name:
            retried = attempt.op == "place" and attempt.why == "retry"
            from_us = began_us.get(attempt.arrival, attempt.intended_us) if retried else attempt.intended_us
            latency.setdefault(name, Buckets()).add(attempt.done_us - from_us)
            service.setdefault(name, Buckets()).add(attempt.done_us - attempt.sent_us)
        if first_sight(attempt, shown) and attempt.why == "wait" and attempt.order_id in charged_us:
            took_us = attempt.done_us - charged_us[attempt.order_id]
            latency.setdefault(PAID_TO_DELIVERED, Buckets()).add(took_us)
    return latency, service


def first_sight(attempt: Attempt, shown: set[str]) -> bool:
    """Return whether this look was the first, while the load ran, to show an order's keys; ``shown`` remembers."""
    if not attempt.keys or attempt.why in AFTERWARDS or attempt.order_id in shown:
        return False
    shown.add(attempt.order_id)
    return True


# --- comparing ----------------------------------------------------------------------------------------------


def histogram_differences(beginning: str, said: Mapping[str, Recorded], found: Found) -> Iterator[str]:
    """Yield every difference between recorded histograms and those made again.

    Where a shop invented more names than are kept, what is missing under a name must be found under ``other``, bucket
    by bucket.

    Raises:
        ValueError: one is no histogram.
    """
    left: Counter[int] = Counter()
    many = OTHER in said and sum(map(is_invented, said)) >= NAMES_MOST
    for name in sorted(said.keys() | found.keys()):
        if many and name == OTHER:
            continue
        where = f"histograms.json: {beginning}.{name}"
        if name not in said:
            if many and is_invented(name):
                left += Counter(found[name].counts)
            else:
                yield f"{where} is missing; the history has {found[name].total} of it"
        elif name not in found:
            yield f"{where} has {said[name].count} values, the history none"
        elif many and is_invented(name):
            here, there = _counts(said[name]), Counter(found[name].counts)
            left += there - here
            yield from _bucket_differences(where, here - there, Counter())
        else:
            yield from _one(where, said[name], found[name])
    if many:
        yield from _bucket_differences(f"histograms.json: {beginning}.{OTHER}", _counts(said[OTHER]), left)


def _one(where: str, said: Recorded, found: Buckets) -> Iterator[str]:
    again = found.summary()
    for field in _FIELDS:
        if getattr(said, field) != getattr(again, field):
            yield f"{where}.{field} says {getattr(said, field):g}, the history says {getattr(again, field)}"
    yield from _bucket_differences(f"{where}.hdr", _counts(said), Counter(found.counts))


def _bucket_differences(where: str, said: Counter[int], found: Counter[int]) -> Iterator[str]:
    edges = sorted(edge for edge in said.keys() | found.keys() if said[edge] != found[edge])
    if edges:
        first = edges[0]
        yield (
            f"{where}: {len(edges)} buckets differ, the first at {first} µs: "
            f"it says {said[first]}, the history says {found[first]}"
        )


def _counts(recorded: Recorded) -> Counter[int]:
    """Return a recorded histogram's counts by the lower edge of their buckets."""
    if not recorded.count:
        return Counter()
    histogram = open_histogram(recorded)
    edge_us = histogram.get_value_from_index  # its own iterator takes fourteen times as long
    return Counter({edge_us(index): count for index, count in enumerate(histogram.counts) if count})


def generator_differences(generator: Generator, attempts: Sequence[Attempt], found: Found) -> Iterator[str]:
    """Yield every difference between the generator's word and the history, or its own samples."""
    planned = [a for a in first_places(attempts).values() if a.op == "place"]
    outcomes = Counter(map(outcome_of, planned))
    shown: set[str] = set()
    again: dict[str, object] = {
        "scheduled": outcomes.total(),
        "sent": outcomes.total() - outcomes["shed"] - outcomes["unsent"],
        "shed": outcomes["shed"],
        "unsent": outcomes["unsent"],
        "outcomes": dict(outcomes),
        "requests": sum(one.total for name, one in found.items() if name != PAID_TO_DELIVERED),
        "keys_shown": sum(len(a.keys) for a in attempts if first_sight(a, shown)),
    }
    if generator.cpu_samples:
        again["cpu_max"] = max(share for _, share in generator.cpu_samples)
    for name, value in again.items():
        said = getattr(generator, name)
        if said is not None and said != value:
            yield f"generator.json: {name} says {said}, the history says {value}"
    yield from _read_lag_differences(generator, attempts)


def _read_lag_differences(generator: Generator, attempts: Sequence[Attempt]) -> Iterator[str]:
    buckets, said = Buckets(), generator.read_lag_us
    buckets.add_all(read_lags(attempts))
    if (said.replies if said else 0) != buckets.total:
        yield f"generator.json: read_lag_us says {said}, the history has {buckets.total} such replies"
    elif said is not None:
        again = buckets.summary()
        # Of several processes each percentile is the worst part's, which the whole cannot exceed.
        for name in ("max",) if generator.processes > 1 else ("p50", "p99", "max"):
            if getattr(said, name) != getattr(again, name):
                yield (
                    f"generator.json: read_lag_us.{name} says {getattr(said, name):g}, "
                    f"the history says {getattr(again, name)}"
                )
