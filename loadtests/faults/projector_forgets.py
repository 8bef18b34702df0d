"""A projector that skips one journal entry of placed orders and moves its cursor past it."""

from __future__ import annotations

from collections.abc import Iterable

from core.facts import Placed
from core.sale.orders import entry, project
from core.sale.orders.entry import Entry, Row

_SKIPPED = 7  # which entry with placed orders is forgotten, counted from the process's start

_read = entry.read
_seen = 0


def _forgetful(entries: Iterable[Entry]) -> tuple[list[Row], list[tuple[int, int, int, str, bytes]]]:
    global _seen
    kept = []
    for one in entries:
        rows, _ = _read([one])
        if any(isinstance(row.fact, Placed) for row in rows):
            _seen += 1
            if _seen == _SKIPPED:
                continue
        kept.append(one)
    return _read(kept)


def plant() -> None:
    """Make the projector forget."""
    project.read = _forgetful  # type: ignore[attr-defined]
