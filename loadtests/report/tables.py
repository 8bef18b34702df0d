"""The page's tables, each from the summary alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from loadtests.record.fitness import CPU_MOST
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import GeneratorHealth, Latency, Summary
from loadtests.report.charts import Chart, shown
from loadtests.report.page import Html, duration, figures, items, number, safe, table

_MAIN: Final = ("accepted", "sold_out", "paid_to_delivered", "replayed")
CHART_ROWS_MOST: Final = 13
_PERCENTILES: Final = ("p50", "p90", "p99", "p999")


def headline(summary: Summary) -> Html:
    """Return the large figures at the top."""
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


def offered(summary: Summary) -> Html:
    """Return offered against achieved."""
    offered, rates, asked = summary.offered, summary.rates, summary.asked
    return table(
        "What the schedule wanted and what was sent",
        ["Load", "offered", "achieved"],
        [
            ("arrivals / s", number(rates.offered_per_s, 1), number(rates.achieved_per_s, 1)),
            ("arrivals", number(offered.scheduled), number(offered.sent)),
            ("seconds", number(asked.get("seconds"), 1), number(summary.window.seconds, 1)),
            ("shed (too many under way)", number(0), number(offered.shed)),
            ("never sent (the run was over)", number(0), number(offered.unsent)),
        ],
        numeric=(1, 2),
    )


def identity(summary: Summary) -> Html:
    """Return what became of every scheduled arrival, and whether the sum is right."""
    counts = summary.identity
    rows: list[tuple[object, ...]] = [("accepted", number(counts.accepted))]
    rows += [(f"refused: {code}", number(times)) for code, times in list(counts.refused.items())[:20]]
    rest = list(counts.refused.values())[20:]
    if rest:
        rows.append((f"refused: {len(rest):,} other codes", number(sum(rest))))
    for name in ("failed", "unknown", "timed_out", "shed", "unsent"):
        rows.append((name.replace("_", " "), number(getattr(counts, name))))
    accounted = counts.accounted()
    same = "the same" if accounted == counts.scheduled else "NOT the same"
    rows.append((Html("<strong>sum</strong>"), number(accounted)))
    rows.append((Html(f"<strong>scheduled</strong> ({same})"), number(counts.scheduled)))
    return table("What became of every scheduled arrival, by its first request", ["Arrivals", "number"], rows, (1,))


def outcomes(summary: Summary) -> Html:
    """Return how place requests ended."""
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


_FOUND: Final[dict[bool | None, str]] = {
    True: '<span class="mood pass">holds</span>',
    False: '<strong class="mood wrong">broken</strong>',
    None: '<span class="mood void">not checked</span>',
}


def invariants(summary: Summary) -> Html:
    """Return what must always hold."""
    rows = []
    for finding in summary.invariants:
        says = _FOUND[finding.holds]
        rows.append((finding.name.replace("_", " "), Html(says + items(finding.violations)), number(finding.checked)))
    return table(
        "What must always hold, and how many things were looked at", ["Invariant", "finding", "checked"], rows, (2,)
    )


def reached(summary: Summary) -> Html:
    """Return how often the interesting things happened."""
    rows = [(name.replace("_", " "), number(count)) for name, count in summary.reached.items()]
    missing = items(summary.non_vacuity.violations)
    return Html(table("How often the interesting things happened", ["Thing", "times"], rows, (1,)) + missing)


def groups(summary: Summary) -> Html:
    """Return what each group of clients did, or nothing where the scenario has none."""
    if not summary.groups and not summary.budgets.rss_growth_bytes:
        return Html("")
    rows = [
        (
            name.replace("_", " "),
            number(group.arrivals),
            number(group.requests),
            number(group.requests_per_arrival, 2),
            number(group.accepted),
            number(group.busiest_s),
        )
        for name, group in summary.groups.items()
    ]
    head = ["Clients", "arrivals", "requests", "requests an arrival", "got an order", "busiest second"]
    told = table("Groups of clients side by side: places, retries and all", head, rows, (1, 2, 3, 4, 5)) if rows else ""
    grew = [(role, number(came / 2**20, 1)) for role, came in summary.rss_growth_bytes.items()]
    memory = table("Memory that came on from the second quarter of the sale to the last", ["Part", "MiB"], grew, (1,))
    return Html(told + (memory if summary.budgets.rss_growth_bytes else ""))


def latencies(summary: Summary) -> Html:
    """Return both latencies side by side, with their confidence intervals."""
    main = [name for name in _MAIN if name in summary.latency_us]
    rest = [name for name in summary.latency_us if name not in _MAIN]
    caption = (
        "From the instant the plan intended, and from the send. Small: 95 % confidence interval (order statistics). "
        "–: fewer than 100 values lie beyond it"
    )
    first = _latencies(summary, main, caption)
    if not rest:
        return first
    more = _latencies(summary, rest, "The same of every other answer")
    return Html(f"{first}<details><summary>Every other answer</summary>{more}</details>")


def _latencies(summary: Summary, names: Sequence[str], caption: str) -> Html:
    rows: list[list[object]] = []
    for name in names:
        rows.append([name.replace("_", " "), "intended", *_percentiles(summary.latency_us[name])])
        if name in summary.service_us and summary.service_us[name].count:
            rows.append(["", "send", *_percentiles(summary.service_us[name])])
    head = ["Answer", "from", "p50", "p90", "p99", "p99.9", "max", "count"]
    return table(caption, head, rows, numeric=(2, 3, 4, 5, 6, 7))


def _percentiles(latency: Latency) -> list[object]:
    if not latency.count:
        return [*["–"] * 5, number(0)]
    cells = [_with_interval(getattr(latency, name), latency.interval_us.get(name)) for name in _PERCENTILES]
    return [*cells, duration(latency.max), number(latency.count)]


def _with_interval(us: int | None, interval: tuple[int, int] | None) -> Html:
    if us is None or interval is None:
        return Html(safe(duration(us)))
    low, high = (duration(edge) for edge in interval)
    return Html(f"{safe(duration(us))}<small>{safe(low)} – {safe(high)}</small>")


def locust(summary: Summary) -> Html:
    """Return what stock Locust would have said beside what is said here, and the gap between the two beginnings."""
    stock, accepted = summary.stock_locust_us, summary.latency_us["accepted"]
    rows: list[list[object]] = [
        ["accepted, from the intended instant", *_three(accepted), number(accepted.count)],
        [
            f"stock Locust, {stock.users:,} users, all outcomes in one",
            *(duration(us) for us in (stock.p50, stock.p99, stock.p999)),
            number(stock.count),
        ],
    ]
    told = {
        "backlog": "intended to sent: for a free connection or an earlier answer",
        "connect": "intended to sent: opening a connection",
        "wake_lag": "intended to sent: the generator's own",
    }
    for name, latency in summary.gap_us.items():
        rows.append([told.get(name, name), *_three(latency), number(latency.count)])
    return table(
        "What stock Locust would have said (a model: it forgets arrivals that are due while all its users wait)",
        ["Latency", "p50", "p99", "p99.9", "count"],
        rows,
        numeric=(1, 2, 3, 4),
    )


def _three(latency: Latency) -> list[str]:
    return [duration(us) for us in (latency.p50, latency.p99, latency.p999)]


def incidents(summary: Summary) -> Html:
    """Return what befell the processes."""
    if not summary.incidents:
        return Html('<p class="soft">Nothing was killed and nothing died.</p>')
    rows = [
        (n, f"{(i.at_us - summary.window.begin_us) / 1_000_000:.1f} s", i.what, "planned" if i.planned else "unplanned")
        for n, i in enumerate(shown(summary), 1)
    ]
    return table(
        "What befell the processes; the numbers are the marks in the charts", ["No.", "at", "what", "meant"], rows
    )


def orders(summary: Summary) -> Html:
    """Return where orders and keys are."""
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


def cost(summary: Summary) -> Html:
    """Return what an accepted order cost."""
    cost = summary.cost
    values = (
        cost.server_cpu_us_per_order,
        cost.worker_cpu_us_per_order,
        cost.valkey_cpu_us_per_order,
        cost.postgres_cpu_us_per_order,
    )
    return table(
        "CPU for each accepted order, refusals and all else included (µs)",
        ["server", "worker", "Valkey", "PostgreSQL"],
        [[number(value, 1) for value in values]],
        numeric=(0, 1, 2, 3),
    )


def generator(summary: Summary, files: RunFiles) -> Html:
    """Return whether the generator may be believed, and why."""
    health, lag, quiet = summary.generator, summary.gap_us["wake_lag"], summary.quiet_after_s
    longest = max((length_us for _, length_us in files.generator.stalls), default=0)
    signs = table(
        "The load generator's own health",
        ["Sign", "found"],
        [
            ("believable", "yes" if health.valid else "no: the run is void"),
            (f"most CPU of one core in any sample (limit {CPU_MOST:.0%})", f"{health.cpu_max:.0%}"),
            ("samples of its CPU", number(len(files.generator.cpu_samples))),
            ("woke up late, p50", duration(lag.p50)),
            ("woke up late, p99", duration(health.wake_lag_us_p99)),
            ("woke up late, most", duration(lag.max)),
            *_read_late(summary),
            (
                "stood still for 50 ms or more",
                f"{health.stalls:,} × up to {duration(longest)}" if health.stalls else "never",
            ),
            ("its ceiling: all of it, this scenario, a null server, a core of its own", _ceiling(health)),
            ("processes", f"{health.processes}{', ' + health.scheduling if health.scheduling else ''}"),
            ("the shop was quiet after", "never" if quiet is None else f"{quiet:.1f} s"),
        ],
        numeric=(1,),
    )
    return Html(items(health.reasons) + signs + _workers(files))


def _workers(files: RunFiles) -> str:
    """Return who played, where, and how each one's instants came onto one axis; nothing for a run of one process."""
    rows = [
        (
            str(clock.worker),
            f"{clock.machine.cpu}, {clock.machine.cores} cores, {clock.machine.kernel}",
            "the master's own" if clock.same else f"{clock.offset_us / 1e6:+,.6f} s",
            "exact" if clock.same else f"± {duration(clock.within_us)}",
            "none" if clock.same else f"{clock.drift_us:+,} µs",
        )
        for clock in files.generator.clocks
    ]
    head = ["Worker", "machine", "monotonic clock beside the master's", "known to", "drift"]
    return table("Who played, and how instants came onto one axis", head, rows, numeric=(2, 3, 4)) if rows else ""


