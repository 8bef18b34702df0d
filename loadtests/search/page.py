"""``sweep.html``: a sweep on one offline page; it asks nobody for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests import report
from loadtests.report.page import Html, figure, figures, items, number, safe, table
from loadtests.search.picture import latency_against_load, throughput_against_concurrency
from loadtests.search.result import Level, Sweep, exit_code, sentence
from loadtests.search.sketch import found, law_line, p99_said

NAME: Final = "sweep.html"
_STYLE: Final = Path(report.__file__).with_name("report.css")
_OWN_STYLE: Final = (
    ".thin { stroke-width: 1; } h1.answer { font-size: clamp(1.5rem, 5vw, 2.3rem); line-height: 1.2; }\n"
)
_MOOD: Final = {0: "pass", 1: "slow", 3: "void"}


def render(sweep: Sweep) -> str:
    """Return the page."""
    parts = [
        _head(sweep),
        _section("Latency against load", _latency(sweep)),
        _section("Why not double?", _limiter(sweep)),
        _section("How it scales", _law(sweep)),
        _section("Every trial", _trials(sweep)),
        _section("How it was judged", _method(sweep)),
        _section("What was not tested", items(sweep.not_tested, 40)),
        _section("Run it again", _again(sweep)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{safe(f'sweep · {sweep.scenario} · {sweep.run_id}')}</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}{_OWN_STYLE}</style>\n</head>\n<body>\n{''.join(parts)}"
        "<footer>The same as data: <code>sweep.json</code>; the raw history of every trial lies beside it.</footer>\n"
        "</body>\n</html>\n"
    )


def write(directory: Path, sweep: Sweep) -> Path:
    """Write the page into a sweep's directory, whole or not at all, and return its path."""
    path = directory / NAME
    whole = path.with_name(NAME + ".new")
    whole.write_text(render(sweep), encoding="utf-8")
    whole.replace(path)
    return path


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{safe(title)}</h2>\n{chr(10).join(parts)}\n</section>\n"


def _head(sweep: Sweep) -> str:
    answer = sweep.answer
    large = figures(
        [
            ("arrivals / s that keep the budget", number(answer.rate)),
            ("the next rate tried, not kept", number(answer.above)),
            ("knee, arrivals / s", number(sweep.knee)),
            ("limiter", sweep.limiter.name),
            ("trials", number(len(sweep.trials))),
        ]
    )
    return (
        f'<header class="verdict {_MOOD[exit_code(answer)]}">\n'
        f'<p class="soft">flashproof sweep · {safe(sweep.scenario)}</p>\n'
        f'<h1 class="mood answer">{safe(sentence(answer, sweep.budget))}</h1>\n'
        f'<p class="soft"><span class="id">{safe(sweep.run_id)}</span> · {safe(sweep.started_at)}</p>\n'
        f"</header>\n{large}"
    )


def _latency(sweep: Sweep) -> Html:
    svg = latency_against_load(sweep.levels, sweep.budget.p99_us, sweep.knee, sweep.answer.rate)
    chart = figure("Accepted orders, from the instant each was due", svg, ["p50", "p99, with its 95 % interval"])
    rows = [
        (
            f"{one.rate:,.0f}/s",
            _ms(one, one.p50_us),
            _ms(one, one.p99_us) if one.p99_sure else "–",
            p99_said(one),
            number(one.orders),
            f"{one.errors:.2%}" if one.orders else "–",
            f"{one.passes} / {one.fails} / {one.voids}",
            found(one),
        )
        for one in sweep.levels
    ]
    head = ["Rate", "p50, ms", "p99, ms", "its 95 %, ms", "orders", "errors", "pass / fail / void", "found"]
    return Html(
        (chart if svg else "")
        + table("The judged trials of each rate, pooled (≤: a late generator's time is in it)", head, rows, range(1, 6))
    )


def _ms(level: Level, value_us: int) -> str:
    """Return a latency; "≤": the generator was late, and that is in it."""
    return f"{'≤ ' if level.inflated else ''}{value_us / 1000:,.1f}" if level.orders else "–"


def _limiter(sweep: Sweep) -> Html:
    rows = [
        (one.what[0].upper() + one.what[1:], one.kind, *(_share(value) for value in (one.kept, one.now, one.double)))
        for one in sweep.limiter.resources
    ]
    head = ["What could run out", "kind", "at the answer", "at the highest load", "twice the answer"]
    note = (
        "A utilisation is a share of all there is of it; a wait is a share of the p99 budget. What twice the answer "
        "would take is a straight line through the trials that kept the budget; a dash: not measured or not foretold."
    )
    said = items([f"Limiter: {sweep.limiter.name}.", *sweep.limiter.sentences])
    return Html(said + table("Evidence", head, rows, (2, 3, 4)) + f'<p class="soft">{safe(note)}</p>')


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _law(sweep: Sweep) -> Html:
    points = [one.figures.point for one in sweep.trials if one.figures and one.judgement != "void"]
    fit = sweep.law
    svg = throughput_against_concurrency(points, fit.law if fit else None)
    legend = ["trials", "universal scalability law"] if fit else ["trials"]
    source = (
        "The universal scalability law is N. J. Gunther's (Guerrilla Capacity Planning, 2007); σ is contention, κ "
        "coherency. Concurrency is by Little's law. In brackets: the middle 90 % of a bootstrap over the trials."
    )
    said = f"<p>{safe(law_line(fit, sweep.law_why_not))}</p><p class='soft'>{safe(source)}</p>"
    return Html((figure("Throughput against requests under way", svg, legend) if svg else "") + said)


def _trials(sweep: Sweep) -> Html:
    rows = [
        (
            one.number,
            f"{one.rate:,.0f}/s",
            Html(f'<span class="mood {_TRIAL_MOOD[one.judgement]}">{one.judgement}</span>'),
            one.why,
            "–" if one.figures is None else f"{one.figures.generator_cpu:.0%}",
            "–" if one.figures is None else f"{one.figures.wake_lag_p99_us / 1000:,.1f}",
        )
        for one in sweep.trials
    ]
    head = ["No.", "rate", "judged", "because", "generator CPU", "wake lag p99, ms"]
    return table("In the order made", head, rows, (0, 1, 4, 5))


_TRIAL_MOOD: Final = {"pass": "pass", "fail": "wrong", "void": "void"}


def _method(sweep: Sweep) -> Html:
    budget, bounds = sweep.budget, sweep.bounds
    return items(
        [
            sweep.method,
            f"Budget: at most 1 % of the accepted orders of a trial over {budget.p99_us / 1000:g} ms from the instant "
            f"they were due, and at most {budget.errors:.2%} of its arrivals without a decision.",
            "A trial that breaks the budget while the generator was unfit is void, and never counts against the shop.",
            f"Searched from {bounds.lowest:,.0f} to {bounds.highest:,.0f}/s until the bracket was within a factor of "
            f"{bounds.tolerance:g}; {len(sweep.trials)} trials, {sweep.elapsed_s:.0f} s.",
        ]
    )


def _again(sweep: Sweep) -> Html:
    machine = sweep.machine
    rows = [
        ("commit", sweep.git_commit),
        ("machine", f"{machine.cpu}, {machine.cores} cores"),
        ("kernel", machine.kernel),
        ("python", machine.python),
        *sorted(sweep.versions.items()),
    ]
    command = f"<pre>{safe(sweep.command)}</pre>\n"
    if sweep.answer.rate is not None:
        command += f"<p>Whether everything stays right at that rate:</p><pre>{safe(sweep.again)}</pre>\n"
    return Html(command + table("Where it ran", ["What", "which"], rows))
