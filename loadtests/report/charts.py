"""What the charts of the page draw: titles, lines, marks.

Pure lists of numbers, which uPlot draws in the browser and ``flashproof verify`` computes again from the raw files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from loadtests.record.identity import first_places
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Incident, Summary
from loadtests.record.timeline import ROLES
from loadtests.report.page import TEXT_MOST
from loadtests.report.series import NINES, Series, Thinned, Values, over_time, spectrum, thinned

SPECTRUM_MOST: Final = 4  # kinds of answer in the spectrum
MARKS_MOST: Final = 50
BEFORE_US: Final = 1_000_000  # of the timeline: a second before the sale
AFTER_US: Final = 10_000_000  # and ten after it
_SPECTRUM_FIRST: Final = ("accepted", "sold_out", "paid_to_delivered", "replayed")
Unit = Literal["us", "share", "bytes", "number"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; ``colour`` is one of the page's seven."""

    name: str
    values: Values
    colour: int
    dashed: bool = False


class Chart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One chart, whole: what the browser needs and what a reader without eyes is told."""

    id: str
    title: str
    says: str  # how to read it
    x: Literal["seconds", "nines"]  # nines: 1 / (1 - quantile)
    unit: Unit
    at: list[float]
    lines: list[Line]
    log: bool = False
    step: bool = False  # a value holds until the next
    marks: list[tuple[float, str]] = []  # (second, number of the incident)
    bands: list[tuple[float, float]] = []  # (begin, end) in seconds
    budget: float | None = None  # at 99 %


def charts_of(summary: Summary, files: RunFiles) -> list[Chart]:
    """Return every chart of a run that has something to show, in the order of the page."""
    attempts = files.evidence.attempts
    series = over_time(attempts, first_places(attempts).values(), summary.window)
    time = thinned(files.timeline, summary.window, BEFORE_US, AFTER_US)
    marks = [(_seconds(i.at_us - series.begin_us), str(n)) for n, i in enumerate(shown(summary), 1)]
    found = [
        _answers(series, marks),
        _spectrum(files),
        _latency(series, marks),
        *_machine(summary, files, time, marks),
        *_inside(summary, time, marks),
        *_generator(summary, files, series),
    ]
    return [chart for chart in found if any(value is not None for line in chart.lines for value in line.values)]


def shown(summary: Summary) -> list[Incident]:
    """Return the incidents that are marked and named; more would be a wall."""
    return summary.incidents[:MARKS_MOST]


def _seconds(us: float) -> float:
    return round(us / 1_000_000, 3)


def _short(values: Iterable[float | None]) -> Values:
    """Return the values with four significant digits, all that a chart can show."""
    return [None if value is None else float(f"{value:.4g}") for value in values]


def _lines(pairs: Iterable[tuple[str, Sequence[float | None]]]) -> list[Line]:
    return [
        Line(name=name.replace("_", " ")[:TEXT_MOST], values=_short(values), colour=number % 7)
        for number, (name, values) in enumerate(pairs)
    ]


def _buckets(series: Series) -> list[float]:
    return [series.seconds(bucket) for bucket in range(len(series.p50_us))]


def _answers(series: Series, marks: list[tuple[float, str]]) -> Chart:
    offered = Line(name="offered", values=_short(series.offered), colour=5, dashed=True)
    return Chart(
        id="answers",
        title="Offered, and answers by outcome, a second",
        says="Offered: arrivals when the plan had them due. Outcomes: answers to place, retries too, when they came.",
        x="seconds",
        unit="number",
        at=_buckets(series),
        lines=[offered, *_lines(series.per_second.items())],
        step=True,
        marks=marks,
    )


def _latency(series: Series, marks: list[tuple[float, str]]) -> Chart:
    return Chart(
        id="latency",
        title="Accepted orders: latency over time",
        says="From the instant the plan intended; dashed: from the send, which leaves out the wait before it.",
        x="seconds",
        unit="us",
        log=True,
        at=_buckets(series),
        lines=[
            Line(name="p50 intended", values=_short(series.p50_us), colour=0),
            Line(name="p99 intended", values=_short(series.p99_us), colour=4),
            Line(name="p99 from the send", values=_short(series.service_p99_us), colour=1, dashed=True),
        ],
        marks=marks,
    )


def _spectrum(files: RunFiles) -> Chart:
    rest = [name for name in files.histograms if name not in _SPECTRUM_FIRST]
    names = [name for name in (*_SPECTRUM_FIRST, *rest) if name in files.histograms][:SPECTRUM_MOST]
    lines = []
    for colour, name in enumerate(names):
        for kind, recorded, dashed in (("", files.histograms, False), (" from the send", files.service, True)):
            points = spectrum(recorded[name]) if name in recorded else []
            if points:
                values: Values = [value for _, value in points]
                told = f"{name.replace('_', ' ')[:TEXT_MOST]}{kind}"
                lines.append(Line(name=told, values=_short(values), colour=(0, 2, 1, 3)[colour], dashed=dashed))
    longest = max((len(line.values) for line in lines), default=0)
    padded = [
        msgspec.structs.replace(line, values=line.values + [None] * (longest - len(line.values))) for line in lines
    ]
    return Chart(
        id="spectrum",
        title="Latency at every percentile",
        says="Both axes logarithmic; a line ends where ten values are left. Dashed: from the send.",
        x="nines",
        unit="us",
        log=True,
        at=[float(f"{nines:.6g}") for nines in NINES[:longest]],
        lines=padded,
        budget=files.run.budgets.accepted_p99_us,
    )


def _machine(summary: Summary, files: RunFiles, time: Thinned, marks: list[tuple[float, str]]) -> list[Chart]:
    at = [_seconds(at_us - summary.window.begin_us) for at_us in time.at_us]
    cores = files.run.machine.cores
    return [
        Chart(
            id="cpu",
            title="Processor by part",
            says=f"Share of one core, all processes of the part together; the machine has {cores} cores. "
            "Everything else does not belong to the run; where it is much, the figures are its figures too.",
            x="seconds",
            unit="share",
            at=at,
            lines=_lines(
                [
                    *((role, time.line(lambda s, r=role: s.cpu.get(r), _mean)) for role in ROLES),  # type: ignore[misc]
                    ("everything else", time.line(lambda s: s.gauges.get("others_cores"), _mean)),
                ]
            ),
            marks=marks,
        ),
        Chart(
            id="memory",
            title="Resident memory by part",
            says="All processes of the part together; memory they share is counted for each of them.",
            x="seconds",
            unit="bytes",
            at=at,
            lines=_lines((role, time.line(lambda s, r=role: s.rss_bytes.get(r))) for role in ROLES),  # type: ignore[misc]
            marks=marks,
        ),
    ]


def _inside(summary: Summary, time: Thinned, marks: list[tuple[float, str]]) -> list[Chart]:
    at = [_seconds(at_us - summary.window.begin_us) for at_us in time.at_us]

    def gauges(*named: tuple[str, str, float]) -> list[Line]:
        return _lines(
            (told, time.line(lambda s, g=gauge, u=unit: s.gauges[g] * u if g in s.gauges else None))  # type: ignore[misc]
            for told, gauge, unit in named
        )

    waits = (
        ("event loop late", "loop_lag_us", 1.0),
        ("script call", "batch_ms", 1e3),
        ("fsync", "fsync_us", 1.0),
        ("pool wait", "pool_wait_ms", 1e3),
        ("projector lag", "projector_lag_ms", 1e3),
    )
    busy = (("server's calls under way", "store_busy", 1.0), ("Valkey at work", "valkey_busy", 1.0))
    return [
        Chart(
            id="waits",
            title="Where time goes inside the shop",
            says="Lateness of the server's event loop, one script call, one fsync, the wait for a PostgreSQL "
            "connection, age of the oldest fact not projected. Zero is not drawn.",
            x="seconds",
            unit="us",
            log=True,
            at=at,
            lines=[
                msgspec.structs.replace(line, values=[value or None for value in line.values])
                for line in gauges(*waits)
            ],
            marks=marks,
        ),
        Chart(
            id="busy",
            title="How busy the store is",
            says="Share of time: a Valkey call of a server worker was under way; Valkey's event loop was at work; "
            "it was writing and syncing its append-only file.",
            x="seconds",
            unit="share",
            at=at,
            lines=gauges(*busy, ("in fsync", "fsync_share", 1.0)),
            marks=marks,
        ),
        Chart(
            id="batches",
            title="Batches and the journal",
            says="Orders in one script call on average; journal entries that PostgreSQL does not have yet.",
            x="seconds",
            unit="number",
            at=at,
            lines=gauges(("orders a call", "batch_orders", 1.0), ("entries not projected", "facts_waiting", 1.0)),
            marks=marks,
        ),
    ]


def _generator(summary: Summary, files: RunFiles, series: Series) -> list[Chart]:
    begin_us = summary.window.begin_us
    samples = sorted(files.generator.cpu_samples)  # of several processes: one after the other
    size = max(1, -(-len(samples) // 240))
    groups = [samples[at : at + size] for at in range(0, len(samples), size)]
    stalls = sorted(files.generator.stalls, key=lambda stall: -stall[1])[:MARKS_MOST]
    bands = sorted((_seconds(at_us - begin_us), _seconds(at_us + length_us - begin_us)) for at_us, length_us in stalls)
    return [
        Chart(
            id="generator",
            title="The generator's processor",
            says="Share of its core, the highest sample of each point; shaded: it stood still for 50 ms or more.",
            x="seconds",
            unit="share",
            at=[_seconds(group[0][0] - begin_us) for group in groups],
            lines=_lines([("generator", [max(share for _, share in group) for group in groups])]),
            bands=bands,
        ),
        Chart(
            id="lateness",
            title="From intended to sent, and to read what had come, p99",
            says="Wake lag and read lag are the generator's own lateness, at sending and at reading; backlog is the "
            "wait for a free connection or an earlier answer, the shop's; connect opens one. Zero is not drawn.",
            x="seconds",
            unit="us",
            log=True,
            at=_buckets(series),
            lines=_lines(
                (name, [value or None for value in values])
                for name, values in (
                    ("wake lag", series.wake_lag_us),
                    ("read lag", series.read_lag_us),
                    ("backlog", series.backlog_us),
                    ("connect", series.connect_us),
                )
            ),
            bands=bands,
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
