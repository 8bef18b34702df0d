"""The judgement of a run, from the files in its directory alone, so that anyone can judge it again.

The verdict is the gravest that any rule of ``RULES`` argues for: **wrong** (an invariant is broken) beats
**void** (the run cannot be judged) beats **slow** (a budget is missed) beats **pass**. Wrong comes first
because a broken invariant is true however badly the load was made; void comes before slow because a latency
measured by a generator that was itself late says nothing of the shop.

``read_run`` reads, ``judge`` decides without I/O, ``verify`` judges again and names every difference to
``summary.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from core.errors import Fault
from loadtests import checkers
from loadtests.checkers import non_vacuity
from loadtests.record.evidence import Evidence, Finding, PostgresState, ValkeyState
from loadtests.record.figures import (
    costs,
    keys,
    latencies,
    offered,
    orders,
    outcomes,
    place_answers,
    rates,
    sale_window,
    sent_arrivals,
)
from loadtests.record.history import read, read_charges
from loadtests.record.summary import (
    EXIT_CODE,
    SCHEMA,
    Generator,
    GeneratorHealth,
    Latency,
    Recorded,
    Run,
    Summary,
    Verdict,
)

# --- the limits of a valid generator; issue "honest harness" makes them stricter ----------------------------

CPU_MOST: Final = 0.95  # share of one core; above it the generator measures its own queue
WAKE_LAG_FLOOR_US: Final = 20_000  # p99 of wake lag that is always forgiven
WAKE_LAG_SHARE: Final = 0.5  # … and beyond that, this share of the accepted p99
SHED_MOST: Final = 0  # arrivals dropped because too many were under way
HTTP_INTERNAL_ERROR: Final = 500
EXPIRY_LATE_MOST_MS: Final = 1_000  # unpaid units come back so soon after their time
UNSENT_MOST: Final = 0  # arrivals due but not sent when the run was over

# An invariant that looked at nothing proves nothing;
# these may, where the scenario does not want what they look at.
_MAY_BE_EMPTY: Final = {
    "one_key_one_buyer": "delivery",
    "refusals_changed_nothing": "sold_out",
    "no_order_lost": "delivery",
}


class Unjudgeable(Fault):
    """The run's files are missing or unreadable, so it cannot be judged."""

    code = "unjudgeable"


class RunFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run's directory holds."""

    run: Run
    generator: Generator
    histograms: dict[str, Recorded]
    evidence: Evidence


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at."""

    files: RunFiles
    findings: list[Finding]
    vacuity: Finding
    latency_us: dict[str, Latency]
    accepted_per_s: float
    wake_lag_most_us: float


# --- the rules, gravest first -------------------------------------------------------------------------------


def _broken(case: _Case) -> Iterable[str]:
    for finding in case.findings:
        if not finding.holds:
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
        if not finding.checked and (excuse is None or excuse in case.files.run.wanted):
            yield f"{finding.name} found nothing to look at."


def _generator_late(case: _Case) -> Iterable[str]:
    generator = case.files.generator
    if generator.cpu_max > CPU_MOST:
        yield f"The generator used {generator.cpu_max:.0%} of a core; above {CPU_MOST:.0%} it sees itself."
    if generator.wake_lag_us.p99 > case.wake_lag_most_us:
        yield (
            f"The generator woke up {generator.wake_lag_us.p99 / 1000:.1f} ms late at p99; "
            f"{case.wake_lag_most_us / 1000:.1f} ms is the most that can be believed."
        )


def _generator_short(case: _Case) -> Iterable[str]:
    generator = case.files.generator
    if generator.shed > SHED_MOST:
        yield f"{generator.shed} of {generator.scheduled} arrivals were shed: too many were under way."
    if generator.unsent > UNSENT_MOST:
        yield f"{generator.unsent} of {generator.scheduled} arrivals were never sent."
    if generator.sent + generator.shed + generator.unsent != generator.scheduled:
        yield (
            f"{generator.scheduled} arrivals were scheduled, but {generator.sent} sent "
            f"+ {generator.shed} shed + {generator.unsent} unsent is another number."
        )
    written = sent_arrivals(case.files.evidence.attempts)
    if written != generator.sent:
        yield f"The generator says {generator.sent} arrivals were sent; the history has {written}."


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
        ("sold_out", budgets.sold_out_p99_us),
        ("paid_to_delivered", budgets.paid_to_delivered_p99_us),
    ):
        p99 = case.latency_us[name].p99
        if most_us is not None and p99 > most_us:
            yield f"{name} took {p99 / 1000:.1f} ms at p99; the budget is {most_us / 1000:.1f} ms."


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


RULES: Final[tuple[tuple[Verdict, str, Callable[[_Case], Iterable[str]]], ...]] = (
    ("wrong", "an invariant is broken", _broken),
    ("wrong", "a request was answered 500", _failed),
    ("void", "the run never reached a state it exists for", _vacuous),
    (
        "void",
        f"the generator used more than {CPU_MOST:.0%} of a core, or woke up late by more than "
        f"{WAKE_LAG_FLOOR_US // 1000} ms and {WAKE_LAG_SHARE:.0%} of the accepted p99",
        _generator_late,
    ),
    ("void", "an arrival was shed, unsent, or is not in the history", _generator_short),
    ("void", "a process died that nobody killed on purpose", _accident),
    ("void", "the shop never became quiet", _restless),
    ("slow", "a latency budget is missed", _late),
    ("slow", "a throughput budget is missed", _few),
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
    window = sale_window(evidence.attempts)
    try:
        latency_us = latencies(files.histograms, evidence)
        per_second = rates(evidence, window, run.started_at)
    except ValueError as error:
        raise Unjudgeable(f"histograms.json or run.json: {error}") from error
    case = _Case(
        files=files,
        findings=checkers.check_all(evidence),
        vacuity=non_vacuity.check(evidence),
        latency_us=latency_us,
        accepted_per_s=per_second.accepted_per_s,
        wake_lag_most_us=max(WAKE_LAG_FLOOR_US, WAKE_LAG_SHARE * latency_us["accepted"].p99),
    )
    argued = [(verdict, reason) for verdict, _, rule in RULES for reason in rule(case)]
    verdict: Verdict = next((grave for grave in _GRAVITY if any(v == grave for v, _ in argued)), "pass")
    valid = not any(True for rule in (_generator_late, _generator_short) for _ in rule(case))
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
        outcomes=outcomes(evidence.attempts),
        place_answers=place_answers(evidence.attempts),
        orders=orders(evidence.postgres),
        keys=keys(evidence),
        rates=per_second,
        latency_us=latency_us,
        cost=costs(run.cpu_seconds, len(evidence.postgres.orders)),
        invariants=case.findings,
        non_vacuity=case.vacuity,
        reached=non_vacuity.reached(evidence),
        generator=GeneratorHealth(
            valid=valid, cpu_max=generator.cpu_max, wake_lag_us_p99=round(generator.wake_lag_us.p99)
        ),
        window=window,
        budgets=run.budgets,
        asked={"rate": run.rate, "seconds": run.seconds, "stock": run.stock, "cold_skus": run.cold_skus},
        command=run.command,
        versions=run.versions,
        incidents=run.incidents,
        not_tested=run.not_tested,
        quiet_after_s=run.quiet_after_s,
    )


def exit_code(summary: Summary) -> int:
    """Return 0 for pass, 1 slow, 2 wrong, 3 void."""
    return EXIT_CODE[summary.verdict]


# --- reading and writing ------------------------------------------------------------------------------------

_T = TypeVar("_T")


def _load(path: Path, kind: type[_T] | Any) -> _T:
    try:
        decoded: _T = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise Unjudgeable(f"{path.name} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unjudgeable(f"{path.name} is not what it should be: {error}") from error
    return decoded


def read_run(directory: Path) -> RunFiles:
    """Return what the directory of a run holds.

    Raises:
        Unjudgeable: a file is missing or broken.
    """
    run: Run = _load(directory / "run.json", Run)
    try:
        attempts = list(read(directory / "history.jsonl"))
        charges = list(read_charges(directory / "charges.jsonl"))
    except OSError as error:
        raise Unjudgeable(f"{Path(str(error.filename)).name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Unjudgeable(str(error)) from error
    return RunFiles(
        run=run,
        generator=_load(directory / "generator.json", Generator),
        histograms=_load(directory / "histograms.json", dict[str, Recorded]),
        evidence=Evidence(
            wanted=tuple(run.wanted),
            hot_sku=run.hot_sku,
            attempts=attempts,
            charges=charges,
            postgres=_load(directory / "postgres.json", PostgresState),
            valkey=_load(directory / "valkey.json", ValkeyState),
        ),
    )


def write_json(path: Path, value: Any) -> None:
    """Write a Struct as indented JSON, whole or not at all."""
    whole = path.with_name(path.name + ".new")
    whole.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    whole.replace(path)


def verify(directory: Path) -> list[str]:
    """Judge the run again and return every difference to its ``summary.json`` as a sentence.

    Raises:
        Unjudgeable: a file is missing or broken.
    """
    said: Summary = _load(directory / "summary.json", Summary)
    found = judge(read_run(directory))
    return list(_differences("", msgspec.to_builtins(said), msgspec.to_builtins(found)))


def _differences(where: str, said: Any, found: Any) -> Iterable[str]:
    if isinstance(said, dict) and isinstance(found, dict):
        for name in sorted(said.keys() | found.keys()):
            yield from _differences(f"{where}.{name}" if where else name, said.get(name), found.get(name))
    elif said != found:
        yield f"{where}: summary.json says {said!r}, the raw files say {found!r}"
