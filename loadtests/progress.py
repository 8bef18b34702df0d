"""The line that moves while a run runs: on a terminal in place, elsewhere a plain line every few seconds."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, Final

_PLAIN_EVERY_S: Final = 5.0
_REFRESH_S: Final = 0.1


class Progress:
    """Tells what is going on, with the seconds since the start."""

    def __init__(self, seconds: float) -> None:
        """Take how long arrivals will come, in seconds."""
        self._seconds, self._began = seconds, time.monotonic()
        self._watched = sys.stderr.isatty()
        self._shown_at, self._last, self._open = 0.0, "", False

    def step(self, words: str) -> None:
        """Say which step runs; repeating it only moves the clock on."""
        first = words.partition(" for ")[0] != self._last.partition(" for ")[0]
        self._last = words
        self._show(words, at_once=first)

    def sale(self, said: dict[str, Any]) -> None:
        """Show one progress message of the generator."""
        elapsed = min(float(said["elapsed_s"]), self._seconds)
        share = elapsed / self._seconds
        bar = "█" * round(share * 20) + "░" * (20 - round(share * 20))
        rate = said["sent"] / max(elapsed, 0.001)
        phase = bar if said.get("phase") == "sale" else "last answers ".ljust(20)
        self._last = "sale"
        self._show(
            f"{phase} {elapsed:4.0f}/{self._seconds:.0f} s  {rate:6,.0f}/s  accepted {said['accepted']:,}  "
            f"refused {said['refused']:,}  sold {said['sold']:,}  p99 {said['p99_us'] / 1000:.1f} ms",
            at_once=False,
        )

    def note(self, words: str) -> None:
        """Say something that stays."""
        self.end()
        sys.stderr.write(words + "\n")

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False

    def _show(self, words: str, *, at_once: bool) -> None:
        now = time.monotonic()
        wait = _REFRESH_S if self._watched else _PLAIN_EVERY_S
        if not at_once and now - self._shown_at < wait:
            return
        self._shown_at = now
        line = f"[{now - self._began:5.1f} s] {words}"
        if self._watched:
            sys.stderr.write("\r" + line[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
            self._open = True
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
