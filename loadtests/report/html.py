"""``report.html``: the whole run on one offline page that a sceptical operator believes.

The verdict and its rule come first, then what was offered and achieved, then every invariant with how much
it looked at. The page asks nobody for anything: no script, no font, no address, and a policy that would
refuse them. It is built from the summary and the raw files, so that it says nothing ``flashproof verify``
cannot compute again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.judge import RULES, RunFiles
from loadtests.record.summary import Incident, Latency, Summary, Verdict
from loadtests.report import chart
from loadtests.report.chart import duration
from loadtests.report.page import Html, figure, figures, items, number, safe, table
from loadtests.report.series import over_time, spectrum

NAME: Final = "report.html"
SPECTRUM_MOST: Final = 4  # lines of one spectrum chart
_STYLE: Final = Path(__file__).with_name("report.css")

_MEANING: Final[dict[Verdict, str]] = {
    "pass": "Every invariant holds, every budget is kept, and the run went where it gets interesting.",
    "slow": "Every invariant holds, but a budget was missed.",
    "wrong": "An invariant is broken: the shop did something it must never do.",
    "void": "This run cannot be judged. It says nothing for the shop and nothing against it.",
}
_NEVER_TESTED: Final = (
    "A power cut or a lying disk: a killed process leaves the operating system's cache alive.",
    "The network between machines: the load and the shop ran on one.",
    "A gateway that lies or loses its own ledger, and suppliers: the sandbox gateway is honest.",
    "A clock that steps, and a sale of more than one shard.",
)


def render(summary: Summary, files: RunFiles) -> str:
    """Return the page of a run."""
    style = _STYLE.read_text(encoding="utf-8")
    title = f"{summary.verdict.upper()} · {summary.scenario} · {summary.run_id}"
    parts = [
        _verdict(summary),
        _figures(summary),
        _section("Offered and achieved", _offered(summary), _outcomes(summary)),
        _section("Invariants", _invariants(summary), _reached(summary)),
        _section("Latency", _latencies(summary), _spectrum(files)),
        _section("Over time", _over_time(summary, files), _incidents(summary)),
        _section("Orders, keys and cost", _orders(summary), _cost(summary)),
        _section("Was the generator fit to judge?", _generator(summary, files)),
        _section("What was not tested", items([*summary.not_tested, *_NEVER_TESTED], 40)),
        _section("Run it again", _again(summary)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{''.join(parts)}"
        "<footer>Every number here can be computed again from the raw files beside this page: "
        "<code>flashproof verify DIR</code>.</footer>\n</body>\n</html>\n"
    )


def write(directory: Path, summary: Summary, files: RunFiles) -> Path:
    """Write the page into a run's directory, whole or not at all, and return its path."""
    path = directory / NAME
    whole = path.with_name(NAME + ".new")
    whole.write_text(render(summary, files), encoding="utf-8")
    whole.replace(path)
    return path


def _section(title: str, *parts: Html) -> str:
    return f"<section>\n<h2>{safe(title)}</h2>\n{chr(10).join(parts)}\n</section>\n"


def _verdict(summary: Summary) -> str:
    rule = table(
        "The verdict is the gravest that applies: wrong, then void, then slow, else pass.",
        ["Verdict", "when"],
        [(says, when) for says, when, _ in RULES] + [("pass", "nothing of the above")],
    )
    return (
        f'<header class="verdict {summary.verdict}">\n<p class="soft">flashproof prove · {safe(summary.scenario)}</p>\n'
        f'<h1 class="mood">{summary.verdict.upper()}</h1>\n<p>{_MEANING[summary.verdict]}</p>\n'
        f"{items(summary.reasons, 12)}\n"
        f"<details><summary>The rule of the verdict</summary>{rule}</details>\n"
        f'<p class="soft"><span class="id">{safe(summary.run_id)}</span> · {safe(summary.started_at)}</p>\n</header>\n'
    )


