"""The judgement of a run, from the files in its directory alone, so that anyone can judge it again.

The verdict is the gravest that any rule of ``RULES`` argues for: **wrong** (an invariant is broken) beats
**void** (the run cannot be judged) beats **slow** (a budget is missed) beats **pass**. Wrong comes first
because a broken invariant is true however badly the load was made; void comes before slow because a latency
measured by a generator that was itself late says nothing of the shop.

``record.run_files`` reads, ``judge`` decides without I/O; ``loadtests.verify`` judges again and names every difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from loadtests import checkers
from loadtests.checkers import non_vacuity
from loadtests.record import fitness, identity
from loadtests.record.evidence import Finding
from loadtests.record.figures import (
    costs,
    gaps,
    keys,
    latencies,
    offered,
    orders,
    outcomes,
    paid_to_delivered,
    place_answers,
    rates,
    read_lag_p99_us,
    read_lags,
    sale_window,
    wake_lag_p99_us,
)
from loadtests.record.groups import amplified, groups
from loadtests.record.history import Attempt
from loadtests.record.latency import latency_of_values, most_at_p99
from loadtests.record.memory import grown, growth
from loadtests.record.run_files import RunFiles, Unjudgeable
from loadtests.record.stock_locust import stock_locust
from loadtests.record.summary import (
    EXIT_CODE,
    SCHEMA,
    GeneratorHealth,
    Identity,
    Latency,
    Summary,
    Verdict,
)
from loadtests.record.unserved import put_off

HTTP_INTERNAL_ERROR: Final = 500
EXPIRY_LATE_MOST_MS: Final = 1_000  # unpaid units come back so soon after their time

# An invariant that looked at nothing proves nothing;
# these may, where the scenario does not want what they look at.
_MAY_BE_EMPTY: Final = {
    "one_key_one_buyer": "delivery",
    "refusals_changed_nothing": "sold_out",
    "no_order_lost": "delivery",
}


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at."""

    files: RunFiles
    findings: list[Finding]
    vacuity: Finding
    firsts: dict[int, Attempt]
    identity: Identity
    latency_us: dict[str, Latency]
    accepted_per_s: float
    wake_lag_p99_us: int
    read_lag_p99_us: int | None  # None: not measured

    @property
    def reported(self) -> Latency:
        """The latency that the run is about."""
        accepted = self.latency_us["accepted"]
        return accepted if accepted.count else max(self.latency_us.values(), key=lambda latency: latency.count)


# --- the rules, gravest first -------------------------------------------------------------------------------


def _broken(case: _Case) -> Iterable[str]:
    for finding in case.findings:
        if finding.holds is False:
            more = f" ({len(finding.violations) - 1} more)" if len(finding.violations) > 1 else ""
            yield f"{finding.name}: {finding.violations[0]}{more}"


def _failed(case: _Case) -> Iterable[str]:
    answers = sum(attempt.status == HTTP_INTERNAL_ERROR for attempt in case.files.evidence.attempts)
    if answers:
        yield f"{answers} requests were answered 500: the server failed in a way it has no name for."


def _vacuous(case: _Case) -> Iterable[str]:
    yield from case.vacuity.violations
    for finding in case.findings:
        excuse = _MAY_BE_EMPTY.get(finding.name)
        if not finding.checked and finding.holds is not None and (excuse is None or excuse in case.files.run.wanted):
            yield f"{finding.name} found nothing to look at."


def _blind(case: _Case) -> Iterable[str]:
    if all(not finding.checked for finding in case.findings):
        yield "Nothing that must always hold could be checked."


def _generator_late(case: _Case) -> Iterable[str]:
    most_us = fitness.wake_lag_most_us(case.reported)
    return fitness.late(case.files.generator, case.wake_lag_p99_us, case.read_lag_p99_us, most_us)


def _generator_short(case: _Case) -> Iterable[str]:
    return fitness.short(case.files.generator, case.identity)


def _unaccounted(case: _Case) -> Iterable[str]:
    yield from identity.violations(case.identity, case.firsts)
    yield from fitness.contradicted(case.firsts.values())
    if case.identity.accepted and not case.latency_us["accepted"].count:
        yield f"{case.identity.accepted} orders were accepted, and histograms.json has no latency of theirs."


def _accident(case: _Case) -> Iterable[str]:
    for incident in case.files.run.incidents:
        if not incident.planned:
            yield f"At {incident.at_us / 1_000_000:.1f} s, unplanned: {incident.what}."


