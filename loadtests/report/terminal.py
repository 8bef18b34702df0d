"""The last words of a run: what it is worth and why, on one screen of 80 by 24, with colour or without."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group
from rich.text import Text

from loadtests.record.summary import EXIT_CODE, Identity, Keys, Summary, Verdict
from loadtests.report.page import duration

LINES_MOST: Final = 22  # of 24: the prompt and the command before it want theirs
REASONS_MOST: Final = 3
LESS: Final = 0.5  # of the rate, to be tried where the generator was too slow
_COLOUR: Final[dict[Verdict, str]] = {"pass": "green", "slow": "yellow", "wrong": "red", "void": "magenta"}
_SAYS: Final[dict[Verdict, str]] = {
    "pass": "every invariant holds, every budget is kept",
    "slow": "every invariant holds, a budget was missed",
    "wrong": "an invariant is broken",
    "void": "this run cannot be judged",
}


def last_words(summary: Summary, where: str, width: int = 80) -> Group:
    """Return what is printed when a run is over.

    Args:
        summary: the judged run.
        where: the report's path, as the reader may type it.
        width: columns there are.
    """
    lines = [_headline(summary), Text()]
    lines += [Text(_cut(f"  {reason}", width - 1)) for reason in summary.reasons[:REASONS_MOST]]
    more = len(summary.reasons) - REASONS_MOST
    if summary.verdict == "void" and not summary.generator.valid:
        rates = summary.rates.offered_per_s, float(f"{summary.rates.offered_per_s * LESS:.2g}")
        lines.append(
            Text(f"  try --rate {rates[1]:g}: {rates[0]:,.0f}/s may be too much for this machine{_also(more)}")
        )
    elif more > 0:
        lines.append(Text(f"  … and {more} more reasons in the report"))
    if summary.reasons:
        lines.append(Text())
    lines += [_row(name, value, width) for name, value in _figures(summary)]
    lines += [Text(), _row("report", where, max(width, len(where) + 20))]
    return Group(*lines)


def _also(more: int) -> str:
    return f" ({more} more reasons)" if more > 0 else ""


def show(summary: Summary, where: str, console: Console | None = None) -> None:
    """Print the last words; without a terminal, the same words without colour."""
    out = console or Console()
    out.print(last_words(summary, where, min(out.width, 100)), soft_wrap=True)


def _headline(summary: Summary) -> Text:
    colour = _COLOUR[summary.verdict]
    text = Text(f" {summary.verdict.upper()} ", style=f"bold reverse {colour}")
    text.append(f"  {_says(summary)}", style="not bold not reverse")
    return text.append(f" (exit code {EXIT_CODE[summary.verdict]})", style="not bold not reverse dim")


def _says(summary: Summary) -> str:
    missing = sum(1 for finding in summary.invariants if finding.holds is None)
    if not missing or summary.verdict in ("wrong", "void"):
        return _SAYS[summary.verdict]
    return _SAYS[summary.verdict].replace("every invariant", f"{missing} invariants NOT CHECKED; every other")


def _figures(summary: Summary) -> list[tuple[str, str]]:
    orders, keys, rates, stock = summary.orders, summary.keys, summary.rates, summary.stock_locust_us
    accepted, sold_out = summary.latency_us["accepted"], summary.latency_us["sold_out"]
    delivered, sent = summary.latency_us["paid_to_delivered"], summary.service_us["accepted"]
    held = sum(1 for finding in summary.invariants if finding.holds)
    again = summary.reached.get("resale", 0)
    missing = sum(1 for finding in summary.invariants if finding.holds is None)
    unchecked = f", {missing} not checked" if missing else ""
    looked = sum(finding.checked for finding in summary.invariants)
    return [
        ("run", f"{summary.scenario}, seed {summary.seed}, {summary.window.seconds:.1f} s, {summary.run_id}"),
        ("arrivals", _account(summary.identity)),
        (
            "sold",
            f"{orders.accepted:,} orders, {rates.accepted_per_s:,.0f}/s (best second {rates.accepted_peak_per_s:,.0f})",
        ),
        ("refused", f"{rates.refused_per_s:,.0f}/s; {_codes(summary.identity.refused)}"),
        ("keys", f"{_given(keys)}, {rates.delivered_per_s:,.0f}/s, {keys.duplicated} twice"),
        (
            "came back",
            f"{orders.expired:,} expired, {orders.cancelled:,} cancelled, {again:,} sold again; "
            f"{orders.refunds_due:,} refunds due",
        ),
        ("accepted", _latency(accepted.p50, accepted.p99, accepted.p999)),
        ("  as sent", _latency(sent.p50, sent.p99, sent.p999)),
        _groups(summary) or ("  by Locust", f"{_latency(stock.p50, stock.p99, stock.p999)} of all, had it asked"),
        ("sold out", _latency(sold_out.p50, sold_out.p99, sold_out.p999)),
        ("to the key", _latency(delivered.p50, delivered.p99, delivered.p999)),
        ("invariants", f"{held} of {len(summary.invariants)} hold{unchecked}, {looked:,} things looked at"),
        ("generator", _generator(summary)),
    ]


def _given(keys: Keys) -> str:
    of = f" of {keys.loaded:,}" if keys.loaded else ""  # nobody knows where no store could be read
    return f"{keys.delivered:,}{of} delivered"


def _groups(summary: Summary) -> tuple[str, str] | None:
    told = [
        f"{name.replace('_', ' ')} {group.requests_per_arrival:.2f} requests an arrival"
        for name, group in summary.groups.items()
    ]
    return ("clients", " · ".join(told)) if told else None


def _account(identity: Identity) -> str:
    """Return the identity, less the parts that are nothing."""
    parts = [
        (identity.accepted, "accepted"),
        (sum(identity.refused.values()), "refused"),
        (identity.failed, "failed"),
        (identity.unknown, "unknown"),
        (identity.timed_out, "timed out"),
        (identity.shed, "shed"),
        (identity.unsent, "unsent"),
    ]
    said = " + ".join(f"{count:,} {word}" for count, word in parts if count)
    sign = "=" if identity.accounted() == identity.scheduled else "≠"
    return f"{identity.scheduled:,} {sign} {said or '0'}"


def _codes(refused: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in list(refused.items())[:3]) or "nobody"


def _latency(p50: int | None, p99: int | None, p999: int | None) -> str:
    return f"p50 {duration(p50)} · p99 {duration(p99)} · p99.9 {duration(p999)}"


def _generator(summary: Summary) -> str:
    generator = summary.generator
    lag = duration(generator.wake_lag_us_p99)
    read = "unknown" if generator.read_lag_us_p99 is None else duration(generator.read_lag_us_p99)
    fit = "fit" if generator.valid else "NOT FIT"
    clocks = f", clocks ± {duration(generator.clocks_within_us)}" if generator.clocks_within_us else ""
    return f"{fit}, CPU ≤ {generator.cpu_max:.0%}, late at p99: {lag} to ask, {read} to read{clocks}"


def _row(name: str, value: str, width: int) -> Text:
    return Text(f"  {name:<12}", style="dim").append(_cut(value, width - 15), style="not dim")


def _cut(text: str, most: int) -> str:
    flat = " ".join(text.split()) if text.strip() else ""
    lead = text[: len(text) - len(text.lstrip())]
    return lead + (flat if len(flat) + len(lead) <= most else flat[: most - len(lead) - 1] + "…")
