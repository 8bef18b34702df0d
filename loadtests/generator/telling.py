"""Lines on standard output by which a Locust process tells whoever started it how far it is."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

PREFIX: Final = "FLASHPROOF "


def tell(said: Any) -> None:
    """Print one line: a ``Progress``, ``{"step": words}``, or ``{"over": exit code, "why": words}``."""
    sys.stdout.write(f"{PREFIX}{msgspec.json.encode(said).decode()}\n")
    sys.stdout.flush()


def step(words: str) -> None:
    """Say which step it is in."""
    tell({"step": words})
