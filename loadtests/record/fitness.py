"""Whether the load generator may be believed. Decided before the shop is: an unfit generator measures itself.

Every limit is here, and why. A reason is a sentence; without one the generator is fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loadtests.record.history import Attempt
from loadtests.record.summary import Generator, Identity, Latency

CPU_MOST: Final = 0.85  # share of its core in any quarter of a second: a queue at 85 % is already six times as long
WAKE_LAG_FLOOR_US: Final = 1_000  # p99 of wake lag, and of read lag, that is always forgiven
WAKE_LAG_SHARE: Final = 0.05  # … and beyond that, this share of the p99 it reports
SHED_MOST: Final = 0  # arrivals dropped because too many were under way
UNSENT_MOST: Final = 0  # arrivals due but not sent when the run was over
STALLS_MOST: Final = 0  # times it stood still for 50 ms or more: every answer that came meanwhile was timed wrong


def wake_lag_most_us(reported: Latency) -> float:
    """Return the most that wake lag, and read lag, may be at p99, given the latency that is reported.

    Where too few values allow no p99, the surest smaller figure counts: the lower end of its interval, or nothing.
    """
    p99 = reported.p99 if reported.p99 is not None else reported.interval_us.get("p99", (0, 0))[0]
    return max(WAKE_LAG_FLOOR_US, WAKE_LAG_SHARE * p99)


def late(generator: Generator, wake_lag_p99_us: int, read_lag_p99_us: int | None, most_us: float) -> Iterable[str]:
    """Yield why the generator was too slow to be believed; a read lag of None was not measured."""
    if generator.cpu_max > CPU_MOST:
        yield f"The generator used {generator.cpu_max:.0%} of a core; above {CPU_MOST:.0%} it sees itself."
    if wake_lag_p99_us > most_us:
        yield (
            f"The generator was {wake_lag_p99_us / 1000:.1f} ms late at p99; "
            f"{most_us / 1000:.1f} ms is the most that can be believed."
        )
    if read_lag_p99_us is not None and read_lag_p99_us > most_us:
        yield (
            f"The generator was {read_lag_p99_us / 1000:.1f} ms late at p99 to read replies that had arrived; "
            f"{most_us / 1000:.1f} ms is the most that can be believed."
        )
    if len(generator.stalls) > STALLS_MOST:
        longest_us = max(length_us for _, length_us in generator.stalls)
        yield f"The generator stood still {len(generator.stalls)} times, once for {longest_us / 1000:.0f} ms."
    yield from apart(generator, most_us)


def apart(generator: Generator, most_us: float) -> Iterable[str]:
    """Yield which host's instants cannot be set beside the others': what is unsure of them is as bad as being late."""
    for clock in generator.clocks:
        if clock.within_us > most_us:
            drifted = f", and it drifted by {clock.drift_us / 1000:+.1f} ms" if clock.drift_us else ""
            yield (
                f"The clock of worker {clock.worker} is known to {clock.within_us / 1000:.1f} ms only{drifted}; "
                f"{most_us / 1000:.1f} ms is the most that can be believed: a nearer network, or clocks held by NTP."
            )


def short(generator: Generator, identity: Identity) -> Iterable[str]:
    """Yield which arrivals the generator did not send, by its own word or by the history's."""
    if max(generator.shed, identity.shed) > SHED_MOST:
        yield f"{identity.shed} of {identity.scheduled} arrivals were shed: too many were under way."
    if max(generator.unsent, identity.unsent) > UNSENT_MOST:
        yield f"{identity.unsent} of {identity.scheduled} arrivals were never sent."
    if generator.sent + generator.shed + generator.unsent != generator.scheduled:
        yield (
            f"{generator.scheduled} arrivals were scheduled, but {generator.sent} sent "
            f"+ {generator.shed} shed + {generator.unsent} unsent is another number."
        )
    if generator.crashed:
        yield f"{generator.crashed} arrivals ended by a fault of generator or adapter; logs/locust.log has the first."
    elif not generator.complete:
        yield "The generator did not run the whole of its plan."
    written = identity.accounted() - identity.shed - identity.unsent
    if written != generator.sent:
        yield f"The generator says {generator.sent} arrivals were sent; the history has {written}."


def contradicted(attempts: Iterable[Attempt]) -> Iterable[str]:
    """Yield how many attempts have instants that cannot be: waits and lateness must add up to when it was sent."""
    wrong = sum(
        1
        for a in attempts
        if a.sent_us and (min(a.waited_us, a.connect_us, a.wake_lag_us) < 0 or a.done_us < a.sent_us)
    )
    if wrong:
        yield f"{wrong} requests were sent before they were due, or waited for longer than there was time."
