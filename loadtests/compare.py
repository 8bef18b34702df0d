"""``flashproof compare BEFORE AFTER``: two runs side by side, each figure computed anew from the raw files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.arguments import Arguments
from core.errors import BadInput
from loadtests import judge
from loadtests.comparison.blocks import CONFIDENCE
from loadtests.comparison.comparable import changed, why_not
from loadtests.comparison.effects import LEAST, METHOD, Comparison, Effect, effects, verdict
from loadtests.record.run_files import Unjudgeable, read_run, write_json
from loadtests.report.page import duration

EXIT_WORSE: Final = 1
EXIT_VOID: Final = 3
_COLOUR: Final = {"better": "green", "worse": "red", "no difference": "dim", "unclear": "yellow", "not judged": "dim"}
_WIDTH_LEAST: Final = 100


def main(argv: Sequence[str]) -> int:
    """Set two runs side by side: effect, confidence interval and a verdict for each measure.

    Exit codes: 0 nothing is worse, 1 something is, 3 they cannot be compared (it says why), 64 bad usage.
    """
    options = _options(argv)
    try:
        files = read_run(options.before), read_run(options.after)
        summaries = judge.judge(files[0]), judge.judge(files[1])
    except Unjudgeable as error:
        sys.stderr.write(f"VOID: {error}\n")
        return EXIT_VOID
    reasons = why_not(*summaries, files)
    if reasons:
        for reason in reasons:
            sys.stderr.write(f"not comparable: {reason}\n")
        return EXIT_VOID
    found = effects(*files, least=options.least / 100)
    comparison = Comparison(
        schema=1,
        before=summaries[0].run_id,
        after=summaries[1].run_id,
        verdict=verdict(found),
        confidence=CONFIDENCE,
        least_effect=options.least / 100,
        method=METHOD,
        effects=found,
        changed=changed(*summaries),
    )
    if options.json:
        try:
            write_json(options.json, comparison)
        except OSError as error:
            raise BadInput(f"--json {options.json}: {error.strerror}") from error
    show(comparison)
    return EXIT_WORSE if comparison.verdict == "worse" else EXIT_VOID if comparison.verdict == "not judged" else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = Arguments(prog="flashproof compare", description=about, epilog=f"{' '.join(codes.split())} {METHOD}")
    parser.add_argument("before", type=Path, help="a run's directory")
    parser.add_argument("after", type=Path, help="the other's, with the same scenario, seed, rate and machine")
    parser.add_argument(
        "--least", type=float, default=LEAST * 100, metavar="PERCENT", help="smallest effect that counts (default 5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    options = parser.parse_args(argv)
    for path in (options.before, options.after):
        if not path.is_dir():
            raise BadInput(f"{path} is no directory; `flashproof prove` writes runs to out/prove/<run id>")
    if not 0 <= options.least <= 1_000:
        raise BadInput(f"--least must be from 0 to 1,000, not {options.least}")
    return options


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table; without a terminal, the same words without colour."""
    out = console or Console()
    if not out.is_terminal:
        out.width = max(out.width, _WIDTH_LEAST)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("measure")
    for head in ("before", "after", "change", f"{comparison.confidence:.0%} interval"):
        table.add_column(head, justify="right")
    table.add_column("verdict")
    for effect in comparison.effects:
        table.add_row(
            effect.name,
            _said(effect, effect.before),
            _said(effect, effect.after),
            "–" if effect.change is None else f"{effect.change:+.1%}",
            "–" if effect.interval is None else f"{effect.interval[0]:+.1%} … {effect.interval[1]:+.1%}",
            Text(f"{effect.says}{': ' + effect.why if effect.why else ''}", style=_COLOUR[effect.says]),
        )
    out.print(Text(f" {comparison.verdict.upper()} ", style=f"bold reverse {_COLOUR[comparison.verdict]}"))
    out.print(Text(f"before {comparison.before}, after {comparison.after}", style="dim"))
    for line in comparison.changed:
        out.print(Text(f"changed: {line}", style="dim"))
    out.print(table)
    out.print(Text(f"An effect counts from {comparison.least_effect:.0%}. {comparison.method}", style="dim"))


def _said(effect: Effect, value: float | None) -> str:
    if value is None:
        return "–"
    if effect.unit == "us":
        return duration(value)
    return f"{value:.2%}" if effect.unit == "share" else f"{value:,.1f}{' µs' if effect.unit == 'us_per_order' else ''}"
