"""A worker's side of a run that several processes or hosts play; the master's is ``loadtests.generator.fleet``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import gevent
import msgspec
from gevent.event import AsyncResult, Event

from core.errors import BadInput
from loadtests.generator import clock_asking
from loadtests.generator.fleet import EXIT_VOID, READY_MOST_S
from loadtests.generator.generated import Progress
from loadtests.generator.likeness import likeness
from loadtests.generator.part import CannotPlay, Part
from loadtests.generator.telling import step, tell
from loadtests.record.merge import FILES

PIECE_BYTES: Final = 262_144
PIECES_UNTIL_ACK: Final = 16  # 4 MiB of a worker are under way at most
HOME_MOST_S: Final = 120.0  # without an acknowledgement
GO_MOST_S: Final = 1.5 * READY_MOST_S  # the master waits for the others, and reads all clocks
EXIT_USAGE: Final = 64
_AskPart: TypeAlias = Callable[[bytes], Part]


class Follow:
    """Plays its part when the test starts, and sends home what it left."""

    def __init__(self, environment: Any, play: Callable[[Path, _AskPart, Callable[[Progress], None]], int]) -> None:
        """Listen to the master.

        Args:
            environment: Locust's.
            play: (output directory, who tells the part, given the secrets, where progress goes) → exit code;
                ValueError, BadInput or CannotPlay: the options do not fit here.
        """
        self._environment, self._runner, self._play = environment, environment.runner, play
        self._tells = environment.parsed_options.fp_tell  # now: later the master's options are in its place
        self._go: AsyncResult = AsyncResult()
        self._acknowledged = Event()
        self._player: Any = None
        environment.process_exit_code = EXIT_VOID  # until the master says that all is well
        self._runner.register_message("fp_go", lambda msg, **_: self._go.set(msg.data))
        self._runner.register_message("fp_ack", lambda **_: self._acknowledged.set())
        self._runner.register_message("fp_over", self._on_over)
        clock_asking.answer(self._runner)
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stop.add_listener(self._stop)
        self._step("joined; waiting for the master to begin")

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
                code, why = EXIT_USAGE, str(error)
            except CannotPlay as error:
                code, why = error.code, str(error)
            except Exception as error:  # noqa: BLE001  # a fault here must not leave the master waiting for ever
                code, why = EXIT_VOID, f"{type(error).__name__}: {error}"
            home = all((Path(folder) / name).exists() for name in FILES)
            if home:
                self._step("sending its part home")
                self._send_home(Path(folder))
            why = why or f"it ended with exit code {code}; its own log says why"
            self._runner.send_message("fp_done", {"code": code, "home": home, "why": why})

    def _on_over(self, msg: Any, **_: Any) -> None:
        """Learn from the master how the run ended for all."""
        self._environment.process_exit_code = msg.data["code"]
        if self._tells:
            tell({"over": msg.data["code"], "why": msg.data["why"]})

    def _part(self, secrets: bytes) -> Part:
        """Say that this worker is ready, and return its part.

        Raises:
            CannotPlay: the master does not answer, or answered too late.
        """
        self._runner.send_message("fp_ready", msgspec.to_builtins(likeness(self._runner.client_id, secrets)))
        self._step("ready; waiting for the other workers")
        try:
            told = self._go.get(timeout=GO_MOST_S)
        except gevent.Timeout as error:
            raise CannotPlay(f"the master did not let it begin within {GO_MOST_S:g} s", EXIT_VOID) from error
        late_us = clock_asking.now_us() - told["start_us"]
        if late_us > 0:
            raise CannotPlay(f"the signal to begin came {late_us / 1e6:.2f} s too late: see to the network", EXIT_VOID)
        return Part(told["index"], told["of"], told["start_us"], told["start_unix_us"])

    def _step(self, words: str) -> None:
        if self._tells:
            step(words)

    def _tell(self, progress: Progress) -> None:
        self._runner.send_message("fp_progress", msgspec.to_builtins(progress))
        if self._tells:
            tell(progress)

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
