"""The process that makes the load ends with the one that judges it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from loadtests.generator.load import reason

ENDS_WITHIN_S = 10.0
JUDGE = """
import sys
from pathlib import Path
from loadtests.generator.load import follow
sleeper = [sys.executable, "-c", "import time; time.sleep(120)"]
follow(sleeper, {}, Path(sys.argv[1]), 100.0, lambda message: None, lambda pid: print(pid, flush=True))
"""


def test_the_fault_of_an_adapter_is_the_reason_told_and_no_table_below_it(tmp_path: Path) -> None:
    """Stops: twenty lines of Locust's tables where the one line stands that helps."""
    log = tmp_path / "locust.log"
    line = "flash_sale: 163 faults, the first: KeyError: 'state 7'"
    log.write_text(f"Traceback (most recent call last):\n  File ...\nKeyError: 'state 7'\n{line}\nType  Name  # reqs\n")
    assert reason(log, "flash_sale") == "163 faults, the first: KeyError: 'state 7'"


def test_a_load_whose_judge_was_killed_does_not_go_on(tmp_path: Path) -> None:
    """Stops: a Locust that floods the shop for minutes after `prove` was killed, and takes the next run's cores."""
    with subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as judge:
        assert judge.stdout is not None
        load = psutil.Process(int(judge.stdout.readline()))
        assert load.is_running()
        judge.send_signal(signal.SIGKILL)
        judge.wait(ENDS_WITHIN_S)
        until = time.monotonic() + ENDS_WITHIN_S
        while load.is_running() and load.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.05)
        ended = not load.is_running() or load.status() == psutil.STATUS_ZOMBIE
        if not ended:
            load.kill()
        assert ended
