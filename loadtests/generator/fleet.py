"""One run played by several processes or hosts, through Locust's own messages between master and workers.

    python -m locust -f loadtests/scenarios/flash_sale.py --headless --processes 2 --host … --fp-rate 8000 …
    python -m locust -f … --master --expect-workers 2 …        and on each other host     python -m locust -f … --worker

The master has the options and the output; it plays nothing. When the test starts, each worker connects to the shop and
says ``fp_ready``; when all have, ``fp_go`` tells each its part and the instant at which the clock of all begins. While
it runs they tell their progress; afterwards their files come home in pieces of 256 KiB, the next few only after the
master has acknowledged the last, and the master merges them. A worker that dies takes its part of the history along,
so the run cannot be judged: it ends with one line and exit code 3. So does a worker whose clock is not the master's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from core.errors import BadInput
from loadtests.generator.dispatcher import Progress
from loadtests.generator.part import Part, WrongClock, agreed, together
from loadtests.generator.web_face import quit_all
from loadtests.record.merge import FILES, merge_parts

PIECE_BYTES: Final = 262_144
PIECES_UNTIL_ACK: Final = 16  # 4 MiB of a worker are under way at most
READY_MOST_S: Final = 60.0
HOME_MOST_S: Final = 120.0  # without an acknowledgement
LEAD_S: Final = 0.5  # from the last worker's being ready to the clock's zero
LOOK_S: Final = 0.25
EXIT_VOID: Final = 3


def is_master(environment: Any) -> bool:
    """Return whether this process leads others."""
    return isinstance(environment.runner, MasterRunner)


def is_worker(environment: Any) -> bool:
    """Return whether this process is led by another."""
    return isinstance(environment.runner, WorkerRunner)


# --- the master -------------------------------------------------------------------------------------------------


class Lead:
    """The master's side of one run."""

    def __init__(self, environment: Any, name: str, out_dir: Path, show: Callable[[Progress], None]) -> None:
        """Listen to the workers.

        Args:
            environment: Locust's.
            name: the scenario's, for messages.
            out_dir: where the merged files go.
            show: gets the progress of all together.
        """
        self._environment, self._runner = environment, environment.runner
        self._name, self._out_dir, self._show = name, out_dir, show
        self._parts: dict[str, int] = {}  # client id -> index
        self._ready: set[str] = set()
        self._done: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._folder = Path()
        self._over = False
        for word, listener in (
            ("fp_ready", self._on_ready),
            ("fp_progress", self._on_progress),
            ("fp_piece", self._on_piece),
            ("fp_done", self._on_done),
        ):
            self._runner.register_message(word, listener)
        environment.events.test_start.add_listener(self._begin)

    def _begin(self, **_: Any) -> None:
        self._environment.process_exit_code = 1  # until all is well
        clients = sorted((client.id for client in self._runner.clients.ready), key=self._runner.get_worker_index)
        self._parts = {client: index for index, client in enumerate(clients)}
        try:
            self._out_dir.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".parts-", dir=self._out_dir))
        except OSError as error:
            self._end(64, f"--fp-out {self._out_dir}: {error.strerror}")
            return
        gevent.spawn(self._look_after)

    def _look_after(self) -> None:
        """End the run when a worker is gone, or when not all are ready in time."""
        until = time.monotonic() + READY_MOST_S
        while not self._over and len(self._done) < len(self._parts):
            gevent.sleep(LOOK_S)
            for client, index in self._parts.items():
                node = self._runner.clients.get(client)
                if client not in self._done and (node is None or node.state == STATE_MISSING):
                    self._end(EXIT_VOID, f"{self._called(index)} died, and its part of the history with it")
                    return
            if len(self._ready) < len(self._parts) and time.monotonic() > until:
                self._end(EXIT_VOID, f"not every worker was ready within {READY_MOST_S:g} s")
                return

    def _on_ready(self, msg: Any, **_: Any) -> None:
        self._ready.add(msg.node_id)
        if len(self._ready) < len(self._parts):
            return
        now_us = time.time_ns() // 1000
        for client, index in self._parts.items():
            told = {"index": index, "of": len(self._parts), "now_unix_us": now_us}
            self._runner.send_message("fp_go", told | {"start_unix_us": now_us + round(LEAD_S * 1e6)}, client)

    def _on_progress(self, msg: Any, **_: Any) -> None:
        self._progress[msg.node_id] = msgspec.convert(msg.data, Progress)
        if len(self._progress) == len(self._parts):
            self._show(together(list(self._progress.values())))
            self._progress = {}

    def _on_piece(self, msg: Any, **_: Any) -> None:
        index, name = self._parts.get(msg.node_id), msg.data["file"]
        if index is None or name not in FILES or self._over:
            return
        folder = self._folder / str(index)
        folder.mkdir(exist_ok=True)
        with (folder / name).open("ab") as file:
            file.write(msg.data["bytes"])
        if msg.data["ack"]:
            self._runner.send_message("fp_ack", None, msg.node_id)

    def _on_done(self, msg: Any, **_: Any) -> None:
        index, code = self._parts.get(msg.node_id), msg.data["code"]
        if index is None or self._over:
            return
        if not msg.data["home"]:
            self._end(code or EXIT_VOID, f"{self._called(index)} could not play its part: {msg.data['why']}")
            return
        self._done.add(msg.node_id)
        if code:
            sys.stderr.write(f"{self._name}: {self._called(index)} did not run the whole of its part\n")
        if len(self._done) == len(self._parts):
            gevent.spawn(self._merge)  # not in the listener, which must go on listening

    def _merge(self) -> None:
        parts = [self._folder / str(index) for index in range(len(self._parts))]
        try:
            merge_parts(parts, self._out_dir)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._end(EXIT_VOID, f"the workers' parts make no whole: {error}")
            return
        told = msgspec.json.decode((self._out_dir / "generator.json").read_bytes())
        self._end(0 if told["complete"] else 1, "")

    def _end(self, code: int, why: str) -> None:
        if self._over:
            return
        self._over = True
        if why:
            sys.stderr.write(f"{self._name}: {why}\n")
        shutil.rmtree(self._folder, ignore_errors=True) if self._folder != Path() else None
        self._environment.process_exit_code = code
        gevent.spawn(quit_all, self._environment)

    def _called(self, index: int) -> str:
        return f"worker {index + 1} of {len(self._parts)}"


