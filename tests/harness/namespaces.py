"""Hosts of a test's own: network namespaces joined by veth pairs, each worker's with a clock of its own as well."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MASTER = "10.77.1.1"
NEEDS = ("ip", "unshare", "mount")
CLOCKS_AHEAD_S = (7_200, 3_600)  # what each worker's monotonic clock shows more than the master's


class Network:
    """One host for the shop and the master, and one for each worker; nothing of it can be reached from outside."""

    def __init__(self, hidden: Path) -> None:
        """Name them; ``hidden`` is a directory of the master's that workers do not see."""
        self._names = [f"fp{os.getpid()}{letter}" for letter in "mab"]
        self._hidden = hidden

    def make(self) -> None:
        """Make them, or skip the test where that cannot be done."""
        if os.geteuid() != 0 or not all(map(shutil.which, NEEDS)):
            pytest.skip(f"network namespaces need root and {', '.join(NEEDS)}: runs over hosts are not tested here")
        try:
            for name in self._names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            for number, worker in enumerate(self._names[1:], 1):
                ends = f"{self._names[0]}v{number}", f"{worker}v"
                ip("-n", self._names[0], "link", "add", ends[0], "type", "veth", "peer", ends[1], "netns", worker)
                for name, end, last in ((self._names[0], ends[0], 1), (worker, ends[1], 2)):
                    ip("-n", name, "address", "add", f"10.77.{number}.{last}/30", "dev", end)
                    ip("-n", name, "link", "set", end, "up")
                ip("-n", worker, "route", "add", "default", "via", f"10.77.{number}.1")
        except subprocess.CalledProcessError as error:
            self.remove()
            pytest.skip(f"network namespaces cannot be made here ({error.stderr.strip()})")

    def remove(self) -> None:
        """Take away what was made; a pair of devices goes with the namespace of either end."""
        for name in self._names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)

    def on_master(self, *words: str) -> list[str]:
        """Return the command line of a process on the first host."""
        return ["ip", "netns", "exec", self._names[0], *words]

    def on_worker(self, number: int, *words: str) -> list[str]:
        """Return the command line of a process on a worker's host."""
        ahead = str(CLOCKS_AHEAD_S[number])
        hide = 'mount -t tmpfs none "$0" && exec "$@"'
        apart = ["unshare", "--mount", "--time", "--monotonic", ahead, "--boottime", ahead, "--fork"]
        return ["ip", "netns", "exec", self._names[number + 1], *apart, "sh", "-c", hide, str(self._hidden), *words]


def ip(*words: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True, timeout=10)


@contextlib.contextmanager
def network(hidden: Path) -> Iterator[Network]:
    """Have hosts for a while."""
    made = Network(hidden)
    made.make()
    try:
        yield made
    finally:
        made.remove()
