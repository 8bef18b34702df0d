"""``flashproof verify DIR``: judge a finished run again from its raw files, and compare with what it said of itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.errors import BadInput
from loadtests import judge

EXIT_DIFFERS: Final = 2
EXIT_VOID: Final = 3
_SHOWN_MOST: Final = 20


def main(argv: Sequence[str]) -> int:
    """Judge a finished run again from its raw files and name every difference to its summary.json.

    Exit codes: 0 all the same, 2 something differs, 3 the files cannot be judged, 64 bad usage.
    """
    about, _, codes = (main.__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="flashproof verify", description=about, epilog=" ".join(codes.split()))
    parser.add_argument("run", type=Path, help="a run's directory, e.g. out/prove/latest")
    options = parser.parse_args(argv)
    if not options.run.is_dir():
        raise BadInput(f"{options.run} is no directory; `flashproof prove` writes runs to out/prove/<run id>")
    try:
        differences = judge.verify(options.run)
    except judge.Unjudgeable as error:
        sys.stderr.write(f"VOID: {error}\n")
        return EXIT_VOID
    for difference in differences[:_SHOWN_MOST]:
        sys.stdout.write(difference + "\n")
    if len(differences) > _SHOWN_MOST:
        sys.stdout.write(f"and {len(differences) - _SHOWN_MOST} more\n")
    sys.stdout.write("differs\n" if differences else "every number in summary.json follows from the raw files\n")
    return EXIT_DIFFERS if differences else 0
