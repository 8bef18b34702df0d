"""The expirer: unpaid units come back within a second of their time.

It sleeps until the next reservation is due, at most a fifth of a second, so that a reservation placed meanwhile with a
shorter hold is seen in time. Before a reservation with a started payment is released the gateways are asked; a gateway
that stays silent is asked again, up to a limit in time, after which the units go back and a late payment is cured.
"""

from __future__ import annotations

import asyncio
from typing import Final

from core.clock import Clock
from core.errors import Fenced, FlashproofError, Refusal
from core.sale.orders.pay import NOT_THIS_ORDERS, Paying
from core.sale.orders.store import ExpiryStore
from core.sale.payments.port import Gateway, GatewaySilent
from core.settings import EXPIRE_MOST
from core.telemetry import EXPIRED, log

_LOOK_S: Final = 0.2
_LEAST_S: Final = 0.02
_ASK_AGAIN_MS: Final = 2_000
_ASK_MOST_S: Final = 600.0  # a gateway silent for so long cannot hold units any longer
_ASKED_TOGETHER_MOST: Final = 50


class Expirer:
    """The loop."""

    def __init__(self, store: ExpiryStore, paying: Paying, gateways: dict[str, Gateway], clock: Clock) -> None:
        self._store, self._paying, self._gateways, self._clock = store, paying, gateways, clock
        self._stop = asyncio.Event()
        self._asked_first: dict[bytes, float] = {}
        self._uncharged: list[bytes] = []
        self._troubled = False

    def stop(self) -> None:
        """Return from ``run`` after the call under way."""
        self._stop.set()

    async def run(self) -> None:
        """Release what is due until stopped; a store that is down is tried again."""
        while not self._stop.is_set():
            rest = _LOOK_S
            try:
                rest = await self._turn()
                self._troubled = False
            except FlashproofError as error:
                if not self._troubled and not isinstance(error, Fenced):
                    log("warning", "expirer_interrupted", error=error)
                self._troubled = True
            try:
                await asyncio.wait_for(self._stop.wait(), rest)
            except TimeoutError:
                continue

    async def _turn(self) -> float:
        """Release what is due; return the seconds until it is worth looking again."""
        uncharged, self._uncharged = self._uncharged, []
        released, next_due_ms, ask = await self._store.release_due(EXPIRE_MOST, _ASK_AGAIN_MS, uncharged)
        EXPIRED.inc(released)
        if ask:
            await self._ask(ask)
        if released >= EXPIRE_MOST or self._uncharged:
            return _LEAST_S
        if not next_due_ms:
            return _LOOK_S
        return min(_LOOK_S, max(_LEAST_S, (next_due_ms - self._clock.now_ms()) / 1000))

    async def _ask(self, order_ids: list[bytes]) -> None:
        now = self._clock.monotonic_s()
        self._asked_first = {one: at for one, at in self._asked_first.items() if now - at < 2 * _ASK_MOST_S}
        for at in range(0, len(order_ids), _ASKED_TOGETHER_MOST):
            await asyncio.gather(*[self._ask_one(one, now) for one in order_ids[at : at + _ASKED_TOGETHER_MOST]])

    async def _ask_one(self, order_id: bytes, now: float) -> None:
        try:
            for gateway in self._gateways.values():
                charge = await gateway.ask(order_id)
                if charge is not None:
                    self._asked_first.pop(order_id, None)
                    await self._paying.pay(charge)
                    return
        except NOT_THIS_ORDERS as error:
            # The gateway charged, but not what this order costs: the units go back, the staff have been alarmed.
            log("error", "charge_does_not_fit", order=order_id.hex(), error=error)
        except Refusal as error:
            log("warning", "charge_not_taken", order=order_id.hex(), error=error)
            return  # a store was in the way; asked again
        except GatewaySilent as error:
            first = self._asked_first.setdefault(order_id, now)
            if now - first < _ASK_MOST_S:
                return
            log("error", "gateway_silent", order=order_id.hex(), error=error)
        self._asked_first.pop(order_id, None)
        self._uncharged.append(order_id)
