"""Priority: who steps back does so also where Linux groups processes by session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.priority import step_back


@pytest.mark.parametrize("leads", [True, False])
def test_who_leads_a_session_steps_back_with_it_and_nobody_else_does(leads: bool) -> None:
    """Stops: a nice value without effect between sessions; and a shell slowed down by what was started from it."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=leads, text=True
    ) as child:
        try:
            step_back(child.pid, 3)
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == 3
            group = Path(f"/proc/{child.pid}/autogroup")
            if group.exists() and group.read_text().strip():
                assert group.read_text().strip().endswith("nice 3") == leads
        finally:
            child.communicate("\n")
