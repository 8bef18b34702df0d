"""One run played by several processes or hosts, through Locust's own messages between master and workers.

    python -m locust -f loadtests/scenarios/flash_sale.py --headless --processes 2 --host … --fp-rate 8000 …
    python -m locust -f … --master --expect-workers 2 …        and on each other host     python -m locust -f … --worker

The master has the options, the files they name and the output; it plays nothing. When the test starts, each worker
connects to the shop and says ``fp_ready`` with what it is; one that is of other code or has other secrets ends the run.
When all are there, the master reads their clocks side by side (``fp_clock``), and ``fp_go`` tells each its part and the
instant, on its own clock, at which the clock of all begins. While it runs they tell their progress; afterwards their
files come home in pieces of 256 KiB, the next few only after the master has acknowledged the last, the clocks are read
again, and the master merges. ``fp_over`` tells every worker how it ended. A worker that dies takes its part of the
history along, so the run cannot be judged: it ends with one line and exit code 3. The worker's side is
``loadtests.generator.follow``.
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
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.generator import likeness
from loadtests.generator.clock_asking import ASKING_MOST_S, Asking, NoAnswer, now_us
from loadtests.generator.generated import Progress
from loadtests.generator.likeness import Likeness
from loadtests.generator.part import together
from loadtests.generator.telling import step
from loadtests.generator.web_face import Together, quit_all
from loadtests.record.axis import Reading, believed, settled
from loadtests.record.merge import FILES, merge_parts

READY_MOST_S: Final = 60.0
LEAD_S: Final = 0.5  # from the last worker's being ready to the clock's zero
LOOK_S: Final = 0.25
EXIT_VOID: Final = 3


def is_master(environment: Any) -> bool:
    """Return whether this process leads others."""
    return isinstance(environment.runner, MasterRunner)


def is_worker(environment: Any) -> bool:
    """Return whether this process is led by another."""
    return isinstance(environment.runner, WorkerRunner)


class Lead:
    """The master's side of one run."""

    def __init__(
        self, environment: Any, name: str, out_dir: Path, secrets: bytes, show: Callable[[Progress], None]
    ) -> None:
        """Listen to the workers.

        Args:
            environment: Locust's.
            name: the scenario's, for messages.
            out_dir: where the merged files go.
            secrets: the workers must have the same.
            show: gets the progress of all together.
        """
        self._environment, self._runner = environment, environment.runner
        self._name, self._out_dir, self._secrets, self._show = name, out_dir, secrets, show
        self._asking = Asking(self._runner)
        self._parts: dict[str, int] = {}  # client id -> index
        self._ready: dict[str, Likeness] = {}
        self._clocks: dict[str, Reading] = {}  # as they were before the run
        self._done: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._folder = Path()
        self._over = False
        self._unplayed = ""  # who did not run the whole of its part
        for word, listener in (
            ("fp_ready", self._on_ready),
            ("fp_progress", self._on_progress),
            ("fp_piece", self._on_piece),
            ("fp_done", self._on_done),
        ):
            self._runner.register_message(word, listener)
        environment.events.test_start.add_listener(self._begin)
        if environment.parsed_options.fp_tell:
            gevent.spawn(self._await_workers)

    # --- before the run ------------------------------------------------------------------------------------------

    def _await_workers(self) -> None:
        """Say who is still missing, and what to do when Locust gives up waiting for them."""
        options, said = self._environment.parsed_options, -1
        until = time.monotonic() + options.expect_workers_max_wait
        while not self._parts and not self._over:
            here = len(self._runner.clients.ready)
            if here != said:
                step(f"{here} of {options.expect_workers} workers are here")
                said = here
            if time.monotonic() > until:
                self._say(
                    f"{here} of {options.expect_workers} workers came within {options.expect_workers_max_wait:g} s: "
                    "run `flashproof prove --worker --master-host <this host>` on the others, and let them reach "
                    f"port {options.master_bind_port} here"
                )
                return
            gevent.sleep(LOOK_S)

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
                late = next(index for client, index in self._parts.items() if client not in self._ready)
                self._end(EXIT_VOID, f"{self._called(late)} was not ready within {READY_MOST_S:g} s")
                return

    def _on_ready(self, msg: Any, **_: Any) -> None:
        client, index = msg.node_id, self._parts.get(msg.node_id)
        if index is None or self._over:
            why = "the run had begun without it: start it before the last one that is expected"
            self._runner.send_message("fp_over", {"code": EXIT_VOID, "why": why}, client)
            return
        try:
            worker = likeness.read(msg.data)
        except msgspec.ValidationError:
            self._end(EXIT_VOID, f"{self._called(index)} is of another version: install the same on every host")
            return
        if why := likeness.unlike(likeness.likeness(client, self._secrets), worker):
            self._end(EXIT_VOID, f"{self._called(index)} {why}")
            return
        self._ready[client] = worker
        if len(self._ready) == len(self._parts):
            gevent.spawn(self._go)  # not in the listener, which must hear what the clocks say

    def _go(self) -> None:
        """Tell everybody when to begin, each by its own clock."""
        try:
            self._clocks = self._read_clocks()
        except NoAnswer as error:
            self._end(EXIT_VOID, self._silent(error))
            return
        if self._over:
            return
        lead_us = round(LEAD_S * 1e6)
        start_us, start_unix_us = now_us() + lead_us, time.time_ns() // 1000 + lead_us
        for client, index in self._parts.items():
            told = {"index": index, "of": len(self._parts), "start_unix_us": start_unix_us}
            self._runner.send_message("fp_go", told | {"start_us": start_us + self._clocks[client].offset_us}, client)

    def _read_clocks(self) -> dict[str, Reading]:
        """Return what each worker's clock shows beside ours.

        Raises:
            NoAnswer: some do not tell.
        """
        readings, ours = self._asking.read(self._parts), likeness.likeness("", self._secrets).clock
        return {
            client: believed(reading, alike=self._ready[client].clock == ours) for client, reading in readings.items()
        }

    def _silent(self, error: NoAnswer) -> str:
        """Return who did not tell its time, and what to do."""
        called = [self._called(self._parts[client]) for client in error.clients]
        more = f" and {len(called) - 1} more" if len(called) > 1 else ""
        return (
            f"{called[0]}{more} did not tell the time within {ASKING_MOST_S:g} s: see that the host is awake and the "
            "network answers within a second, then run again"
        )

    # --- while it runs, and after ---------------------------------------------------------------------------------

    def _on_progress(self, msg: Any, **_: Any) -> None:
        self._progress[msg.node_id] = msgspec.convert(msg.data, Progress)
        if len(self._progress) == len(self._parts):
            all_told = together(list(self._progress.values()))
            self._environment.flashproof_live = Together(all_told)
            self._show(all_told)
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
            self._unplayed = f"{self._called(index)} did not run the whole of its part"
            self._say(self._unplayed)
        if len(self._done) == len(self._parts):
            gevent.spawn(self._merge)  # not in the listener, which must go on listening

    def _merge(self) -> None:
        parts = [self._folder / str(index) for index in range(len(self._parts))]
        try:
            after = self._read_clocks()
            clocks = [
                settled(index + 1, self._ready[client].machine, self._clocks[client], after[client])
                for client, index in self._parts.items()
            ]
            merge_parts(parts, self._out_dir, clocks)
        except NoAnswer as error:
            self._end(EXIT_VOID, self._silent(error))
            return
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
            self._say(why)
        shutil.rmtree(self._folder, ignore_errors=True) if self._folder != Path() else None
        self._environment.process_exit_code = code
        self._runner.send_message("fp_over", {"code": code, "why": why or self._unplayed})
        gevent.spawn(quit_all, self._environment)

    def _say(self, why: str) -> None:
        sys.stderr.write(f"{self._name}: {why}\n")
        sys.stderr.flush()

    def _called(self, index: int) -> str:
        """Return a worker's number and, where workers come from several hosts, the host by the name it gives itself."""
        name = f"worker {index + 1} of {len(self._parts)}"
        if not self._environment.parsed_options.fp_tell:
            return name
        client = next(client for client, number in self._parts.items() if number == index)
        return f"{name} (on {client.rpartition('_')[0]})"


def send_home(environment: Any, code: int) -> None:
    """End a run that must not begin, once the workers are there; those of ``--processes`` would wait for ever."""

    def begin(**_: Any) -> None:
        environment.process_exit_code = code
        gevent.spawn(environment.runner.quit)

    environment.runner.register_message("fp_done", lambda **_: None)
    environment.runner.register_message("fp_ready", lambda **_: None)
    environment.events.test_start.add_listener(begin)
