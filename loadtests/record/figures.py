"""The figures of a run, each computed from the raw evidence by one small pure function.

An arrival is one planned attempt of the schedule; its *first* place attempt is the one the schedule made,
everything after it (retries, the same click twice, another body under the same key) is a follow-up and is
counted apart, so that scheduled = Σ outcomes + shed + unsent holds to the last arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from core.clock import parse_iso8601
from loadtests.checkers import one_key_one_buyer
from loadtests.checkers.answers import has_order, is_refused, is_sent
from loadtests.record.counted import AFTERWARDS, outcome_of
from loadtests.record.evidence import Evidence, PostgresState
from loadtests.record.history import Attempt
from loadtests.record.latency import latency_of, latency_of_values, quantile
from loadtests.record.summary import (
    Cost,
    Generator,
    Keys,
    Latency,
    Offered,
    Orders,
    Rates,
    Recorded,
    Run,
    Window,
)

DECIDED_REFUSALS: Final = frozenset({"sold_out", "limit_reached", "sale_not_open", "sale_closed"})
LAGS_LEAST: Final = 1_000  # of one operation: ten beyond the p99
ALWAYS_SHOWN: Final = ("accepted", "sold_out", "paid_to_delivered")


def outcomes(attempts: Sequence[Attempt], firsts: Iterable[Attempt]) -> dict[str, int]:
    """Return how the arrivals' first attempts ended; ``replayed`` counts every retry answered so."""
    count = Counter(outcome_of(attempt) for attempt in firsts)
    count["replayed"] = sum(1 for a in attempts if a.op == "place" and a.outcome == "replayed")
    for name in ("accepted", "sold_out", "limit_reached", "unknown"):
        count.setdefault(name, 0)
    return dict(sorted(count.items(), key=lambda item: (-item[1], item[0])))


def place_answers(attempts: Iterable[Attempt]) -> dict[str, int]:
    """Return how every place attempt of the run ended, retries and all."""
    count = Counter(outcome_of(attempt) for attempt in attempts if attempt.op == "place")
    return dict(sorted(count.items(), key=lambda item: (-item[1], item[0])))


def offered(generator: Generator) -> Offered:
    """Return what the generator was to send and did."""
    return Offered(scheduled=generator.scheduled, sent=generator.sent, unsent=generator.unsent, shed=generator.shed)


def orders(evidence: Evidence) -> Orders:
    """Return how many orders ever reached each state: by PostgreSQL, else as far as buyers saw."""
    if "postgres" in evidence.unread:
        return _orders_seen(evidence.attempts)
    postgres = evidence.postgres
    reached = Counter(after for _, after in {(e.order_id, e.after) for e in postgres.events})
    return Orders(
        accepted=len(postgres.orders),
        paid=reached["paid"],
        delivered=reached["delivered"],
        expired=reached["expired"],
        cancelled=reached["cancelled"],
        refund_due=reached["refund_due"],
        refunds_due=sum(1 for p in postgres.payments if p.applied == "refund_due"),
    )


def _orders_seen(attempts: Sequence[Attempt]) -> Orders:
    def seen(*found: bool) -> int:
        return len({attempt.order_id for attempt, yes in zip(attempts, found, strict=True) if yes})

    def told(*words: str) -> int:
        return seen(*(a.op in ("pay", "track", "cancel") and a.result == "ok" and a.outcome in words for a in attempts))

    return Orders(
        accepted=seen(*(has_order(a) for a in attempts)),
        paid=told("paid", "late", "delivered"),
        delivered=seen(*(bool(a.keys) for a in attempts)),
        expired=told("expired"),
        cancelled=told("cancelled"),
        refund_due=told("refund_due"),
        refunds_due=told("refund_due"),
    )


def keys(evidence: Evidence) -> Keys:
    """Return where the card keys are."""
    products = evidence.postgres.products
    return Keys(
        loaded=sum(p.loaded for p in products),
        delivered=_keys_seen(evidence.attempts) if "postgres" in evidence.unread else len(evidence.postgres.deliveries),
        duplicated=one_key_one_buyer.duplicated(evidence),
        free=sum(p.free for p in products),
        void=sum(p.void for p in products),
    )


def _keys_seen(attempts: Iterable[Attempt]) -> int:
    return len({key for attempt in attempts for key in attempt.keys})


def sale_window(attempts: Iterable[Attempt]) -> Window:
    """Return from when to when the sale ran, on the history's clock."""
    begin, end = None, 0
    for attempt in attempts:
        if attempt.op == "place" and attempt.why not in AFTERWARDS and is_sent(attempt):
            begin = attempt.intended_us if begin is None else min(begin, attempt.intended_us)
            end = max(end, attempt.done_us)
    return Window(begin_us=begin or 0, end_us=max(end, begin or 0))


