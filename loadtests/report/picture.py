"""``python -m loadtests picture DIR``: the head of a run's report as a PNG, for a README.

It is the page itself in a browser, with everything but the verdict, the large figures and four charts folded away.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.arguments import Arguments
from core.errors import BadInput
from loadtests.report import html
from loadtests.report.browser import chromium

BYTES_MOST: Final = 300_000
WIDTH: Final = 1200
CHARTS: Final = ("answers", "spectrum", "cpu", "waits")
_FOLDED: Final = (
    "body { max-width: none; padding: 1rem; } section { display: contents; } figure { margin: 0 !important; }"
    "main { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .9rem; }"
    "main > header, main > .figures { grid-column: 1 / -1; margin: 0; }"
    "section > *:not(figure), details, footer, figure > .soft { display: none !important; }"
    f"figure:not(:has({', '.join(f'#chart-{name}' for name in CHARTS)})) {{ display: none; }}"
)


def main(argv: Sequence[str]) -> int:
    """Take a picture of a run's report: the verdict, the large figures and four charts.

    Exit codes: 0 written, 1 too large, 64 bad usage or no browser.
    """
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = Arguments(prog="python -m loadtests picture", description=about, epilog=" ".join(codes.split()))
    parser.add_argument("run", type=Path, help="a run's directory, e.g. out/prove/latest")
    parser.add_argument("--out", type=Path, default=Path("docs/report.png"), help="default docs/report.png")
    options = parser.parse_args(argv)
    page = options.run / html.NAME
    if not page.is_file():
        raise BadInput(f"there is no {page}; `flashproof prove` writes one")
    png = picture(page)
    if len(png) > BYTES_MOST:
        sys.stderr.write(f"the picture has {len(png):,} bytes; {BYTES_MOST:,} are allowed\n")
        return 1
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(png)
    except OSError as error:
        raise BadInput(f"--out {options.out}: {error.strerror}") from error
    sys.stdout.write(f"{options.out}: {len(png):,} bytes\n")
    return 0


def picture(page: Path) -> bytes:
    """Return the PNG of a report's head.

    Raises:
        BadInput: there is no browser.
    """
    with chromium() as browser:
        context = browser.new_context(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        tab.add_style_tag(content=_FOLDED)
        tab.wait_for_timeout(300)  # the charts follow their boxes
        return tab.screenshot(full_page=True)
