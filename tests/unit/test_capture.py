"""Captures: a flame graph, or one line that says why there is none; never an exception, never a wait without an end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles import capture
from profiles.capture import Capture

_BUSY = "import hashlib\nwhile True: hashlib.sha256(bytes(1000)).hexdigest()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that is busy until the test is over."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def sampler(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """Put a shell script where py-spy would be: beside the interpreter."""
    program = directory / "py-spy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))


def test_a_running_process_gives_a_flame_graph_or_a_reason(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Stops: a profile that is neither there nor missed; a process that dies of being looked at."""
    svg = tmp_path / "profile.svg"
    why = Capture(child.pid, 1.0, svg).finish()
    if why:
        assert len(why.splitlines()) == 1
    else:
        assert "</svg>" in svg.read_text()
    assert child.poll() is None


def test_a_process_that_is_gone_gives_a_reason(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Stops: a run that dies with the process it profiles; a worker killed on purpose is often that one."""
    child.kill()
    child.wait()
    svg = tmp_path / "profile.svg"
    why = Capture(child.pid, 1.0, svg).finish()
    assert why.strip()
    assert len(why.splitlines()) == 1
    assert not svg.exists()


def test_the_sampler_is_asked_for_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: another process sampled, for another time, or stopped while it is being sampled."""
    sampler(monkeypatch, tmp_path, 'echo "$@" > "$0.asked"; touch "${0%py-spy}profile.svg"')
    assert Capture(4321, 2.4, tmp_path / "profile.svg").finish() == ""
    asked = (tmp_path / "py-spy.asked").read_text()
    for words in ("--pid 4321", "--duration 2 ", f"--output {tmp_path / 'profile.svg'}", "--nonblocking"):
        assert words in asked


def test_less_than_a_second_is_sampled_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a duration of 0, which py-spy refuses."""
    sampler(monkeypatch, tmp_path, 'echo "$@" > "$0.asked"; exit 1')
    Capture(4321, 0.2, tmp_path / "profile.svg").finish()
    assert "--duration 1 " in (tmp_path / "py-spy.asked").read_text()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Sampling; echo 'Error: Permission Denied' >&2; echo; exit 1", "Error: Permission Denied"),
        ("exit 3", "py-spy ended with exit code 3"),
        ("exit 0", "py-spy ended with exit code 0"),  # all is well, it says, and there is no file
        ("printf 'odd \\377 byte'; exit 1", "odd \ufffd byte"),
    ],
)
def test_a_sampler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    """Stops: a missing profile without a word, and success believed without looking for the file."""
    sampler(monkeypatch, tmp_path, script)
    assert Capture(4321, 1.0, tmp_path / "profile.svg").finish() == why


def test_a_sampler_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a finished run that waits for its profile for ever, or leaves the sampler behind."""
    sampler(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(capture, "_END_S", 0.2)
    began = time.monotonic()
    sampling = Capture(4321, 0.1, tmp_path / "profile.svg")
    assert sampling.finish() == "py-spy did not finish"
    assert time.monotonic() - began < 10
    assert sampling._process.poll() is not None
