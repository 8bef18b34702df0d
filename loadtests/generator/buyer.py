"""One arrival played out: look around, place, click again, pay through the gateway, wait for the key, cancel.

No I/O of its own: how to ask, sleep and start things beside comes in with the ``World``. Each request is one
attempt of the history. What a refused or unlucky buyer does next is bounded everywhere: tries, pauses, waits.

When a request is due is fixed by the plan wherever it can be, never by when the shop was done with an earlier one:
pages, the order after them, coming back, paying, the callback that comes later, each look of a timer, cancelling, all
count from the arrival's own instant. Where the answer that a request needs comes only after that instant, the
request goes out at once, keeps its instant, and the time missed stands in its ``waited_us``: the shop's doing, in
the latency from the intended instant and in the backlog. Two kinds have no instant of their own: what answers an
answer (a second click after it, another order under its key, a long poll, a retry after its pause) is due when its
reason arises, and who pays late does so a planned time after ``pay_by``, for late is what the shop calls late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from core.ids import Names
from core.sale.orders.order import SETTLED, State
from loadtests.generator import contract
from loadtests.generator.attempts import Payer, browse_attempt, place_attempt, state_attempt, unsent_attempt
from loadtests.generator.contract import Placed, Reply
from loadtests.generator.gateway import CALLBACK_TRIES_MOST, Ask, Gateway, RunClock
from loadtests.generator.manners import Manners
from loadtests.generator.plan import Plan, backoff_us
from loadtests.generator.recorder import Recorder
from loadtests.generator.retry_budget import RetryBudget
from loadtests.record.counted import PAID_TO_DELIVERED, histogram_of, outcome_of
from loadtests.record.history import Attempt, Charge, Result
from loadtests.targets import Target

PLACE_TIMEOUT_S: Final = 10.0
PLACE_RETRIES_MOST: Final = 3
PATIENCE_US: Final = 10_000_000  # who is asked to return later than that goes elsewhere
NO_BUDGET_RETRIES_MOST: Final = 20  # of those who know no end: even they go away in the end
NO_BUDGET_PAUSE_US: Final = 50_000
COME_BACKS_MOST: Final = 5  # times one who was told sold_out asks again
TRACK_TIMEOUT_S: Final = 10.0
BROWSE_TIMEOUT_S: Final = 10.0
WAIT_S: Final = 10  # one long poll
STORM_PART: Final = 0.15  # of the time between two storms of payments, in which one comes
WAITS_MOST: Final = 8  # long polls of one buyer


class Handle(Protocol):
    """Something started beside the buyer."""

    def get(self) -> Any:
        """Wait for it and return its result, None if it failed."""


class World(msgspec.Struct, frozen=True):
    """What a buyer acts through. Instants are µs since the run's start."""

    target: Target
    ask: Ask  # quick calls
    wait: Ask  # long polls, over connections of their own so that they never hold up a sale
    gateway: Gateway
    recorder: Recorder
    names: Names  # hashes the keys shown
    clock: RunClock
    sleep_us: Callable[[int], None]
    spawn: Callable[..., None]  # starts something beside the buyer
    ask_beside: Callable[..., Handle]  # the same, where the result is wanted
    manners: Manners
    budget: RetryBudget  # of all clients that have one


class Story:
    """What the buyer's parts, running beside each other, tell each other."""

    __slots__ = ("paid_us", "settled", "shown")

    def __init__(self) -> None:
        """Begin unpaid, with no key seen."""
        self.paid_us = 0  # when the gateway took the money
        self.shown = False
        self.settled = False  # nothing will change any more


def play(world: World, plan: Plan, due_us: int, reply: Reply | None = None) -> None:
    """Play one arrival to its end, from the instant it was due; ``reply``: its order was sent and answered already."""
    held_us = 0
    if plan.looks:
        begun_us, due_us = due_us, due_us + len(plan.looks) * plan.look_us
        try:
            held_us = _browse(world, plan, begun_us)
        except BaseException:  # the run is over before this visitor had seen enough: due, and never sent
            world.recorder.first("unsent")
            world.recorder.note(unsent_attempt(plan, due_us, "unsent"))
            raise
    twin = None
    if plan.again == "at_once":
        twin = world.ask_beside(_place, world, plan, "replay", due_us, None, due_us, held_us)
    placed, due_us = _place_until_known(world, plan, due_us, held_us, reply)
    other = None
    if twin is not None:
        other = twin.get()
    elif plan.again == "after":
        other = _place(world, plan, "replay", world.clock.now_us())
    if placed is None and other is not None:
        placed = other[0]  # the second click had more luck, e.g. a unit came back in between
    if placed is not None:
        _live(world, plan, placed, due_us)


