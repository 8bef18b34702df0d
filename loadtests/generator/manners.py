"""How the buyers of a scenario behave: shares of them, and the pauses they make. The defaults are a flash sale's."""

from __future__ import annotations

from typing import Final

import msgspec

THINK_MOST_US: Final = 500_000  # from ordering to paying, unless the run says otherwise


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of 1. What a share is of stands beside it, if it is not all arrivals."""

    hot: float = 0.85  # want the hot SKU
    skew: float = 1.0  # how uneven the other SKUs are: 1 all alike; 3: an eighth of them is half of all that is wanted
    two_units: float = 0.10
    again: float = 0.05  # the same request once more: half of them at the same time, half straight after
    conflict: float = 0.02  # the same idempotency key with another order
    greedy: float = 0.02  # an earlier buyer comes again
    too_many: float = 0.01  # more in one order than a buyer may have
    never_pay: float = 0.10
    pay_late: float = 0.02
    cancel: float = 0.02
    twice: float = 0.02  # the paid callback twice: half of them at once, half seconds later
    started_after: float = 0.01  # a `started` callback that arrives after the `paid` one
    watch_early: float = 0.40  # payers who wait for their key from before they pay
    watch_after: float = 0.40  # payers who wait from after they paid
    poll: float = 0.15  # payers who only look now and then; the rest never look
    polls_most: int = 1  # looks of one who polls, until the key is there
    poll_every_us: int = 1_000_000
    pay_together_us: int = 0  # payments wait for the next multiple of this: a gateway that comes back; 0: they do not
    looks_most: int = (
        0  # product pages looked at before ordering, 1 to this many; 0: nobody looks; a quarter see the list first
    )
    look_us: int = 400_000  # the longest look at a page
    come_back: float = 0.0  # of those told sold_out: ask again, a few times
    come_back_us: int = 1_000_000  # the longest pause before
    no_budget: float = -1.0  # retry at once and without end in sight; below 0: all are patient, and no groups are told
