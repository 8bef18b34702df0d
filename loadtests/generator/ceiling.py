"""What Locust's fast user and the lean user can do on this machine against a null server, each on a core of its own.

These are closed loops, as fast as they can; what the whole generator of a run can do is ``whole_ceiling``'s.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from core.errors import Fault

USERS: Final = 64
WARM_S: Final = 0.4
PREFIX: Final = "CEILING "  # of the line the measuring process prints
VARIABLE: Final = "FP_CEILING"  # of its environment
_STARTS_S: Final = 20.0
_RECORDING_MOST_S: Final = 60.0


class CeilingUnknown(Fault):
    """The generator's ceiling could not be measured."""

    code = "ceiling_unknown"


class Reached(msgspec.Struct, frozen=True):
    """What one kind of user did in one window."""

    requests: int
    failures: int
    seconds: float
    cpu_seconds: float

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def cores() -> tuple[int, int]:
    """Return the generator's core and the null server's: two where there are two."""
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return found[0], found[-1]


@contextlib.contextmanager
def null_server(share: float = 1.0) -> Iterator[int]:
    """Start the null server on the last core and give its port; it accepts that share of the orders.

    Raises:
        CeilingUnknown: it does not start.
    """
    command = [sys.executable, "-m", "loadtests.generator.null_server", str(share)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            pin(process.pid, cores()[1])
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.strip().isdigit():
                raise CeilingUnknown("the null server did not start")
            yield int(line)
        finally:
            process.kill()


def drive(kind: str, port: int, seconds: float, out: Path, users: int = USERS) -> Reached:
    """Let one user class of ``ceiling_users.py`` ask the null server from one core, and return what it did.

    Args:
        kind: Fast or Lean.
        port: the null server's.
        seconds: how long it is measured, after a moment of warming up.
        out: where the lean user's history and histograms go.
        users: how many ask at once.

    Raises:
        CeilingUnknown: it failed, or a request did.
    """
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("ceiling_users.py"))]
    command += ["--headless", "--only-summary", "--loglevel", "ERROR", "--host", f"http://127.0.0.1:{port}"]
    command += ["-u", str(users), "-r", str(users), "--lean-out", str(out), kind]
    measure = {VARIABLE: f"{WARM_S},{seconds}"}
    done = run_pinned(command, f"{kind} users were", seconds + _STARTS_S, measure)
    for line in done.stdout.splitlines():
        if line.startswith(PREFIX):
            reached = msgspec.json.decode(line[len(PREFIX) :], type=Reached)
            if reached.failures or not reached.requests:
                raise CeilingUnknown(f"{reached.failures} of {reached.requests} requests of {kind} users failed")
            return reached
    raise CeilingUnknown(f"{kind} users could not be measured: {done.stderr[-600:]}")


def recording_us() -> float:
    """Return what it costs to account for one request, in µs (``recording.py``), measured on the generator's core.

    Raises:
        CeilingUnknown: it could not be measured.
    """
    command = [sys.executable, "-m", "loadtests.generator.recording"]
    done = run_pinned(command, "the cost of recording was", _RECORDING_MOST_S)
    if done.returncode:
        raise CeilingUnknown(f"the cost of recording could not be measured: {done.stderr[-600:]}")
    return float(done.stdout)


def run_pinned(
    command: Sequence[str], what: str, most_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a process on the generator's core to its end and return what it printed; it never outlives this.

    Args:
        command: its command line.
        what: is measured by it, for the message: "the generator was".
        most_s: it is killed after so many seconds.
        environment: added to this process's.

    Raises:
        CeilingUnknown: it did not end in time.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(environment or {}),
    ) as process:
        try:
            pin(process.pid, cores()[0])
            said, errors = process.communicate(timeout=most_s)
        except subprocess.TimeoutExpired as error:
            raise CeilingUnknown(f"{what} not done within {most_s:g} s") from error
        finally:
            if process.poll() is None:
                process.kill()
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})
