"""Keys that come in while a sale runs: imported by the command's own code, each when its time has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from core.errors import FlashproofError
from core.settings import Settings
from loadtests.generator.scenario import Restock
from loadtests.shop.stage import restock

JOIN_MOST_S: Final = 30.0


class Restocking:
    """Imports on a timetable, one after the other on a thread of its own, so that no kill or progress waits for it."""

    def __init__(
        self,
        settings: Settings,
        sku: str,
        stock: int,
        restocks: Sequence[Restock],
        seconds: float,
        bring: Callable[[Settings, str, int, int], None] = restock,
    ) -> None:
        """Plan the imports; begin none.

        Args:
            settings: of the shop.
            sku: what is imported.
            stock: its units that stood ready; the new keys are numbered on from there.
            restocks: what comes when, as parts of the time and shares of the stock.
            seconds: of the sale.
            bring: imports so many keys from a number on.
        """
        self._settings, self._sku, self._bring = settings, sku, bring
        self._left, first = [], stock
        for one in sorted(restocks, key=lambda one: one.at):
            units = max(1, round(one.units * stock))
            self._left.append((one.at * seconds, first, units))
            first += units
        self._thread: threading.Thread | None = None
        self.failed: list[tuple[float, str]] = []  # seconds since the start, and why

    def begin(self, began: float) -> None:
        """Take when the sale began, on the monotonic clock; once is enough."""
        if self._thread is None and self._left:
            self._thread = threading.Thread(target=self._run, args=(began,), name="restocking", daemon=True)
            self._thread.start()

    def finish(self) -> list[tuple[float, str]]:
        """Wait for an import under way and return what failed: (seconds since the start, why)."""
        if self._thread is not None:
            self._thread.join(JOIN_MOST_S)
        return self.failed + [(at_s, "its time never came") for at_s, _, _ in self._left]

    def _run(self, began: float) -> None:
        while self._left:
            at_s, first, units = self._left[0]
            time.sleep(max(0.0, began + at_s - time.monotonic()))
            try:
                self._bring(self._settings, self._sku, first, units)
            except (FlashproofError, OSError) as error:
                self.failed.append((at_s, str(error)))
            self._left.pop(0)
