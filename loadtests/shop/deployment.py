"""A whole shop of our own, supervised: stores, server and projector, for `prove`, tests and fault injection.

One thread watches each part. A part that ends without being asked to is started again after a short pause, as
is one that was killed on purpose. Both are written down as incidents: a run in which a store died by itself
cannot be judged. The process that uses this must not be patched by gevent; the watchers are real threads.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from core import settings as deployment_settings
from core.errors import BadInput, Fault
from core.local.restarts import Restarts
from core.local.stores import LocalStores
from core.settings import DRAIN_MOST_S, Settings
from loadtests.shop.parts import Command, Part, cpu_seconds, log_tail

CORE: Final = (sys.executable, "-m", "core")
STOP_MOST_S: Final = DRAIN_MOST_S + 5.0
RUN_MOST_S: Final = 300.0
READY_MOST_S: Final = 30.0
METRICS_MOST_S: Final = 5.0
LOOK_S: Final = 0.05
_PORTS: Final = range(20_000, 32_000)
PAUSE_LEAST_S: Final = 0.1
PAUSE_MOST_S: Final = 2.0
ROLES: Final = {
    "serve": "server",
    "work": "worker",
    "valkey": "valkey",
    "postgres": "postgres",
}  # part: in the report


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A part ended, or could not be started again."""

    at: float  # seconds since 1970
    what: str  # serve, work, valkey or postgres
    exit_code: int | None  # negative: by that signal; None: it did not start
    planned: bool
    detail: str = ""


class _Watched:
    """A part, with what its watcher must remember about it."""

    def __init__(self, name: str, part: Part) -> None:
        self.name = name
        self.part = part
        self.lock = threading.Lock()  # held while the part is started, stopped or killed
        self.asked_for = False  # the end that the watcher will see was planned
        self.gave_up = False
        self.restarts = Restarts()
        self.past_cpu_s = 0.0  # of processes that were killed on purpose

    def cpu_s(self) -> float:
        return self.past_cpu_s + cpu_seconds(self.part.pid)

    def stop(self) -> None:
        with self.lock:  # a start under way is waited for, or what it starts would be left behind
            self.part.stop(STOP_MOST_S)


