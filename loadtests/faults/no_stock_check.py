"""A place script that takes units without looking whether there are any."""

from __future__ import annotations

from loadtests.faults.edit import edit


def plant() -> None:
    """Take the stock check out of place.lua."""
    check = "if r.free < t.quantity or now < r.rests_ms then return refuse('sold_out') end"
    edit("sale/orders/place.lua", check, "")
