"""``flashproof prove`` over several hosts: the options of the one that judges, and the whole of the ones that play.

    flashproof prove --master --expect-workers 2 …             judges, and writes the report
    flashproof prove --worker --master-host <that host>        plays a part, on each of the others

A worker is Locust's own ``--worker -f -``: it takes scenario, options and the files they name from the master, and its
secrets from its environment. It writes nothing but a log, which goes when it ends.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from core.arguments import Arguments
from core.errors import BadInput, Fault
from core.settings import variable
from loadtests.generator.load import MASTER_PORT, WAIT_S, Hosts, follow
from loadtests.progress import Progress
from loadtests.shop.parts import log_tail

WORKERS_MOST: Final = 64
WAIT_MOST_S: Final = 3_600.0
PLAY_MOST_S: Final = 3 * 3_600.0  # longer than any run; a master that is gone is noticed after a minute, by Locust
EXIT_VOID: Final = 3
SECRETS: Final = ("secret", "sandbox_secret")
_ABOUT: Final = "Play a part of a run that `flashproof prove --master` on another host leads and judges."


class NoMaster(Fault):
    """Nobody leads the run this worker was started for."""

    code = "no_master"


# --- the one that judges ------------------------------------------------------------------------------------------


def add_master(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run over several hosts to those of ``prove``."""
    add = parser.add_argument_group(
        "several hosts", "one judges, the others play; secrets come from the environment"
    ).add_argument
    add("--master", action="store_true", help="lead workers on other hosts, judge, and write the report")
    add("--expect-workers", type=int, metavar="N", help="with --master: begin when so many have come")
    add("--master-bind-host", metavar="H", help="with --master: listen to them on this address (default all)")
    add("--master-bind-port", type=int, metavar="P", help=f"with --master: and on this port (default {MASTER_PORT})")
    add("--wait", type=float, metavar="S", help=f"seconds to wait for workers, or for the master (default {WAIT_S:g})")
    add("--worker", action="store_true", help="play a part: scenario, options and files come from the master")
    add("--master-host", metavar="H", help="with --worker: where the master is")
    port = f"with --worker: and its port (default {MASTER_PORT}); a worker also takes --processes and --wait"
    add("--master-port", type=int, metavar="P", help=port)


def master_of(options: argparse.Namespace) -> Hosts | None:
    """Return the workers that shall play, or None where the run is played here.

    Raises:
        BadInput: an option does not go with it, or without it.
    """
    for name in ("master_host", "master_port"):
        if getattr(options, name) is not None:
            raise BadInput(f"--{name.replace('_', '-')} is where a worker finds its master: give --worker too")
    if not options.master:
        for name in ("expect_workers", "master_bind_host", "master_bind_port", "wait"):
            if getattr(options, name) is not None:
                raise BadInput(f"--{name.replace('_', '-')} says something of other hosts: give --master too")
        return None
    if options.expect_workers is None:
        raise BadInput(f"--master needs --expect-workers, how many will come: 1 to {WORKERS_MOST}")
    if options.processes != 1:
        raise BadInput("--processes is for the workers to say; with --master leave it out")
    hosts = Hosts(
        workers=round(_within("--expect-workers", options.expect_workers, 1, WORKERS_MOST)),
        bind_host=options.master_bind_host or "*",
        bind_port=round(_within("--master-bind-port", options.master_bind_port or MASTER_PORT, 1, 65_535)),
        wait_s=_within("--wait", WAIT_S if options.wait is None else options.wait, 1, WAIT_MOST_S),
    )
    if options.web == hosts.bind_port:
        raise BadInput(f"--web and --master-bind-port are both {hosts.bind_port}: give one of them another")
    if not _has_secret("secret"):
        raise BadInput(
            f"{variable('secret')} must be set alike here and on every worker: base64 of 32 bytes or more "
            "(`openssl rand -base64 32`)"
        )
    if not options.target:
        _check_shop()
    _free(hosts.bind_host, hosts.bind_port)
    return hosts


def shop_environment() -> dict[str, str]:
    """Return the variables a shop of our own takes from this process's environment, so that workers can know them."""
    return {name: os.environ[name] for name in map(variable, (*SECRETS, "host", "port")) if os.environ.get(name)}


def _check_shop() -> None:
    if not _has_secret("sandbox_secret", 16):
        raise BadInput(
            f"{variable('sandbox_secret')} must be set alike here and on every worker: base64 of 16 bytes or more "
            "(`openssl rand -base64 32`)"
        )
    host = os.environ.get(variable("host"), "127.0.0.1")
    try:
        nowhere = ip_address(host).is_unspecified
    except ValueError:
        nowhere = False
    if nowhere:
        raise BadInput(f"{variable('host')} is where workers reach the shop: one address of this host, not {host}")


def _has_secret(field: str, bytes_least: int = 32) -> bool:
    try:
        return len(base64.b64decode(os.environ.get(variable(field), ""), validate=True)) >= bytes_least
    except ValueError:
        return False