def _restless(case: _Case) -> Iterable[str]:
    if case.files.run.quiet_after_s is None:
        yield "The shop never became quiet, so the stores were read while they moved."


def _late(case: _Case) -> Iterable[str]:
    budgets = case.files.run.budgets
    for name, most_us in (
        ("accepted", budgets.accepted_p99_us),
        ("accepted_after_retry", budgets.accepted_after_retry_p99_us),
        ("sold_out", budgets.sold_out_p99_us),
        ("paid_to_delivered", budgets.paid_to_delivered_p99_us),
        *budgets.p99_us.items(),
    ):
        latency = case.latency_us.get(name, Latency())
        if most_us is None:
            continue
        if name in budgets.p99_us and not latency.count:
            yield f"{name} has a budget, and there was no such answer."
        if latency.p99 is not None and latency.p99 > most_us:
            yield f"{name} took {latency.p99 / 1000:.1f} ms at p99; the budget is {most_us / 1000:.1f} ms."
        elif latency.p99 is None and most_at_p99(latency) > most_us:
            yield (
                f"{name} may have taken {most_at_p99(latency) / 1000:.1f} ms at p99, which {latency.count} answers "
                f"cannot rule out; the budget is {most_us / 1000:.1f} ms."
            )


def _tardy(case: _Case) -> Iterable[str]:
    if case.files.run.incidents:
        return  # while a part is down nothing expires; that it does afterwards is an invariant
    pay_by = {order.id: order.pay_by_ms for order in case.files.evidence.postgres.orders}
    expired = [event for event in case.files.evidence.postgres.events if event.after == "expired"]
    late_ms = max((event.at_ms - pay_by.get(event.order_id, event.at_ms) for event in expired), default=0)
    if late_ms > EXPIRY_LATE_MOST_MS:
        yield f"Unpaid units came back {late_ms / 1000:.1f} s after their time; {EXPIRY_LATE_MOST_MS} ms is promised."


def _few(case: _Case) -> Iterable[str]:
    least = case.files.run.budgets.accepted_per_s
    if least is not None and case.accepted_per_s < least:
        yield f"{case.accepted_per_s:,.0f} orders a second were accepted; the budget is {least:,.0f}."


def _amplified(case: _Case) -> Iterable[str]:
    return amplified(case.files.run.budgets, groups(case.files.evidence.attempts))


def _unserved(case: _Case) -> Iterable[str]:
    return put_off(case.files.run.budgets, case.files.evidence.attempts)


def _grown(case: _Case) -> Iterable[str]:
    return grown(case.files.run.budgets, growth(case.files.timeline, sale_window(case.files.evidence.attempts)))


RULES: Final[tuple[tuple[Verdict, str, Callable[[_Case], Iterable[str]]], ...]] = (
    ("wrong", "an invariant is broken", _broken),
    ("wrong", "a request was answered 500", _failed),
    ("void", "the run never reached a state it exists for", _vacuous),
    ("void", "no invariant at all could be checked (one that was not checked is never counted as held)", _blind),
    (
        "void",
        f"the generator used more than {fitness.CPU_MOST:.0%} of a core, stood still, or was late to send or to read, "
        f"or its clocks off, over {fitness.WAKE_LAG_FLOOR_US // 1000} ms and {fitness.WAKE_LAG_SHARE:.0%} of its p99",
        _generator_late,
    ),
    ("void", "an arrival was shed, unsent, or is not in the history", _generator_short),
    ("void", "an arrival is not accounted for, or its instants contradict each other", _unaccounted),
    ("void", "a process died that nobody killed on purpose", _accident),
    ("void", "the shop never became quiet", _restless),
    ("slow", "a latency budget is missed", _late),
    ("slow", "a throughput budget is missed", _few),
    ("slow", "a group of clients asked more often than its budget", _amplified),
    ("slow", "more requests were put off or lost than the budget allows", _unserved),
    ("slow", "a part's memory grew beyond its budget", _grown),
    ("slow", f"unpaid units came back later than {EXPIRY_LATE_MOST_MS // 1000} s after their time", _tardy),
)
_GRAVITY: Final[tuple[Verdict, ...]] = ("wrong", "void", "slow")


# --- judging ------------------------------------------------------------------------------------------------


