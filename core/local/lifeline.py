"""A child process must not outlive a parent that was killed."""

from __future__ import annotations

import signal
import subprocess
from typing import Final

# `read` ends when the last writer of the pipe is gone: the parent, however it died.
_SCRIPT: Final = 'read -r _; kill -s "$1" -- "$2" 2>/dev/null'


class Lifeline:
    """Ends a process when we die without having ended it ourselves.

    A small shell waits on a pipe that only we hold; when we are gone the pipe breaks and the shell sends the
    signal. The kernel's own way, PR_SET_PDEATHSIG, fires when the *thread* that started the child ends, which
    is no accident in a program that starts its children from threads.
    """

    def __init__(self, target: int, sign: signal.Signals) -> None:
        """Watch over `target`, a process id, or a negative process group id."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "lifeline", sign.name.removeprefix("SIG"), str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Stop watching, because the process has ended: its id may soon be another's. May be called again."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