def _figures(summary: Summary) -> str:
    latency = summary.latency_us
    return figures(
        [
            ("orders sold / s", number(summary.rates.accepted_per_s)),
            ("refusals / s", number(summary.rates.refused_per_s)),
            ("keys delivered / s", number(summary.rates.delivered_per_s)),
            ("accepted, p99", duration(latency["accepted"].p99)),
            ("paid to delivered, p99", duration(latency["paid_to_delivered"].p99)),
            ("keys delivered twice", number(summary.keys.duplicated)),
        ]
    )


def _offered(summary: Summary) -> Html:
    offered, asked = summary.offered, summary.asked
    achieved = offered.sent / summary.window.seconds
    return table(
        "What the schedule wanted and what was sent",
        ["Load", "asked for", "achieved"],
        [
            ("attempts / s", number(asked.get("rate")), number(achieved)),
            ("seconds", number(asked.get("seconds"), 1), number(summary.window.seconds, 1)),
            ("arrivals", number(offered.scheduled), number(offered.sent)),
            ("shed, never sent", number(0), Html(f"{offered.shed:,}, {offered.unsent:,}")),
            ("keys of the hot product", number(asked.get("stock")), ""),
            ("cold products", number(asked.get("cold_skus")), ""),
        ],
        numeric=(1, 2),
    )


def _outcomes(summary: Summary) -> Html:
    sent = sum(summary.place_answers.values()) or 1
    rows = [
        (name, number(summary.outcomes.get(name, 0)), number(count), f"{count / sent:.1%}")
        for name, count in summary.place_answers.items()
    ]
    return table(
        "How place requests ended: the schedule's own, and with all retries",
        ["Outcome", "first requests", "all requests", "share"],
        rows,
        numeric=(1, 2, 3),
    )


def _invariants(summary: Summary) -> Html:
    rows = []
    for finding in summary.invariants:
        says = '<span class="mood pass">holds</span>' if finding.holds else '<strong class="mood wrong">broken</strong>'
        rows.append((finding.name.replace("_", " "), Html(says + items(finding.violations)), number(finding.checked)))
    return table(
        "What must always hold, and how many things were looked at", ["Invariant", "finding", "checked"], rows, (2,)
    )


def _reached(summary: Summary) -> Html:
    rows = [(name.replace("_", " "), number(count)) for name, count in summary.reached.items()]
    missing = items(summary.non_vacuity.violations)
    return Html(table("How often the interesting things happened", ["Thing", "times"], rows, (1,)) + missing)


def _latencies(summary: Summary) -> Html:
    rows = [(name.replace("_", " "), *_percentiles(latency)) for name, latency in summary.latency_us.items()]
    return table(
        "From the instant the plan intended; –: fewer than 100 values lie beyond it",
        ["Answer", "p50", "p90", "p99", "p99.9", "max", "count"],
        rows,
        numeric=(1, 2, 3, 4, 5, 6),
    )


def _percentiles(latency: Latency) -> list[object]:
    if not latency.count:
        return [*["–"] * 5, number(0)]
    cells = [duration(value) for value in (latency.p50, latency.p90, latency.p99, latency.p999)]
    return [*cells, duration(latency.max), number(latency.count)]


def _spectrum(files: RunFiles) -> Html:
    names = [name for name in ("accepted", "replayed", "sold_out", "paid_to_delivered") if name in files.histograms]
    lines = [(name, spectrum(files.histograms[name])) for name in names[:SPECTRUM_MOST]]
    lines = [(name, line) for name, line in lines if line]
    if not lines:
        return Html("")
    svg = chart.spectrum(lines, files.run.budgets.accepted_p99_us, "Latency at each percentile, both axes logarithmic")
    caption = "Latency spectrum: the share of requests that were faster"
    return figure(caption, svg, [name.replace("_", " ") for name, _ in lines])


