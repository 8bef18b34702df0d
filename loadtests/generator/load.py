"""Runs a scenario's Locust process and passes on what it says while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import msgspec

from core.errors import Fault
from core.local.lifeline import Lifeline
from loadtests.generator.telling import PREFIX
from loadtests.shop.deployment import free_ports
from loadtests.shop.parts import log_tail

_PREFIX: Final = PREFIX.encode()
_SCENARIOS: Final = Path(__file__).resolve().parent.parent / "scenarios"
_STOP_S: Final = 10.0
MASTER_PORT: Final = 5557  # Locust's own default
WAIT_S: Final = 120.0
READY_MOST_S: Final = 90.0  # from the last worker's coming to the begin: they connect, and their clocks are read
HOME_MOST_S: Final = 120.0  # for the last worker's files


class Hosts(msgspec.Struct, frozen=True, kw_only=True):
    """Workers on other hosts that play the plan, and where this one's master listens to them."""

    workers: int
    bind_host: str = "*"
    bind_port: int = MASTER_PORT
    wait_s: float = WAIT_S  # for the workers to come

    def words(self) -> list[str]:
        """Return Locust's options for it."""
        words = ["--master", "--expect-workers", str(self.workers), "--expect-workers-max-wait", f"{self.wait_s:.0f}"]
        return [*words, "--master-bind-host", self.bind_host, "--master-bind-port", str(self.bind_port), "--fp-tell"]

    @property
    def most_s(self) -> float:
        """How much longer a run takes, with the waiting and the files that come home."""
        return self.wait_s + READY_MOST_S + HOME_MOST_S


class GeneratorFailed(Fault):
    """The load generator ended without running its plan; the run cannot be judged."""

    code = "generator_failed"


def run_locust(
    scenario: str,
    options: Mapping[str, str],
    environment: Mapping[str, str],
    log_file: Path,
    most_s: float,
    tick: Callable[[dict[str, Any] | None], None],
    started: Callable[[int], None] = lambda pid: None,
    processes: int = 1,
    web_port: int | None = None,
    hosts: Hosts | None = None,
    step: Callable[[str], None] = lambda words: None,
) -> None:
    """Run a scenario to its end.

    Args:
        scenario: file name below ``scenarios/``, without ``.py``.
        options: Locust's and the scenario's command line, name (with dashes) to value.
        environment: added to this process's.
        log_file: where its standard error goes.
        most_s: it is stopped after so many seconds.
        tick: called with each progress message, and with None about five times a second.
        started: told the process id.
        processes: workers that share the plan; with more than one, a master leads them on loopback.
        web_port: of Locust's web UI on loopback; None: there is none.
        hosts: others that play it, led from here.
        step: told what it waits for.

    Raises:
        GeneratorFailed: it ended with another code than 0, or not in time; with its own reason or the end of its log.
    """
    argv = [sys.executable, "-m", "locust", "-f", str(_SCENARIOS / f"{scenario}.py"), "--only-summary"]
    argv += ["--headless"] if web_port is None else web_words(web_port)
    argv += ["--loglevel", "WARNING", *(word for pair in options.items() for word in pair)]
    if processes > 1:
        port = str(free_ports(1)[0])
        argv += ["--processes", str(processes), "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        argv += ["--master-port", port]
    if hosts is not None:
        argv += hosts.words()

    def heard(said: dict[str, Any] | None) -> None:
        if said is not None and "step" in said:
            step(said["step"])
        else:
            tick(said)

    code = follow(argv, environment, log_file, most_s + (hosts.most_s if hosts else 0), heard, started)
    if code != 0:
        if why := reason(log_file, scenario):
            raise GeneratorFailed(why)
        raise GeneratorFailed(f"the load generator ended with exit code {code}:\n{log_tail(log_file)}")


def reason(log_file: Path, scenario: str) -> str:
    """Return the last line in which a scenario's process says why it could not go on, or nothing.

    One that ends with a colon goes on below: then the end of the log says more.
    """
    beginning = f"{scenario}: "
    log = log_file.read_text(encoding="utf-8", errors="replace")  # Locust's own tables stand below the line
    said = [line for line in log.splitlines() if line.startswith(beginning)]
    return said[-1].removeprefix(beginning) if said and not said[-1].endswith(":") else ""


def follow(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log_file: Path,
    most_s: float,
    heard: Callable[[dict[str, Any] | None], None],
    started: Callable[[int], None] = lambda pid: None,
) -> int:
    """Run a Locust process to its end and return its exit code.

    Args:
        argv: its command line.
        environment: added to this process's.
        log_file: where its standard error goes.
        most_s: it is stopped after so many seconds.
        heard: called with each message, and with None about five times a second; what it raises stops the process.
        started: told the process id.

    Raises:
        GeneratorFailed: it did not end in time.
    """
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            argv,
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        lifeline = Lifeline(-process.pid, signal.SIGKILL)  # a load without a judge would go on against the shop
        try:
            started(process.pid)
            _follow(process, most_s, heard)
        finally:
            _end(process)
            lifeline.dismiss()
    return process.returncode


def web_words(port: int) -> list[str]:
    """Return Locust's options for a run that begins by itself and can be watched at a port of loopback."""
    return ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(port)]


def _follow(process: subprocess.Popen[bytes], most_s: float, heard: Callable[[dict[str, Any] | None], None]) -> None:
    lines: Queue[bytes | None] = Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        try:
            line = lines.get(timeout=0.2)
        except Empty:
            heard(None)
            continue
        if line is None:
            return
        if line.startswith(_PREFIX):
            heard(msgspec.json.decode(line[len(_PREFIX) :]))
    raise GeneratorFailed(f"the load generator did not end within {most_s:.0f} s")


def _read(process: subprocess.Popen[bytes], lines: Queue[bytes | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    for kill in (signal.SIGTERM, signal.SIGKILL):
        try:
            process.wait(timeout=_STOP_S if process.poll() is None and kill == signal.SIGKILL else 2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, kill)
        else:
            return
    process.wait(timeout=_STOP_S)