def _live(world: World, plan: Plan, placed: Placed, due_us: int) -> None:
    """Do what this buyer does with an order that was due at ``due_us``."""
    if plan.conflict is not None:
        _place(world, plan, "conflict", world.clock.now_us(), plan.conflict)
    story = Story()
    polls = plan.watch == "poll" and world.manners.polls_most > 1
    if polls:
        world.spawn(_poll, world, plan, placed, story, due_us)
    if plan.ending == "never":
        return
    if plan.ending == "cancel":
        _cancel(world, plan, placed, due_us + plan.think_us)
        return
    if plan.ending == "late" and placed.pay_by:
        pay_us = placed.pay_by_ms() * 1000 - world.clock.started_unix_us + plan.late_us
    else:
        pay_us = due_us + plan.think_us
    if together_us := world.manners.pay_together_us:
        pay_us = -(-pay_us // together_us) * together_us + int(plan.jitter * together_us * STORM_PART)
    if plan.watch == "early" and plan.ending == "pay":
        world.spawn(_watch, world, plan, placed, story)
    answered = _pay(world, plan, placed, story, pay_us)
    if answered is None:
        return
    if plan.watch == "after" or (plan.watch == "early" and plan.ending == "late"):
        _watch(world, plan, placed, story)
    elif plan.watch == "poll" and not polls:
        _poll(world, plan, placed, story, pay_us)


def _browse(world: World, plan: Plan, due_us: int) -> int:
    """Look at some products, perhaps at the list before, the wanted one last, one each ``look_us``; then wait to order.

    Returns:
        by how much the pages made the order late. What the generator itself was late with a page is not the shop's
        doing and does not count, so it remains in the wake lag.
    """
    own_us = max(0, world.clock.now_us() - due_us)  # the generator's lateness with this page, then the one before
    for sku in plan.looks:
        held_us = max(0, _wait_until(world, due_us) - own_us)
        reply = world.ask(world.target.browse(sku), BROWSE_TIMEOUT_S)
        reply.waited_us += held_us
        own_us = max(0, reply.sent_us - due_us - reply.waited_us - reply.connect_us)
        why = "product" if sku else "list"
        attempt = browse_attempt(world.target, why, reply, plan.number, plan.buyer, sku, due_us)
        _note(world, attempt, reply)
        due_us += plan.look_us
    return max(0, _wait_until(world, due_us) - own_us)


# --- placing ------------------------------------------------------------------------------------------------


def _place_until_known(
    world: World, plan: Plan, due_us: int, held_us: int, asked: Reply | None
) -> tuple[Placed | None, int]:
    """Place the order; while nothing definite comes back, ask again with the same key, as this client does.

    One who was told that all is sold may come back: unpaid units do. ``asked``: the first reply, if it is known.

    Returns:
        the order or None, and the instant the plan had for it.
    """
    why: str = plan.why
    intended_us, backs, tried, first = due_us, 0, 0, True
    while True:
        placed, attempt, reply = _place(world, plan, why, intended_us, None, due_us, held_us, asked)
        asked = None
        if first:
            first = False
            world.recorder.first(outcome_of(attempt))
        if placed is not None or attempt.result in ("shed", "unsent"):
            return placed, due_us
        if is_definite_no(attempt.result, attempt.status):
            if backs == COME_BACKS_MOST or not comes_back(plan, attempt.outcome):
                return None, due_us
            backs += 1
            why, tried = "come_back", 0
            intended_us = due_us = due_us + plan.come_back_us
        else:
            tried += 1
            pause_us = _pause_us(world, plan, tried, reply)
            if pause_us < 0:
                return None, due_us
            why, intended_us = "retry", world.clock.now_us() + pause_us
        held_us = _wait_until(world, intended_us)


def is_definite_no(result: Result, status: int) -> bool:
    """Return whether an order was refused for good: the same request would be refused again."""
    return result == "fail" and status not in (0, 429, 503)


def comes_back(plan: Plan, outcome: str) -> bool:
    """Return whether a buyer who was refused for good asks again later."""
    return plan.come_back_us > 0 and outcome == "sold_out"


def _pause_us(world: World, plan: Plan, tried: int, reply: Reply) -> int:
    """Return how long this client waits before retry ``tried``; below 0: it gives up."""
    if plan.retries == "no_budget":
        return NO_BUDGET_PAUSE_US if tried <= NO_BUDGET_RETRIES_MOST else -1
    again_us = contract.retry_after_us(reply)
    if tried > PLACE_RETRIES_MOST or again_us > PATIENCE_US:
        return -1
    if plan.retries == "budget" and not world.budget.withdraw():
        return -1
    return max(backoff_us(tried, plan.jitter), again_us)


def _place(
    world: World,
    plan: Plan,
    why: str,
    intended_us: int,
    order: tuple[str, int] | None = None,
    due_us: int = 0,
    held_us: int = 0,
    reply: Reply | None = None,
) -> tuple[Placed | None, Attempt, Reply]:
    """Send one place request, unless its reply is there already, and record it.

    ``order`` is another (sku, quantity) than the plan's. ``due_us`` is where the latency of a retry begins; ``held_us``
    by how much an earlier answer made it late.
    """
    sku, quantity = order or (plan.sku, plan.quantity)
    if reply is None:
        if plan.retries == "budget" and why == plan.why:
            world.budget.deposit()
        reply = world.ask(world.target.place(plan.idempotency_key, sku, plan.buyer, quantity), PLACE_TIMEOUT_S)
    reply.waited_us += held_us
    attempt, placed = place_attempt(
        world.target,
        reply,
        arrival=plan.number,
        why=why,
        buyer=plan.buyer,
        sku=sku,
        quantity=quantity,
        idempotency_key=plan.idempotency_key,
        intended_us=intended_us,
        group="" if plan.retries == "patient" else plan.retries,
    )
    # A retry is counted from the plan's instant, under a name of its own: the buyer has waited since then.
    _note(world, attempt, reply, due_us if why == "retry" else -1)
    return placed, attempt, reply


# --- paying -------------------------------------------------------------------------------------------------


def _pay(world: World, plan: Plan, placed: Placed, story: Story, pay_us: int) -> str | None:
    """Have the gateway charge the buyer when due and tell the shop, once, twice or in the wrong order."""
    held_us = _wait_until(world, pay_us)
    gateway = world.gateway
    charge = gateway.take(plan, placed)
    payer = Payer(plan.number, plan.buyer, plan.sku, plan.quantity, plan.jitter)
    story.paid_us = charge.at_us
    if plan.callbacks == "twice":
        world.spawn(gateway.notify, charge, payer, "pay_again", pay_us, held_us)
    why = "pay_late" if plan.ending == "late" else "pay"
    answered = gateway.notify(charge, payer, why, pay_us, held_us, tries=CALLBACK_TRIES_MOST)
    if plan.callbacks in ("twice_later", "started_after"):
        world.spawn(_call_again, world, plan, charge, payer, pay_us + plan.gap_us)
    return answered


def _call_again(world: World, plan: Plan, charge: Charge, payer: Payer, later_us: int) -> None:
    """Send the callback that comes out of order: `started` right behind `paid`, or `paid` once more when due."""
    if plan.callbacks == "started_after":
        world.gateway.notify(charge, payer, "pay_started", world.clock.now_us(), status="started")
        return
    held_us = _wait_until(world, later_us)
    world.gateway.notify(charge, payer, "pay_again", later_us, held_us)


# --- tracking and cancelling --------------------------------------------------------------------------------


def _watch(world: World, plan: Plan, placed: Placed, story: Story) -> None:
    """Wait for the key by long polls until the order is settled."""
    intended_us = world.clock.now_us()
    for waited in range(1, WAITS_MOST + 1):
        attempt = _track(world, plan, placed, story, "wait", intended_us, WAIT_S)
        if attempt.result == "unsent" or story.settled:
            return
        if attempt.result != "ok":
            if 400 <= attempt.status < 500 and attempt.status != 429:
                return
            world.sleep_us(backoff_us(waited, plan.jitter))
        elif "wait" in world.target.lacks:
            world.sleep_us(backoff_us(waited, plan.jitter))
        intended_us = world.clock.now_us()


def _poll(world: World, plan: Plan, placed: Placed, story: Story, due_us: int) -> None:
    """Look again and again instead of waiting: what a page with a timer, set at ``due_us``, does to a shop."""
    for _ in range(world.manners.polls_most):
        due_us += world.manners.poll_every_us
        held_us = _wait_until(world, due_us)
        _track(world, plan, placed, story, "poll", due_us, 0, held_us)
        if story.settled:
            return


def _track(
    world: World,
    plan: Plan,
    placed: Placed,
    story: Story,
    why: str,
    intended_us: int,
    wait_s: int,
    held_us: int = 0,
) -> Attempt:
    """Ask for the order's state once and record it, with the keyed hashes of the keys shown."""
    raw = world.target.track(placed.order_id, placed.token, wait_s)
    reply = (world.wait if wait_s else world.ask)(raw, TRACK_TIMEOUT_S + wait_s)
    reply.waited_us += held_us
    attempt = state_attempt(world.target, "track", why, reply, plan, placed, intended_us, world.names)
    _note(world, attempt, reply)
    story.settled = story.settled or bool(attempt.keys) or (attempt.result == "ok" and attempt.outcome in SETTLED)
    if attempt.keys and not story.shown:
        story.shown = True
        world.recorder.keys_shown += len(attempt.keys)
        if story.paid_us and wait_s:
            world.recorder.latency(PAID_TO_DELIVERED, reply.done_us - story.paid_us)
    return attempt


def _cancel(world: World, plan: Plan, placed: Placed, due_us: int) -> None:
    held_us = _wait_until(world, due_us)
    reply = world.ask(world.target.cancel(placed.order_id, placed.token), TRACK_TIMEOUT_S)
    reply.waited_us += held_us
    attempt = state_attempt(world.target, "cancel", "cancel", reply, plan, placed, due_us, world.names)
    _note(world, attempt, reply)


def _note(world: World, attempt: Attempt, reply: Reply, from_us: int = -1) -> None:
    world.recorder.note(attempt, histogram_of(attempt), from_us, len(reply.body))


def _wait_until(world: World, due_us: int) -> int:
    """Sleep until an instant of the plan; return by how much it is past already: an answer came that late."""
    wait_us = due_us - world.clock.now_us()
    if wait_us > 0:
        world.sleep_us(wait_us)
        return 0
    return -wait_us


assert State.DELIVERED in SETTLED, "a watcher stops when the key is shown"
