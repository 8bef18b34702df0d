"""The record of a finished order: what is kept, and that Lua and Python mean the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.ids import fingerprint
from core.sale.orders.finished import close_finished, open_finished
from core.sale.orders.order import State

SHARD = Path(__file__).resolve().parent.parent.parent / "core/sale/orders/finished.lua"


def record(state: str, amount: int = 1_999) -> list[object]:
    return [state, fingerprint("HOT", 2), "HOT", "买家 7", 2, amount, "CNY", 1_760_000_060_123, 0]


@pytest.mark.parametrize("state", [state.value for state in State if state != State.DELIVERED])
@pytest.mark.parametrize("amount", [0, 127, 128, 65_536, 2**40])
def test_what_was_closed_opens_the_same(state: str, amount: int) -> None:
    """Stops: a retry that is told another amount than the first answer said."""
    assert open_finished(close_finished(record(state, amount))) == record(state, amount)


def test_a_delivered_order_keeps_what_answers_a_retry_and_nothing_else() -> None:
    """Stops: a record that grows again; nearly all that Valkey keeps are of this kind."""
    stored = close_finished(record("delivered"))
    assert len(stored) == 24
    state, print_, *ordered, amount, currency, pay_by_ms, _ = open_finished(stored)
    assert (state, print_, amount, currency, pay_by_ms) == (
        "delivered",
        fingerprint("HOT", 2),
        1_999,
        "CNY",
        1_760_000_060_123,
    )
    assert ordered == [None, None, None]


def test_lua_numbers_the_states_as_the_law_lists_them() -> None:
    """Stops: a state put in the middle of the list, which would turn cancelled orders into something else."""
    found = re.search(r"^  local STATES = \{(.*?)\}", SHARD.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert re.findall(r"'([a-z_]+)'", found.group(1)) == [state.value for state in State]