def judge(files: RunFiles) -> Summary:
    """Return the summary of a run with its verdict; its exit code is ``exit_code(summary)``.

    Raises:
        Unjudgeable: a histogram or an instant cannot be read.
    """
    run, generator, evidence = files.run, files.generator, files.evidence
    read_late_us = read_lags(evidence.attempts)
    window, firsts = sale_window(evidence.attempts), identity.first_places(evidence.attempts)
    try:
        latency_us, service_us = latencies(files.histograms), latencies(files.service)
        per_second = rates(evidence, window, run, generator.scheduled, firsts.values())
    except ValueError as error:
        raise Unjudgeable(f"histograms.json or run.json: {error}") from error
    if not latency_us["paid_to_delivered"].count:
        latency_us["paid_to_delivered"] = paid_to_delivered(evidence.postgres)
    case = _Case(
        files=files,
        findings=checkers.check_all(evidence),
        vacuity=non_vacuity.check(evidence),
        firsts=firsts,
        identity=identity.identity_of(generator.scheduled, firsts.values()),
        latency_us=latency_us,
        accepted_per_s=per_second.accepted_per_s,
        wake_lag_p99_us=max(wake_lag_p99_us(firsts.values(), evidence.attempts), round(generator.wake_lag_us.p99)),
        read_lag_p99_us=read_lag_p99_us(read_late_us, generator),
    )
    argued = [(verdict, reason) for verdict, _, rule in RULES for reason in rule(case)]
    verdict: Verdict = next((grave for grave in _GRAVITY if any(v == grave for v, _ in argued)), "pass")
    return Summary(
        schema=SCHEMA,
        run_id=run.run_id,
        scenario=run.scenario,
        seed=run.seed,
        started_at=run.started_at,
        git_commit=run.git_commit,
        machine=run.machine,
        verdict=verdict,
        reasons=[f"{says}: {reason}" for says, reason in argued],
        offered=offered(generator),
        outcomes=outcomes(evidence.attempts, firsts.values()),
        place_answers=place_answers(evidence.attempts),
        orders=orders(evidence),
        keys=keys(evidence),
        rates=per_second,
        latency_us=latency_us,
        service_us=service_us,
        gap_us=gaps(firsts.values()),
        read_lag_us=latency_of_values(read_late_us),
        stock_locust_us=stock_locust(firsts.values(), case.identity.scheduled / run.seconds),
        identity=case.identity,
        cost=costs(run.cpu_seconds, len(evidence.postgres.orders)),
        invariants=case.findings,
        non_vacuity=case.vacuity,
        reached=non_vacuity.reached(evidence),
        groups=groups(evidence.attempts),
        rss_growth_bytes=growth(files.timeline, window),
        generator=_health(case),
        window=window,
        budgets=run.budgets,
        asked={"rate": run.rate, "seconds": run.seconds, "stock": run.stock, "cold_skus": run.cold_skus},
        command=run.command,
        versions=run.versions,
        incidents=run.incidents,
        not_tested=[*run.not_tested, *_not_checked(case)],
        quiet_after_s=run.quiet_after_s,
    )


def _not_checked(case: _Case) -> Iterable[str]:
    evidence = case.files.evidence
    for finding in case.findings:
        if finding.holds is None:
            stores = " and ".join(sorted(checkers.needs(finding.name) & evidence.unread))
            yield f"{finding.name}: not checked, for nobody could look into {stores}."
    for name in non_vacuity.unseen(evidence):
        yield f"{name}: not looked for, since only postgres could show it."


def _health(case: _Case) -> GeneratorHealth:
    generator = case.files.generator
    reasons = [reason for rule in (_generator_late, _generator_short, _unaccounted) for reason in rule(case)]
    return GeneratorHealth(
        valid=not reasons,
        cpu_max=generator.cpu_max,
        wake_lag_us_p99=case.wake_lag_p99_us,
        read_lag_us_p99=case.read_lag_p99_us,
        reasons=reasons,
        stalls=len(generator.stalls),
        ceiling_per_s=generator.ceiling_per_s,
        ceiling_requests_per_s=generator.ceiling_requests_per_s,
        ceiling_found=generator.ceiling_found,
        processes=generator.processes,
        scheduling=generator.scheduling,
        clocks_within_us=max((clock.within_us for clock in generator.clocks), default=0),
    )


def exit_code(summary: Summary) -> int:
    """Return 0 for pass, 1 slow, 2 wrong, 3 void."""
    return EXIT_CODE[summary.verdict]