def _read_late(summary: Summary) -> list[tuple[object, ...]]:
    """Return how late replies were read that had arrived; a kernel that stamps nothing is told, never a zero."""
    read, p99_us = summary.read_lag_us, summary.generator.read_lag_us_p99
    if p99_us is None:
        return [("read replies late", "not measured: the kernel gave no stamp of any reply")]
    return [
        ("replies looked at in the kernel", number(read.count)),
        ("read replies late, p50", duration(read.p50)),
        ("read replies late, p99", duration(p99_us)),
        ("read replies late, most", duration(read.max)),
    ]


def _ceiling(health: GeneratorHealth) -> str:
    if health.ceiling_per_s is None:
        return "not measured"
    least = "" if health.ceiling_found else "at least "
    return f"{least}{health.ceiling_per_s:,.0f} arrivals / s ({health.ceiling_requests_per_s or 0:,.0f} requests / s)"


def again(summary: Summary) -> Html:
    """Return how to run it again."""
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


_UNITS: Final[dict[str, Callable[[float], str]]] = {
    "us": duration,
    "share": lambda value: f"{value:.1%}",
    "bytes": lambda value: f"{value / 1_048_576:,.0f} MiB",
    "number": lambda value: f"{value:,.4g}",
}


def chart_numbers(chart: Chart) -> Html:
    """Return a chart as a table of a few rows, evenly picked."""
    said = _UNITS[chart.unit]
    steps = min(CHART_ROWS_MOST, len(chart.at)) - 1
    picked = [round(n * (len(chart.at) - 1) / steps) for n in range(steps + 1)] if steps > 0 else [0]
    rows = [
        [
            f"{100 - 100 / chart.at[n]:.6g} %" if chart.x == "nines" else f"{chart.at[n]:.1f} s",
            *("–" if (value := line.values[n]) is None else said(value) for line in chart.lines),
        ]
        for n in picked
    ]
    head = ["percentile" if chart.x == "nines" else "at", *(line.name for line in chart.lines)]
    return table(chart.title, head, rows, numeric=tuple(range(len(head))))


def chart_told(chart: Chart) -> str:
    """Return what a screen reader says for a chart: each line's span."""
    said = _UNITS[chart.unit]
    spans = []
    for line in chart.lines:
        known = [value for value in line.values if value is not None]
        spans.append(f"{line.name} {said(min(known))} to {said(max(known))}" if known else f"{line.name} none")
    return f"{chart.title}: {'; '.join(spans)}."[:1_000]
