"""Which interpreter an installation is made with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploy.fastest_python import NAMES, choose, seconds

SCRIPT = Path(__file__).parent.parent.parent / "deploy" / "fastest_python.py"


def test_the_first_on_the_path_is_taken_unless_another_is_much_faster() -> None:
    assert choose({"python3": 1.0, "other": 0.95}) == "python3"
    assert choose({"python3": 1.0, "other": 0.8, "third": 0.7}) == "third"
    assert choose({"other": 2.0}) == "other"
    assert choose({}) == ""


def test_what_is_no_python_or_too_old_or_cannot_make_an_environment_is_not_considered(tmp_path: Path) -> None:
    """Stops: an installation that fails on the fastest interpreter though another would do."""
    assert seconds(sys.executable) is not None
    for name, text in (("old", "echo False 0.1"), ("odd", "echo Python"), ("broken", "exit 1"), ("missing", "")):
        python = tmp_path / name
        if text:
            python.write_text(f"#!/bin/sh\n{text}\n")
            python.chmod(0o755)
        assert seconds(str(python)) is None


def test_the_script_names_one_interpreter_whatever_runs_it() -> None:
    said = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() in NAMES
