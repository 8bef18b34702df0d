"""``report.html``: the whole run on one offline page that a sceptical operator believes.

The verdict and its rule come first, then what was offered and achieved, then every invariant with how much
it looked at. The page asks nobody for anything: its style, its chart library (uPlot) and its data are inside, and a
policy refuses all else. It is built from the summary and the raw files alone, so ``flashproof verify`` can build it
again and compare.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

import msgspec

from loadtests.judge import RULES
from loadtests.record.run_files import RunFiles
from loadtests.record.summary import Summary, Verdict
from loadtests.report import tables
from loadtests.report.charts import Chart, charts_of
from loadtests.report.page import Html, chart_frame, items, safe, section, table

NAME: Final = "report.html"
_HERE: Final = Path(__file__).parent
_VENDOR: Final = _HERE / "vendor"
DATA_OPENS: Final = '<script type="application/json" id="data">'
DATA_CLOSES: Final = "</script>"

_MEANING: Final[dict[Verdict, str]] = {
    "pass": "Every invariant holds, every budget is kept, and the run went where it gets interesting.",
    "slow": "Every invariant holds, but a budget was missed.",
    "wrong": "An invariant is broken: the shop did something it must never do.",
    "void": "This run cannot be judged. It says nothing for the shop and nothing against it.",
}
_NEVER_TESTED: Final = (
    "A power cut or a lying disk: a killed process leaves the operating system's cache alive.",
    "A gateway that lies or loses its own ledger, and suppliers: the sandbox gateway is honest.",
    "A clock that steps, and a sale of more than one shard.",
)


def render(summary: Summary, files: RunFiles) -> str:
    """Return the page of a run."""
    title = f"{summary.verdict.upper()} · {summary.scenario} · {summary.run_id}"
    charts = {chart.id: chart for chart in charts_of(summary, files)}

    def drawn(*names: str) -> Html:
        return Html("".join(_figure(charts[name]) for name in names if name in charts))

    body = [
        _verdict(summary),
        tables.headline(summary),
        section("Offered and achieved", tables.offered(summary), drawn("answers"), tables.identity(summary)),
        section("Invariants", tables.invariants(summary), tables.reached(summary), tables.groups(summary)),
        section("Latency", tables.latencies(summary), drawn("spectrum", "latency"), tables.locust(summary)),
        section("What befell the processes", tables.incidents(summary)),
        section("Inside the shop", drawn("cpu", "memory", "waits", "busy", "batches") or _no_timeline()),
        section("Orders, keys and cost", tables.orders(summary), tables.cost(summary), tables.outcomes(summary)),
        section("Was the generator fit to judge?", tables.generator(summary, files), drawn("generator", "lateness")),
        section("What was not tested", items([*summary.not_tested, *_NEVER_TESTED], 40)),
        section("Run it again", tables.again(summary)),
    ]
    data = msgspec.json.encode(list(charts.values())).decode()
    return _document(title, "".join(body), data)


def write(directory: Path, summary: Summary, files: RunFiles) -> Path:
    """Write the page into a run's directory, whole or not at all, and return its path."""
    path = directory / NAME
    whole = path.with_name(NAME + ".new")
    whole.write_text(render(summary, files), encoding="utf-8")
    whole.replace(path)
    return path


def parted(page: str) -> tuple[str, str]:
    """Return the data of a page's charts (nothing, if it has none), and the page without it."""
    before, opens, rest = page.partition(DATA_OPENS)
    data, closes, after = rest.partition(DATA_CLOSES)
    return data, before + opens + closes + after


def _document(title: str, body: str, data: str) -> str:
    licence = (_VENDOR / "uPlot.LICENSE").read_text(encoding="utf-8")
    library = f"/*\n{licence}*/\n{(_VENDOR / 'uPlot.iife.min.js').read_text(encoding='utf-8')}"
    style = (_VENDOR / "uPlot.min.css").read_text(encoding="utf-8") + (_HERE / "report.css").read_text(encoding="utf-8")
    scripts = [library, (_HERE / "report.js").read_text(encoding="utf-8")]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"
    inside = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # no tag can begin in it
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        "<noscript><p>Without script there are no charts; every figure is in the tables.</p></noscript>\n"
        "<footer>Every number here can be computed again from the raw files beside this page: "
        f"<code>flashproof verify DIR</code>.</footer>\n{DATA_OPENS}{inside}{DATA_CLOSES}\n"
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body>\n</html>\n"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _figure(chart: Chart) -> Html:
    return chart_frame(chart.id, chart.title, chart.says, tables.chart_told(chart), tables.chart_numbers(chart))


def _no_timeline() -> Html:
    return Html('<p class="soft">Not measured: the shop\'s processes were not ours to look at.</p>')


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
