"""What is vendored is what its README says it is, with its licence."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

VENDOR: Final = Path(__file__).resolve().parents[2] / "loadtests" / "report" / "vendor"
README: Final = (VENDOR / "README.md").read_text(encoding="utf-8")
SAID: Final = dict(re.findall(r"^\| `([^`]+)` \| `[^`]+` \| `([0-9a-f]{64})` \|$", README, re.M))


def test_every_vendored_file_has_the_checksum_that_is_written_down() -> None:
    """A library edited in place is nobody's library."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "README.md"
    }
    assert found == SAID and len(SAID) == 3


def test_the_version_that_is_written_down_is_the_one_inside() -> None:
    """Half a renewal."""
    said = re.search(r"uPlot ([0-9.]+), from", README)
    assert said is not None
    assert f"(v{said[1]})" in (VENDOR / "uPlot.iife.min.js").read_text(encoding="utf-8")[:100]
    assert "MIT License" in (VENDOR / "uPlot.LICENSE").read_text(encoding="utf-8")
