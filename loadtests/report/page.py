"""The small parts of the page: text made safe, tables, figures. Whatever comes from a run is escaped here
and bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

TEXT_MOST: Final = 400  # letters of one sentence on the page
ROWS_MOST: Final = 60  # rows of one table


class Html(str):
    """Text that is HTML already; everything else is escaped when it comes onto the page."""

    __slots__ = ()


def safe(value: object) -> str:
    """Return a value as HTML: escaped unless it is ``Html``, cut when it is long."""
    if isinstance(value, Html):
        return value
    text = str(value)
    return escape(text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 1] + "…")


def number(value: float | int | None, digits: int = 0) -> Html:
    """Return a number with its thousands apart, or a dash."""
    return Html("–" if value is None else f"{value:,.{digits}f}")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], numeric: Sequence[int] = ()) -> Html:
    """Return a table with a caption, its first column as row headers, in a region that scrolls on a small screen.

    Args:
        caption: what the table says, read out by a screen reader.
        head: the columns' names.
        rows: the cells; at most 60 rows are shown and the rest counted.
        numeric: columns set to the right.
    """
    every = list(rows)
    shown, rest = every[:ROWS_MOST], len(every) - ROWS_MOST
    kind = [' class="n"' if column in numeric else "" for column in range(len(head))]
    titles = "".join(f'<th scope="col"{kind[n]}>{safe(name)}</th>' for n, name in enumerate(head))
    body = []
    for row in shown:
        first = f'<th scope="row"{kind[0]}>{safe(row[0])}</th>'
        cells = "".join(f"<td{kind[n]}>{safe(cell)}</td>" for n, cell in enumerate(row[1:], 1))
        body.append(f"<tr>{first}{cells}</tr>")
    if rest > 0:
        body.append(f'<tr><td colspan="{len(head)}">… and {rest:,} more</td></tr>')
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{safe(caption)}"><table>'
        f"<caption>{safe(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def items(values: Sequence[object], most: int = 21) -> Html:
    """Return a list of sentences, the rest counted."""
    parts = [f"<li>{safe(value)}</li>" for value in values[:most]]
    if len(values) > most:
        parts.append(f"<li>… and {len(values) - most:,} more</li>")
    return Html(f"<ul>{''.join(parts)}</ul>" if parts else "")


def figures(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return the large figures at the top."""
    inner = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="figures">{inner}</dl>')


def duration(us: float | None) -> str:
    """Return microseconds with a fitting unit, or a dash."""
    if us is None:
        return "–"
    if us < 1_000:
        return f"{us:.0f} µs"
    if us < 1_000_000:
        return f"{us / 1000:.3g} ms" if us < 999_500 else "1 s"
    return f"{us / 1_000_000:.3g} s"


def section(title: str, *parts: Html) -> Html:
    """Return a part of the page under its heading."""
    return Html(f"<section>\n<h2>{safe(title)}</h2>\n{chr(10).join(parts)}\n</section>\n")


def chart_frame(name: str, title: str, says: str, told: str, numbers: Html) -> Html:
    """Return the frame of a chart that the script fills.

    Args:
        name: the chart's, unique on the page.
        title: its caption.
        says: how to read it.
        told: what a screen reader says instead of the picture.
        numbers: the same as a table.
    """
    return Html(
        f'<figure><figcaption>{safe(title)}</figcaption><p class="soft">{safe(says)}</p>'
        f'<div class="plot" id="chart-{safe(name)}" role="img" tabindex="0" aria-label="{safe(told)}"></div>'
        f'<p class="said" aria-live="polite"></p>'
        f"<details><summary>{safe(title)}, as numbers</summary>{numbers}</details></figure>"
    )


def figure(caption: str, svg: str, legend: Sequence[str]) -> Html:
    """Return a picture in SVG with its caption and legend; the legend's colours are the chart's, in order."""
    keys = "".join(f'<li class="s{n}"><i aria-hidden="true"></i>{safe(name)}</li>' for n, name in enumerate(legend))
    return Html(
        f"<figure><figcaption>{safe(caption)}</figcaption>"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{safe(caption)}">{svg}</div>'
        f'<ul class="legend">{keys}</ul></figure>'
    )