def rates(evidence: Evidence, window: Window, run: Run, scheduled: int, firsts: Collection[Attempt]) -> Rates:
    """Return what was offered, and what was sold, refused and delivered per second of the sale."""
    accepted = refused = 0
    seconds: Counter[int] = Counter()
    for attempt in evidence.attempts:
        if attempt.op != "place" or attempt.why in AFTERWARDS:
            continue
        if has_order(attempt) and attempt.outcome == "accepted":
            accepted += 1
            seconds[(attempt.done_us - window.begin_us) // 1_000_000] += 1
        elif is_refused(attempt) and attempt.outcome in DECIDED_REFUSALS:
            refused += 1
    start_ms = parse_iso8601(run.started_at)
    begin_ms, end_ms = start_ms + window.begin_us / 1000, start_ms + window.end_us / 1000
    delivered = sum(1 for d in evidence.postgres.deliveries if begin_ms <= d.delivered_ms <= end_ms)
    if "postgres" in evidence.unread:
        delivered = _keys_seen(a for a in evidence.attempts if a.done_us <= window.end_us)
    return Rates(
        accepted_per_s=round(accepted / window.seconds, 1),
        refused_per_s=round(refused / window.seconds, 1),
        delivered_per_s=round(delivered / window.seconds, 1),
        accepted_peak_per_s=float(max(seconds.values(), default=0)),
        offered_per_s=round(scheduled / run.seconds, 1),
        achieved_per_s=_achieved(firsts, run.seconds),
    )


def _achieved(firsts: Collection[Attempt], seconds: float) -> float:
    sent_us = [attempt.sent_us for attempt in firsts if is_sent(attempt)]
    return round(len(sent_us) / max(seconds, max(sent_us, default=0) / 1_000_000), 1)


def costs(cpu_seconds: dict[str, float], accepted: int) -> Cost:
    """Return the CPU each accepted order cost, by role."""

    def each(role: str) -> float | None:
        spent = cpu_seconds.get(role)
        return None if spent is None or not accepted else round(spent * 1_000_000 / accepted, 1)

    return Cost(
        server_cpu_us_per_order=each("server"),
        valkey_cpu_us_per_order=each("valkey"),
        postgres_cpu_us_per_order=each("postgres"),
        worker_cpu_us_per_order=each("worker"),
    )


def latencies(histograms: dict[str, Recorded]) -> dict[str, Latency]:
    """Return every histogram's percentiles, those always shown first.

    Raises:
        ValueError: one is no histogram; the message names it.
    """
    found: dict[str, Latency] = {}
    for name, recorded in histograms.items():
        try:
            found[name] = latency_of(recorded)
        except ValueError as error:
            raise ValueError(f"{name} is {error}") from error
    for name in ALWAYS_SHOWN:
        found.setdefault(name, Latency())
    first = {name: number for number, name in enumerate(ALWAYS_SHOWN)}
    return dict(sorted(found.items(), key=lambda item: (first.get(item[0], len(first)), item[0])))


def paid_to_delivered(postgres: PostgresState) -> Latency:
    """Return how long paid orders waited for their keys by the stores' own clocks, for runs where no buyer saw it."""
    paid_ms = {event.order_id: event.at_ms for event in postgres.events if event.after == "paid"}
    return latency_of_values(
        max(0, d.delivered_ms - paid_ms[d.order_id]) * 1000
        for d in postgres.deliveries
        if d.line == 1 and d.order_id in paid_ms
    )


def gaps(firsts: Iterable[Attempt]) -> dict[str, Latency]:
    """Return the three parts of what lies between intended and sent, over the arrivals that were sent.

    ``backlog``: every connection was busy, or an answer that had to come first came late: the shop's doing.
    ``connect``: a new one was opened, its kernel's and the way's. ``wake_lag``: all the rest, the generator's own. Of
    each arrival they add up to the last microsecond.
    """
    sent = [a for a in firsts if a.sent_us]
    return {
        "backlog": latency_of_values(a.waited_us for a in sent),
        "connect": latency_of_values(a.connect_us for a in sent),
        "wake_lag": latency_of_values(a.wake_lag_us for a in sent),
    }


def wake_lag_p99_us(firsts: Iterable[Attempt], attempts: Iterable[Attempt] = ()) -> int:
    """Return the p99 of wake lag of the arrivals, or of the worst operation: a payment sent late was timed wrong too.

    That of the arrivals whatever their number, for validity is asked of small runs too; that of an operation only if
    there were enough for a p99 that is not a single one's.
    """
    by_op: dict[str, list[int]] = {}
    for attempt in attempts:
        if attempt.sent_us and attempt.why not in AFTERWARDS:
            by_op.setdefault(attempt.op, []).append(attempt.wake_lag_us)
    many = [lags for lags in by_op.values() if len(lags) >= LAGS_LEAST]
    few = [a.wake_lag_us for a in firsts if a.sent_us]
    return max(quantile(sorted(lags), 0.99) for lags in [few, *many])


def read_lags(attempts: Iterable[Attempt]) -> list[int]:
    """Return how late the replies that were looked at were read, in µs, ascending; nothing: it was not measured."""
    return sorted(a.read_late_us for a in attempts if a.read_late_us is not None)


def read_lag_p99_us(read_late_us: list[int], generator: Generator) -> int | None:
    """Return the p99 by the history or by the generator's own word, whichever is worse; None: not measured."""
    said = [] if generator.read_lag_us is None else [round(generator.read_lag_us.p99)]
    return max([*said, *([quantile(read_late_us, 0.99)] if read_late_us else [])], default=None)
