"""Runs a scenario's Locust process and passes on what it says while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import msgspec

from core.errors import Fault
from loadtests.shop.deployment import free_ports
from loadtests.shop.parts import log_tail

PREFIX: Final = b"FLASHPROOF "
_SCENARIOS: Final = Path(__file__).resolve().parent.parent / "scenarios"
_STOP_S: Final = 10.0


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

    Raises:
        GeneratorFailed: it ended with another code than 0, or not in time; with the end of its log.
    """
    argv = [sys.executable, "-m", "locust", "-f", str(_SCENARIOS / f"{scenario}.py"), "--only-summary"]
    argv += ["--headless"] if web_port is None else web_words(web_port)
    argv += ["--loglevel", "WARNING", *(word for pair in options.items() for word in pair)]
    if processes > 1:
        port = str(free_ports(1)[0])
        argv += ["--processes", str(processes), "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        argv += ["--master-port", port]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            argv,
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        started(process.pid)
        try:
            _follow(process, most_s, tick)
        finally:
            _end(process)
    if process.returncode != 0:
        said = log_tail(log_file)
        raise GeneratorFailed(f"the load generator ended with exit code {process.returncode}:\n{said}")


def web_words(port: int) -> list[str]:
    """Return Locust's options for a run that begins by itself and can be watched at a port of loopback."""
    return ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(port)]


def _follow(process: subprocess.Popen[bytes], most_s: float, tick: Callable[[dict[str, Any] | None], None]) -> None:
    lines: Queue[bytes | None] = Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        try:
            line = lines.get(timeout=0.2)
        except Empty:
            tick(None)
            continue
        if line is None:
            return
        if line.startswith(PREFIX):
            tick(msgspec.json.decode(line[len(PREFIX) :]))
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