class Deployment:
    """A shop in one directory. Use it as a context manager; on leaving nothing is left running."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        settings: Settings | None = None,
        launcher: Sequence[str] = CORE,
        environment: Mapping[str, str] | None = None,
        keep_data: bool = False,
    ) -> None:
        """Plan a deployment; start nothing.

        Args:
            directory: of this run; gets `logs/` and, for stores of our own, `stores/`.
            workers: processes of `serve`.
            settings: of stores that run already; those are neither started, killed nor stopped here.
                None: private stores, fresh secrets and free ports.
            launcher: what stands before the verb on every command line, e.g. to plant a fault.
            environment: more variables for every process; FLASHPROOF_* among them change the settings too.
            keep_data: leave the private stores' data on stop.
        """
        self.directory = directory
        self.incidents: list[Incident] = []
        self._workers = workers
        self._launcher = tuple(launcher)
        self._environment = dict(environment or {})
        self._keep_data = keep_data
        self._settings = settings
        self._stores: LocalStores | None = None
        self._watched: dict[str, _Watched] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    # --- what others need to know --------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings every process has; there once `start` has begun the stores."""
        if self._settings is None:
            raise BadInput("the deployment has no settings before it is started")
        return self._settings

    @property
    def url(self) -> str:
        """Where buyers are served."""
        return f"http://{self.settings.host}:{self.settings.port}"

    @property
    def unplanned(self) -> list[Incident]:
        """The incidents nobody asked for."""
        return [incident for incident in self.incidents if not incident.planned]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what it runs now: serve, work, and our own valkey and postgres."""
        return tuple(self._watched)

    @property
    def workers(self) -> int:
        """Processes of `serve`."""
        return self._workers

    def pid(self, what: str) -> int | None:
        """Return the process id of a part (of serve: the parent of its workers) while it runs."""
        return self._part(what).part.pid

    def log_file(self, what: str) -> Path:
        """Return where a part's output goes while it runs."""
        return self._part(what).part.log_file

    def cpu_seconds(self) -> dict[str, float]:
        """Return user and system seconds so far, by role: server, worker, and our own valkey and postgres.

        Workers and backends are in it, also those that ended; not what a part used before it died unplanned.
        Ask before `stop`: nothing is left to be measured afterwards.
        """
        return {ROLES[name]: watched.cpu_s() for name, watched in self._watched.items()}

    # --- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the stores, migrate, start serve and work, and watch them all. See `wait_ready`.

        Raises:
            Fault: a store or the migration failed; everything has been stopped again.
        """
        try:
            (self.directory / "logs").mkdir(parents=True, exist_ok=True)
            self._stopping.clear()
            if self._settings is None or self._stores is not None:
                self._start_stores()
            self._settings = self._changed(self.settings)
            self.run("migrate")
            for name, argv in (("serve", ["--workers", str(self._workers)]), ("work", [])):
                log_file = self.directory / "logs" / f"{name}.log"
                self._watch(name, Command([*self._launcher, name, *argv], self.environment(), log_file))
        except BaseException:
            self.stop()
            raise

    def environment(self) -> dict[str, str]:
        """Return the environment of every process of this deployment, and of nothing else's settings."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("FLASHPROOF_")}
        return {**ours, **self._environment, **deployment_settings.to_environment(self.settings)}

    def run(self, *argv: str, timeout_s: float = RUN_MOST_S) -> subprocess.CompletedProcess[str]:
        """Run one command of the shop to its end, e.g. ``run("keys", "import", "gold", "keys.txt")``.

        Raises:
            Fault: it ended with another code than 0 (with its standard error), or not within `timeout_s` s.
        """
        try:
            done = subprocess.run(
                [*self._launcher, *argv],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Fault(f"`{' '.join(argv)}` did not end within {timeout_s:.0f} s") from error
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise Fault(f"`{' '.join(argv)}` ended with exit code {done.returncode}:\n{said}")
        return done

    def wait_ready(self, timeout_s: float = READY_MOST_S) -> None:
        """Return when serve and work both say that they are ready.

        Raises:
            Fault: one does not within `timeout_s` seconds, or was given up; with the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        for name, port in (("serve", self.settings.ops_port), ("work", self.settings.work_ops_port)):
            watched = self._part(name)
            while not _says_ready(self.settings.ops_host, port):
                if watched.gave_up or time.monotonic() > deadline:
                    raise Fault(f"{name} is not ready:\n{log_tail(watched.part.log_file)}")
                time.sleep(LOOK_S)

    def metrics(self, what: str) -> str:
        """Return what serve or work has counted, as Prometheus's text; nothing if it does not answer."""
        port = self.settings.ops_port if what == "serve" else self.settings.work_ops_port
        connection = http.client.HTTPConnection(self.settings.ops_host, port, timeout=METRICS_MOST_S)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def kill(self, what: str) -> bool:
        """SIGKILL serve (with its workers), work, valkey or postgres; it is brought back.

        Returns:
            Whether there was something to kill.

        Raises:
            BadInput: there is no such part, or it is not ours.
        """
        return self._end(what, force=True)

    def restart(self, what: str) -> bool:
        """Stop a part gracefully; it is brought back. Returns and raises as `kill`."""
        return self._end(what, force=False)

    def stop(self) -> None:
        """Stop serve, then work, then our stores, each by force when it takes too long. Safe to repeat."""
        self._stopping.set()
        with contextlib.ExitStack() as steps:  # the last one first, and every one, whatever the others raise
            steps.callback(self._watched.clear)
            if self._stores is not None:
                steps.callback(self._stop_stores, self._stores)
            for watched in map(self._watched.get, ("work", "serve")):
                if watched is not None:
                    steps.callback(watched.stop)
            for thread in self._threads:
                steps.callback(thread.join)
        self._threads.clear()

    def __enter__(self) -> Self:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.stop()

    # --- how -----------------------------------------------------------------------------------------------

    def _changed(self, settings: Settings) -> Settings:
        return deployment_settings.load({**deployment_settings.to_environment(settings), **self._environment})

    def _part(self, what: str) -> _Watched:
        if what not in self._watched:
            raise BadInput(f"this deployment runs {', '.join(self._watched) or 'nothing'}, not {what!r}")
        return self._watched[what]

    def _end(self, what: str, *, force: bool) -> bool:
        watched = self._part(what)
        with watched.lock:
            if not watched.part.is_running():
                return False
            watched.past_cpu_s = watched.cpu_s()
            watched.asked_for = True
            if force:
                watched.part.kill()
            else:
                watched.part.stop(STOP_MOST_S)
            self._record(watched, planned=True)
        return True

    def _record(self, watched: _Watched, *, planned: bool, detail: str = "") -> None:
        self.incidents.append(
            Incident(
                at=time.time(),
                what=watched.name,
                exit_code=watched.part.exit_code,
                planned=planned,
                detail=detail,
            )
        )

    def _watch(self, name: str, part: Part) -> None:
        """Start a part, unless it runs, and a thread that keeps it running."""
        watched = self._watched[name] = _Watched(name, part)
        part.start()
        thread = threading.Thread(target=self._keep_running, args=(watched,), name=f"watch-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep_running(self, watched: _Watched) -> None:
        pause_s = PAUSE_LEAST_S
        while not self._stopping.wait(LOOK_S):
            if watched.part.is_running():
                continue
            with watched.lock:
                planned, watched.asked_for = watched.asked_for, False
                if not planned:
                    self._record(watched, planned=False, detail=log_tail(watched.part.log_file))
            if planned:
                pause_s = PAUSE_LEAST_S
            elif not watched.restarts.allow(time.monotonic()):
                watched.gave_up = True
                return
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, PAUSE_MOST_S)
            with watched.lock, contextlib.suppress(Fault, OSError):  # the next turn sees it down
                if not self._stopping.is_set():
                    watched.part.start()

    def _start_stores(self) -> None:
        self._stores = stores = self._stores or LocalStores(self.directory / "stores")
        stores.start()
        self._settings = self._settings or _private_settings(stores)
        for server in stores.servers:
            self._watch(server.folder, server)

    def _stop_stores(self, stores: LocalStores) -> None:
        stores.stop()
        for server in stores.servers:
            with contextlib.suppress(OSError):
                shutil.copyfile(server.log_file, self.directory / "logs" / f"{server.folder}.log")
        if not self._keep_data:
            stores.remove()


def _private_settings(stores: LocalStores) -> Settings:
    port, ops_port, work_ops_port = free_ports(3)
    return Settings(
        valkey_url=stores.valkey_url,
        postgres_dsn=stores.postgres_dsn,
        secret=secrets.token_bytes(32),
        vault_key=secrets.token_bytes(32),
        sandbox_secret=secrets.token_bytes(32),
        port=port,
        ops_port=ops_port,
        work_ops_port=work_ops_port,
    )


def free_ports(count: int) -> list[int]:
    """Return so many different loopback ports that nobody used a moment ago.

    They lie below the range from which the kernel gives ports to connecting clients: while a killed server is
    down, one of thousands of clients trying its port would sooner or later be given that very port.
    """
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def _says_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
