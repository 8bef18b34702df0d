"""The journal's intake: every entry once, in order, in portions that fit a transaction and reads that fit a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.sale.orders.entry import Entry
from core.sale.orders.stream import Intake

MOST = 10
sizes = st.lists(st.integers(0, 25), max_size=80)


class Journal:
    """A stream as XREAD shows it; it grows when it is told to."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.entries = [Entry(ms, 0, [b"%d-%d" % (ms, n) for n in range(size)]) for ms, size in enumerate(sizes, 1)]
        self.shown = len(self.entries)
        self.asked: list[tuple[int, bool]] = []  # how many entries, and whether it would have waited

    async def command(self, *words: Any) -> Any:
        assert (words[0], words[1]) == ("XREAD", "COUNT")
        after = int(str(words[-1]).partition("-")[0])
        self.asked.append((words[2], "BLOCK" in words))
        found = self.entries[after : self.shown][: words[2]]
        raw = [[b"%d-0" % e.ms, [part for record in e.records for part in (b"r", record)]] for e in found]
        return [[b"facts", raw]] if raw else None


def drained(journal: Journal, most: int = MOST) -> list[list[Entry]]:
    """Take until nothing is left."""

    async def take() -> list[list[Entry]]:
        intake, portions = Intake(journal, (0, 0), most), []  # type: ignore[arg-type]
        while portion := await intake.take(100):
            portions.append(portion)
        assert not intake.is_behind
        return portions

    return asyncio.run(take())


@given(sizes)
def test_every_entry_is_taken_once_and_in_order(sizes: list[int]) -> None:
    """Stops: an entry lost between two portions, or projected twice, which the cursor would not notice."""
    journal = Journal(sizes)
    assert [entry for portion in drained(journal) for entry in portion] == journal.entries


@given(sizes)
def test_a_portion_fits_one_transaction_unless_one_entry_does_not(sizes: list[int]) -> None:
    """Stops: a transaction of any length after a pause; and an entry too large that stops the shop for ever."""
    for portion in drained(Journal(sizes)):
        assert len(portion) == 1 or sum(len(entry.records) for entry in portion) <= MOST


def test_small_entries_are_not_taken_a_few_at_a_time() -> None:
    """Stops: 64 single orders a transaction, 1,600 a second, while thousands are placed."""
    portions = drained(Journal([1] * 20_000), most=500)
    assert len(portions) < 60
    assert all(len(portion) == 500 for portion in portions[5:-1])


def test_a_read_of_large_entries_stays_small() -> None:
    """Stops: a projector that comes back and asks Valkey for a hundred megabytes in one reply."""
    journal = Journal([500] * 200)
    drained(journal, most=500)
    assert max(most for most, _ in journal.asked) <= 8
    assert max(most for most, _ in journal.asked[1:]) == 1


def test_a_small_read_grows_step_by_step_even_if_single_orders_came_before() -> None:
    """Stops: a trickle of single orders, then a flash crowd, and one read of five hundred entries of a thousand."""
    journal = Journal([1] * 10 + [500] * 1_000)
    journal.shown = 10

    async def take() -> None:
        intake = Intake(journal, (0, 0), 500)  # type: ignore[arg-type]
        assert len(await intake.take(100)) == 8
        assert len(await intake.take(100)) == 2
        journal.shown = len(journal.entries)
        await intake.take(100)

    asyncio.run(take())
    assert journal.asked[-1][0] <= 8 + 4 * 2


def test_it_waits_for_the_first_entry_only() -> None:
    """Stops: entries in hand that wait a tenth of a second for the next ones."""
    journal = Journal([3, 3, 3, 9])

    async def take() -> list[int]:
        intake = Intake(journal, (0, 0), MOST)  # type: ignore[arg-type]
        return [len(await intake.take(100)) for _ in range(3)]

    assert asyncio.run(take()) == [3, 1, 0]
    assert [waits for _, waits in journal.asked] == [True, False, True]