def _over_time(summary: Summary, files: RunFiles) -> Html:
    series = over_time(files.evidence.attempts, summary.window)
    at_s = [series.seconds(bucket) for bucket in range(len(series.p50_us) + 1)]
    marks = [(incident.at_us - series.begin_us) / 1_000_000 for incident in _shown(summary)]
    bands = list(series.per_second.items())
    answers = chart.stacked(bands, at_s, marks, "Answers a second over the time of the sale, by outcome")
    lines = [("p50", series.p50_us), ("p99", series.p99_us)]
    took = chart.lines_over_time(lines, at_s, marks, "Latency of accepted orders over the time of the sale")
    return Html(
        figure("Answers a second", answers, [name.replace("_", " ") for name, _ in bands])
        + figure("Accepted orders: latency from the intended instant", took, ["p50", "p99"])
    )


def _shown(summary: Summary) -> list[Incident]:
    return summary.incidents[:50]


def _incidents(summary: Summary) -> Html:
    if not summary.incidents:
        return Html('<p class="soft">Nothing was killed and nothing died.</p>')
    rows = [
        (n, f"{(i.at_us - summary.window.begin_us) / 1_000_000:.1f} s", i.what, "planned" if i.planned else "unplanned")
        for n, i in enumerate(_shown(summary), 1)
    ]
    return table(
        "What befell the processes; the numbers are the marks in the charts", ["No.", "at", "what", "meant"], rows
    )


def _orders(summary: Summary) -> Html:
    orders, keys = summary.orders, summary.keys
    return table(
        "Orders that ever reached each state, and where the card keys are",
        ["Orders", "number", "Keys", "number"],
        [
            ("accepted", number(orders.accepted), "loaded", number(keys.loaded)),
            ("paid", number(orders.paid), "delivered", number(keys.delivered)),
            ("delivered", number(orders.delivered), "free", number(keys.free)),
            ("expired", number(orders.expired), "void", number(keys.void)),
            ("cancelled", number(orders.cancelled), "delivered twice", number(keys.duplicated)),
            ("refund due", number(orders.refund_due), "", ""),
            ("charges to give back", number(orders.refunds_due), "", ""),
        ],
        numeric=(1, 3),
    )


def _cost(summary: Summary) -> Html:
    cost = summary.cost
    return table(
        "CPU for each accepted order, refusals and all else included (µs)",
        ["server", "worker", "Valkey", "PostgreSQL"],
        [
            [
                number(value, 1)
                for value in (
                    cost.server_cpu_us_per_order,
                    cost.worker_cpu_us_per_order,
                    cost.valkey_cpu_us_per_order,
                    cost.postgres_cpu_us_per_order,
                )
            ]
        ],
        numeric=(0, 1, 2, 3),
    )


def _generator(summary: Summary, files: RunFiles) -> Html:
    lag = files.generator.wake_lag_us
    says = "yes" if summary.generator.valid else "no: the run is void"
    quiet = summary.quiet_after_s
    return table(
        "The load generator's own health",
        ["Sign", "found"],
        [
            ("believable", says),
            ("most CPU of one core in any sample", f"{summary.generator.cpu_max:.0%}"),
            ("woke up late, p50", duration(lag.p50)),
            ("woke up late, p99", duration(lag.p99)),
            ("woke up late, most", duration(lag.max)),
            ("the shop was quiet after", "never" if quiet is None else f"{quiet:.1f} s"),
        ],
        numeric=(1,),
    )


def _again(summary: Summary) -> Html:
    machine = summary.machine
    rows = [
        ("commit", summary.git_commit),
        ("seed", summary.seed),
        ("machine", f"{machine.cpu}, {machine.cores} cores"),
        ("kernel", machine.kernel),
        ("python", machine.python),
        *sorted(summary.versions.items()),
    ]
    command = f"<pre>{safe(summary.command)}</pre>\n"
    return Html(command + table("The same seed gives the same crowd", ["What", "which"], rows))
