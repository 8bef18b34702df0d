"""Orders straight into Valkey through the shop's own scripts, in batches, pipelined: placed, and brought to an end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.ceiling.asks import CURRENCY, HOT, PRICE, buyer, key
from benchmarks.ceiling.wire import Wire, pack
from benchmarks.pinned import Progress
from core.backends.texts import Script
from core.backends.valkey import ROOT
from core.ids import Names, fingerprint
from core.sale.orders.answers import CANCEL_ANSWERS, PAY_ANSWERS, PLACE_ANSWERS
from core.sale.orders.store import CANCEL, PAY, PLACE, SETTLE, PlaceItem, pack_places, pack_said

BATCH: Final = 500  # orders in a call
DEPTH: Final = 4  # calls under way
FIRST: Final = 500_000_000  # number of the first order here: far from those that a driver places
_PAID_AT_MS: Final = 1_767_225_600_000
_pack = msgspec.msgpack.Encoder().encode


class Group(NamedTuple):
    """Orders of one quantity of 1 each: numbers ``first`` to ``first + len(skus) - 1``, each with its SKU."""

    first: int
    skus: Sequence[str]


def crowd(orders: int, skus: int) -> tuple[Group, Group]:
    """Return orders as a flash sale leaves them: one half of one SKU, the other spread evenly over so many others."""
    half = orders // 2
    rest = orders - half
    spread = [crowd_sku(number * skus // rest) for number in range(rest)]
    return Group(FIRST, [HOT] * half), Group(FIRST + half, spread)


def crowd_sku(number: int) -> str:
    """Return the name of one of the other SKUs; it is as long as the hot one's."""
    return f"crowd-{number:05d}"


class Filler:
    """One pipelined connection that makes orders, and ends them."""

    def __init__(self, url: str, names: Names, say: Progress) -> None:
        """Connect, and bring the scripts."""
        self._wire, self._names, self._say = Wire(url), names, say
        self._epoch: bytes = self._wire.ask("HGET", f"{ROOT}:meta", "epoch")
        for script in (PLACE, PAY, CANCEL, SETTLE):
            self._wire.ask("SCRIPT", "LOAD", script.source)

    def place(self, group: Group) -> None:
        """Place every order of a group."""
        for batch, reply in self._each(group, PLACE, self._places):
            answers, said, *_ = PLACE_ANSWERS.decode(reply)
            outcomes = {answers[of - 1].outcome if isinstance(of, int) else "several" for of in said}
            _expect(outcomes, "accepted", len(batch.skus), batch)

    def cancel(self, group: Group) -> None:
        """Cancel every order of a group."""
        for batch, reply in self._each(group, CANCEL, self._cancels):
            answers = CANCEL_ANSWERS.decode(reply)
            _expect({answer.outcome for answer in answers}, "cancelled", len(answers), batch)

    def pay(self, group: Group) -> None:
        """Pay every order of a group."""
        for batch, reply in self._each(group, PAY, self._reports):
            answers = PAY_ANSWERS.decode(reply)
            _expect({answer.outcome for answer in answers}, "paid", len(answers), batch)

    def deliver(self, group: Group) -> None:
        """Tell that every order of a group, paid before, was delivered, as the projector does after its commit."""
        told = lambda part: (_pack([("delivered", False)] * len(part.skus)), self._ids(part), "")  # noqa: E731
        for _ in self._each(group, SETTLE, told, fenced=False):
            pass

    def trim(self) -> None:
        """Drop the journal, as the projector does behind its commit."""
        self._wire.ask("XTRIM", f"{ROOT}:facts", "MAXLEN", 0)

    def close(self) -> None:
        """Drop the connection."""
        self._wire.close()

    def _each(
        self, group: Group, script: Script, arguments: Any, *, fenced: bool = True
    ) -> Iterator[tuple[Group, bytes]]:
        """Call a script for every batch of a group, several calls under way; give each batch with its answer."""
        under_way: deque[Group] = deque()
        done = 0
        for batch in batches(group):
            epoch = self._epoch if fenced else b""
            self._wire.send(pack("EVALSHA", script.sha, 1, ROOT, epoch, *arguments(batch)))
            under_way.append(batch)
            if len(under_way) == DEPTH:
                yield under_way.popleft(), self._wire.read()
            done += len(batch.skus)
            self._say.about(f"{done:,} of {len(group.skus):,} orders")
        while under_way:
            yield under_way.popleft(), self._wire.read()

    def _places(self, part: Group) -> tuple[bytes]:
        items = [
            PlaceItem(order_id, buyer(number), (sku, fingerprint(sku, 1), 1))
            for (number, sku), order_id in zip(_numbered(part), self._order_ids(part), strict=True)
        ]
        return (pack_places(items),)

    def _cancels(self, part: Group) -> tuple[bytes]:
        return (pack_said([False] * len(part.skus), self._order_ids(part)),)

    def _reports(self, part: Group) -> tuple[bytes]:
        return (pack_said(_reports(part), self._order_ids(part)),)

    def _ids(self, part: Group) -> bytes:
        return b"".join(self._order_ids(part))

    def _order_ids(self, part: Group) -> list[bytes]:
        return [self._names.order_id(buyer(number), key(number)) for number, _ in _numbered(part)]


def batches(group: Group) -> Iterator[Group]:
    """Yield a group in parts of at most ``BATCH`` orders."""
    for at in range(0, len(group.skus), BATCH):
        yield Group(group.first + at, group.skus[at : at + BATCH])


def _numbered(part: Group) -> Iterable[tuple[int, str]]:
    return enumerate(part.skus, part.first)


def _reports(part: Group) -> list[tuple[str, str, str, int, str, int, bool]]:
    return [
        ("sandbox", f"event-{number}", "paid", PRICE, CURRENCY, _PAID_AT_MS, False) for number, _ in _numbered(part)
    ]


def _expect(outcomes: set[str], wanted: str, answers: int, batch: Group) -> None:
    if outcomes != {wanted} or answers != len(batch.skus):
        raise ValueError(f"{answers} answers to {len(batch.skus)} orders: {sorted(outcomes)} instead of {wanted}")
