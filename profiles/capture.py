"""Captures where a running Python process spends its time, from outside, with py-spy: one flame graph a process.

py-spy reads the process's memory; the kernel allows that to root, and to others only where ``kernel.yama.ptrace_scope``
is 0. Without the right the capture says so and nothing else is lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SAMPLES_PER_S: Final = 100  # about 1 % of a core for the sampled process
_END_S: Final = 20.0


class Capture:
    """One process being sampled until its time is over."""

    def __init__(self, pid: int, seconds: float, svg: Path) -> None:
        """Begin to sample process ``pid`` for ``seconds``; the flame graph goes to ``svg``."""
        self.svg, self._seconds = svg, seconds
        beside = Path(sys.executable).with_name("py-spy")
        program = str(beside) if beside.exists() else shutil.which("py-spy") or "py-spy"
        argv = [program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds)))]
        argv += ["--rate", str(SAMPLES_PER_S), "--format", "flamegraph", "--output", str(svg), "--nonblocking"]
        self._process = subprocess.Popen(
            argv,
            env=os.environ | {"RUST_BACKTRACE": "0"},  # a trace of py-spy's own would stand where the reason should
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> str:
        """Wait for the flame graph and return nothing, or why there is none."""
        try:
            said, _ = self._process.communicate(timeout=self._seconds + _END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.communicate()
            return "py-spy did not finish"
        if self._process.returncode == 0 and self.svg.exists():
            return ""
        lines = said.decode(errors="replace").strip().splitlines()
        reasons = [line for line in lines if line.startswith("Error:")] or lines[-1:]
        return reasons[0] if reasons else f"py-spy ended with exit code {self._process.returncode}"
