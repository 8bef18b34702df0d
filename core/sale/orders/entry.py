"""Journal entries and the facts in them, each with its place. Pure: stream.py reads them, project.py applies them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from core.facts import Fact, Poison, open_record


class Entry(NamedTuple):
    """One stream entry: its id and its records, those of placed orders one by one (see ``parts``)."""

    ms: int
    seq: int
    records: list[bytes]


class Row(NamedTuple):
    """One fact with its place in the journal."""

    order_id: UUID
    fact: Fact
    ms: int
    seq: int
    record: int


def read(entries: Iterable[Entry]) -> tuple[list[Row], list[tuple[int, int, int, str, bytes]]]:
    """Return the facts of entries, and the records to set aside as (entry ms, seq, record, reason, raw)."""
    rows: list[Row] = []
    poison: list[tuple[int, int, int, str, bytes]] = []
    for entry in entries:
        for number, record in enumerate(entry.records):
            try:
                order_id, fact = open_record(record)
            except Poison as error:
                poison.append((entry.ms, entry.seq, number, str(error), record))
            else:
                rows.append(Row(UUID(bytes=order_id), fact, entry.ms, entry.seq, number))
    return rows, poison
