"""Runs small sales of the real `flashproof prove`, for the tests of the harness itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

SMALL: Final = (
    *("--rate", "250", "--seconds", "5", "--stock", "500", "--cold", "5", "--p99-ms", "5000", "--drain", "5"),
    *("--ceiling", "0"),
)
# What a busy machine may do to the generator, and nobody to the shop.
_LATE: Final = (
    *("void: The generator used", "void: The generator was", "void: The generator stood still"),
    "void: The clock of worker",
)
RUN_MOST_S: Final = 150.0


class Proved(NamedTuple):
    """How a run ended, and what it left."""

    code: int
    printed: str
    report: Path
    summary: dict[str, Any]

    def passes(self) -> bool:
        """Return whether nothing speaks against the shop: the tests' machine may be too busy to time it."""
        rest = [reason for reason in self.summary["reasons"] if not reason.startswith(_LATE)]
        return not rest and self.code == (3 if self.summary["reasons"] else 0)

    def broken(self) -> set[str]:
        """Return the invariants that do not hold."""
        return {one["name"] for one in self.summary["invariants"] if not one["holds"]}


def prove(report: Path, *options: str) -> Proved:
    """Run a sale to its verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "core", "prove", *SMALL, *options, "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=RUN_MOST_S,
        check=False,
    )
    summary = report / "summary.json"
    said = json.loads(summary.read_text()) if summary.exists() else {}
    return Proved(done.returncode, done.stdout + done.stderr, report, said)
