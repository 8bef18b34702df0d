"""Faults to plant into the shop, one a file, each with the checker that must find it. They prove the harness."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol

from core.errors import BadInput

# fault: the checker that must name it
FAULTS: Final = {
    "no_stock_check": "no_oversell",
    "claim_without_guard": "one_key_one_buyer",
    "callback_delivers_twice": "delivered_exactly",
    "projector_forgets": "no_order_lost",
}


class Fault(Protocol):
    """What a fault's file offers."""

    def plant(self) -> None:
        """Break this process's copy of the shop."""


def plant(name: str) -> None:
    """Plant a fault into this process.

    Raises:
        BadInput: there is no such fault.
    """
    if name not in FAULTS:
        raise BadInput(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    import_module(f"loadtests.faults.{name}").plant()
