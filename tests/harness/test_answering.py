"""What a process of a trial has seen reaches who asked, whole."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import pytest

# A signal in the middle of a write to a full pipe makes the kernel take a part of it.
_CHILD = """
import signal
from loadtests.trials.answering import answer
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.1)
answer(list(range(200_000)))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_what_is_told_arrives_whole_though_the_pipe_takes_a_part_of_it(unbuffered: str) -> None:
    """Stops: a long measurement that ends with `Input data was truncated`, now and then."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    ) as child:
        assert child.stdout is not None
        assert select.select([child.stdout], [], [], 20)[0]
        time.sleep(0.5)  # the pipe is full, and the signal came
        said, words = child.communicate(timeout=20)
    assert child.returncode == 0, words
    assert json.loads(said) == list(range(200_000))