def _free(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server(("" if host == "*" else host, port), family=family):
            return
    except OSError as error:
        raise BadInput(
            f"--master-bind-host {host} --master-bind-port {port}: cannot listen there ({error.strerror}); give another"
        ) from error


def _within(name: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:  # also refuses nan
        raise BadInput(f"{name} must be from {least:,} to {most:,}, not {value}")
    return value


# --- the ones that play -------------------------------------------------------------------------------------------


def play(argv: Sequence[str]) -> int:
    """Play a part and return the exit code: 0 it is home, 3 the run is void.

    Raises:
        BadInput: an option is wrong, or not a worker's to say.
    """
    options = _read_worker(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_VOID))  # Locust ends with this process, however it is ended
    master = f"{options.master_host}:{options.master_port}"
    progress = _Told(master, options.wait, options.processes)
    words = [sys.executable, "-m", "locust", "-f", "-", "--worker", "--loglevel", "WARNING", "--fp-tell"]
    words += ["--master-host", options.master_host, "--master-port", str(options.master_port)]
    if options.processes > 1:
        words += ["--processes", str(options.processes)]
    with tempfile.TemporaryDirectory(prefix="flashproof-worker-") as folder:
        log = Path(folder) / "locust.log"
        try:
            code = follow(words, {}, log, options.wait + PLAY_MOST_S, progress.heard)
        except Fault as error:
            return _void(progress, str(error))
        if progress.over == 0:
            progress.step_line.end()
            sys.stderr.write(f"its part is home; the master at {master} judges\n")
            return 0
        if progress.over is not None:
            return _void(progress, progress.why or "the master could not end the run")
        if progress.joined:
            return _void(progress, f"the master at {master} went away; look there for the reason")
        return _void(progress, f"Locust ended with exit code {code}:\n{log_tail(log)}")


def _void(progress: _Told, why: str) -> int:
    progress.step_line.end()
    sys.stderr.write(f"VOID: {why}\n")
    return EXIT_VOID


def _read_worker(argv: Sequence[str]) -> argparse.Namespace:
    codes = "Exit codes: 0 its part is home (the master judges), 3 the run is void, 64 bad usage."
    parser = Arguments(prog="flashproof prove --worker", description=_ABOUT, epilog=codes, allow_abbrev=False)
    add = parser.add_argument
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--master-host", metavar="H", help="where the master is")
    add("--master-port", type=int, metavar="P", default=MASTER_PORT, help=f"and its port (default {MASTER_PORT})")
    add("--processes", type=int, metavar="N", default=1, help="how many workers to be, at best one a core (default 1)")
    add("--wait", type=float, metavar="S", default=WAIT_S, help=f"seconds to wait for the master (default {WAIT_S:g})")
    options, others = parser.parse_known_args(argv)
    if others:
        raise BadInput(f"{others[0].partition('=')[0]} is for the master to say; with --worker leave it out")
    if not options.master_host:
        raise BadInput("--worker needs --master-host, where `flashproof prove --master` runs")
    _within("--master-port", options.master_port, 1, 65_535)
    _within("--processes", options.processes, 1, WORKERS_MOST)
    _within("--wait", options.wait, 1, WAIT_MOST_S)
    try:
        socket.getaddrinfo(options.master_host, options.master_port)
    except (OSError, UnicodeError) as error:
        raise BadInput(f"--master-host {options.master_host} is no host that is known here; correct it") from error
    if not _has_secret("secret"):
        raise BadInput(f"{variable('secret')} must be the master's own: base64 of 32 bytes or more")
    return options


class _Told:
    """What the worker's processes have said."""

    def __init__(self, master: str, wait_s: float, processes: int) -> None:
        self.step_line = Progress(1.0)
        self.over: int | None = None
        self.why = ""
        self._master, self._wait_s, self._processes = master, wait_s, processes
        self._until = time.monotonic() + wait_s
        self._joined = 0
        self.step_line.step(f"waiting for the master at {master}")

    @property
    def joined(self) -> bool:
        """Whether all of them have found the master."""
        return self._joined >= self._processes

    def heard(self, said: dict[str, Any] | None) -> None:
        """Show a message, and end the waiting for a master that does not come.

        Raises:
            NoMaster: it did not come in time.
        """
        if said is None:
            if not self.joined and self.over is None and time.monotonic() > self._until:
                raise NoMaster(
                    f"no master answered at {self._master} within {self._wait_s:g} s: run `flashproof prove --master` "
                    "there, let its port be reached from here, or correct --master-host"
                )
        elif "over" in said:
            self.over = max(self.over or 0, int(said["over"]))
            self.why = self.why or said["why"]
        elif "step" in said:
            self._joined += said["step"].startswith("joined")
            self.step_line.step(said["step"])
        elif "phase" in said:
            self.step_line.step(f"playing its part: {said['sent']:,} sent, {said['under_way']:,} under way")