def send_home(environment: Any, code: int) -> None:
    """End a run that must not begin, once the workers are there; those of ``--processes`` would wait for ever."""

    def begin(**_: Any) -> None:
        environment.process_exit_code = code
        gevent.spawn(environment.runner.quit)

    environment.runner.register_message("fp_done", lambda **_: None)
    environment.events.test_start.add_listener(begin)


# --- a worker ---------------------------------------------------------------------------------------------------


class Follow:
    """A worker's side: plays its part when the test starts, and sends home what it left."""

    def __init__(self, environment: Any, play: Callable[[Path, Callable[[], Part], Callable[[Progress], None]], int]):
        """Listen to the master.

        Args:
            environment: Locust's.
            play: (output directory, where the part is told, where progress goes) → exit code; ValueError or BadInput:
                the options do not fit here.
        """
        self._runner, self._play = environment.runner, play
        self._go: AsyncResult = AsyncResult()
        self._acknowledged = Event()
        self._player: Any = None
        self._runner.register_message("fp_go", lambda msg, **_: self._go.set(msg.data))
        self._runner.register_message("fp_ack", lambda **_: self._acknowledged.set())
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stop.add_listener(self._stop)

    def _begin(self, **_: Any) -> None:
        self._player = gevent.spawn(self._run)

    def _stop(self, **_: Any) -> None:
        if self._player is not None:
            self._player.kill(timeout=10)

    def _run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="flashproof-part-") as folder:
            code, why = 1, ""
            try:
                code = self._play(Path(folder), self._part, self._tell)
            except (ValueError, BadInput) as error:
                code, why = 64, str(error)
            except WrongClock as error:
                code, why = EXIT_VOID, str(error)
            except Exception as error:  # noqa: BLE001  # a fault here must not leave the master waiting for ever
                code, why = EXIT_VOID, f"{type(error).__name__}: {error}"
            home = all((Path(folder) / name).exists() for name in FILES)
            if home:
                self._send_home(Path(folder))
            why = why or f"it ended with exit code {code}; its own log says why"
            self._runner.send_message("fp_done", {"code": code, "home": home, "why": why})

    def _part(self) -> Part:
        """Say that this worker is ready, and return its part.

        Raises:
            WrongClock: the master's clock is another.
        """
        self._runner.send_message("fp_ready")
        told = self._go.get(timeout=READY_MOST_S * 2)
        return agreed(told, time.time_ns() // 1000)

    def _tell(self, progress: Progress) -> None:
        self._runner.send_message("fp_progress", msgspec.to_builtins(progress))

    def _send_home(self, folder: Path) -> None:
        sent = 0
        for name in FILES:
            with (folder / name).open("rb") as file:
                while True:
                    piece = file.read(PIECE_BYTES)
                    sent += 1
                    ack = sent % PIECES_UNTIL_ACK == 0
                    self._acknowledged.clear()
                    self._runner.send_message("fp_piece", {"file": name, "bytes": piece, "ack": ack})
                    if ack and not self._acknowledged.wait(HOME_MOST_S):
                        return
                    if len(piece) < PIECE_BYTES:
                        break
