"""One arrival played out: look around, place, click again, pay through the gateway, wait for the key, cancel.

No I/O of its own: how to ask, sleep and start things beside comes in with the ``World``. Each request is one
attempt of the history. What a refused or unlucky buyer does next is bounded everywhere: tries, pauses, waits.
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
from loadtests.record.history import Attempt, Charge
from loadtests.targets import Target

PLACE_TIMEOUT_S: Final = 10.0
PLACE_RETRIES_MOST: Final = 3
NO_BUDGET_RETRIES_MOST: Final = 20  # of those who know no end: even they go away in the end
NO_BUDGET_PAUSE_US: Final = 50_000
COME_BACKS_MOST: Final = 5  # times one who was told sold_out asks again
TRACK_TIMEOUT_S: Final = 10.0
BROWSE_TIMEOUT_S: Final = 10.0
WAIT_S: Final = 10  # one long poll
STORM_PART: Final = 0.125  # of the time between two storms of payments, in which one comes
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


def play(world: World, plan: Plan, due_us: int) -> None:
    """Play one arrival to its end, from the instant it was due."""
    if plan.looks:
        try:
            _browse(world, plan, due_us)
        except BaseException:  # the run is over before this visitor had seen enough: due, and never sent
            world.recorder.first("unsent")
            world.recorder.note(unsent_attempt(plan, due_us, "unsent"))
            raise
        due_us = world.clock.now_us()
    twin = None
    if plan.again == "at_once":
        twin = world.ask_beside(_place, world, plan, "replay", due_us)
    placed = _place_until_known(world, plan, due_us)
    other = None
    if twin is not None:
        other = twin.get()
    elif plan.again == "after":
        other = _place(world, plan, "replay", world.clock.now_us())
    if placed is None and other is not None:
        placed = other[0]  # the second click had more luck, e.g. a unit came back in between
    if placed is not None:
        _live(world, plan, placed)


def _live(world: World, plan: Plan, placed: Placed) -> None:
    """Do what this buyer does with an order."""
    placed_us = world.clock.now_us()
    if plan.conflict is not None:
        _place(world, plan, "conflict", placed_us, plan.conflict)
    story = Story()
    polls = plan.watch == "poll" and world.manners.polls_most > 1
    if polls:
        world.spawn(_poll, world, plan, placed, story)
    if plan.ending == "never":
        return
    if plan.ending == "cancel":
        _sleep_until(world, placed_us + plan.think_us)
        _cancel(world, plan, placed)
        return
    if plan.ending == "late" and placed.pay_by:
        pay_us = placed.pay_by_ms() * 1000 - world.clock.started_unix_us + plan.late_us
    else:
        pay_us = placed_us + plan.think_us
    if together_us := world.manners.pay_together_us:
        pay_us = -(-pay_us // together_us) * together_us + int(plan.jitter * together_us * STORM_PART)
    if plan.watch == "early" and plan.ending == "pay":
        world.spawn(_watch, world, plan, placed, story)
    _sleep_until(world, pay_us)
    answered = _pay(world, plan, placed, story, pay_us)
    if answered is None:
        return
    if plan.watch == "after" or (plan.watch == "early" and plan.ending == "late"):
        _watch(world, plan, placed, story)
    elif plan.watch == "poll" and not polls:
        _poll(world, plan, placed, story)


def _browse(world: World, plan: Plan, due_us: int) -> None:
    """Look at some products, perhaps at the list before, the wanted one last."""
    for sku in plan.looks:
        reply = world.ask(world.target.browse(sku), BROWSE_TIMEOUT_S)
        why = "product" if sku else "list"
        attempt = browse_attempt(world.target, why, reply, plan.number, plan.buyer, sku, due_us)
        _note(world, attempt, reply)
        due_us = world.clock.now_us() + plan.look_us
        world.sleep_us(plan.look_us)


# --- placing ------------------------------------------------------------------------------------------------


def _place_until_known(world: World, plan: Plan, due_us: int) -> Placed | None:
    """Place the order; while nothing definite comes back, ask again with the same key, as this client does.

    One who was told that all is sold may come back: unpaid units do.
    """
    why: str = plan.why
    intended_us, backs, tried, first = due_us, 0, 0, True
    while True:
        placed, attempt, reply = _place(world, plan, why, intended_us, due_us=due_us)
        if first:
            first = False
            world.recorder.first(outcome_of(attempt))
        if placed is not None or attempt.result in ("shed", "unsent"):
            return placed
        if attempt.result == "fail" and attempt.status not in (0, 429, 503):
            if attempt.outcome != "sold_out" or not plan.come_back_us or backs == COME_BACKS_MOST:
                return None
            backs += 1
            why, tried, pause_us = "come_back", 0, plan.come_back_us
        else:
            tried += 1
            pause_us = _pause_us(world, plan, tried, reply)
            if pause_us < 0:
                return None
            why = "retry"
        intended_us = world.clock.now_us() + pause_us
        if why == "come_back":
            due_us = intended_us
        world.sleep_us(pause_us)


def _pause_us(world: World, plan: Plan, tried: int, reply: Reply) -> int:
    """Return how long this client waits before retry ``tried``; below 0: it gives up."""
    if plan.retries == "no_budget":
        return NO_BUDGET_PAUSE_US if tried <= NO_BUDGET_RETRIES_MOST else -1
    if tried > PLACE_RETRIES_MOST or (plan.retries == "budget" and not world.budget.withdraw()):
        return -1
    return max(backoff_us(tried, plan.jitter), contract.retry_after_us(reply))


def _place(
    world: World,
    plan: Plan,
    why: str,
    intended_us: int,
    order: tuple[str, int] | None = None,
    due_us: int = 0,
) -> tuple[Placed | None, Attempt, Reply]:
    """Send one place request and record it; ``order`` is another (sku, quantity) than the plan's."""
    sku, quantity = order or (plan.sku, plan.quantity)
    if plan.retries == "budget" and why == plan.why:
        world.budget.deposit()
    raw = world.target.place(plan.idempotency_key, sku, plan.buyer, quantity)
    reply = world.ask(raw, PLACE_TIMEOUT_S)
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
    """Have the gateway charge the buyer and tell the shop, once, twice or in the wrong order."""
    gateway = world.gateway
    charge = gateway.take(plan, placed)
    payer = Payer(plan.number, plan.buyer, plan.sku, plan.quantity, plan.jitter)
    story.paid_us = charge.at_us
    if plan.callbacks == "twice":
        world.spawn(gateway.notify, charge, payer, "pay_again", story.paid_us)
    why = "pay_late" if plan.ending == "late" else "pay"
    answered = gateway.notify(charge, payer, why, pay_us, tries=CALLBACK_TRIES_MOST)
    if plan.callbacks in ("twice_later", "started_after"):
        world.spawn(_call_again, world, plan, charge, payer)
    return answered


def _call_again(world: World, plan: Plan, charge: Charge, payer: Payer) -> None:
    """Send the callback that comes out of order."""
    if plan.callbacks == "started_after":
        world.gateway.notify(charge, payer, "pay_started", world.clock.now_us(), status="started")
        return
    world.sleep_us(plan.gap_us)
    world.gateway.notify(charge, payer, "pay_again", world.clock.now_us())


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


def _poll(world: World, plan: Plan, placed: Placed, story: Story) -> None:
    """Look again and again instead of waiting: what a page with a timer does to a shop."""
    every_us = world.manners.poll_every_us
    for _ in range(world.manners.polls_most):
        due_us = world.clock.now_us() + every_us
        world.sleep_us(every_us)
        _track(world, plan, placed, story, "poll", due_us, 0)
        if story.settled:
            return


def _track(world: World, plan: Plan, placed: Placed, story: Story, why: str, intended_us: int, wait_s: int) -> Attempt:
    """Ask for the order's state once and record it, with the keyed hashes of the keys shown."""
    raw = world.target.track(placed.order_id, placed.token, wait_s)
    reply = (world.wait if wait_s else world.ask)(raw, TRACK_TIMEOUT_S + wait_s)
    attempt = state_attempt(world.target, "track", why, reply, plan, placed, intended_us, world.names)
    _note(world, attempt, reply)
    story.settled = story.settled or bool(attempt.keys) or (attempt.result == "ok" and attempt.outcome in SETTLED)
    if attempt.keys and not story.shown:
        story.shown = True
        world.recorder.keys_shown += len(attempt.keys)
        if story.paid_us and wait_s:
            world.recorder.latency(PAID_TO_DELIVERED, reply.done_us - story.paid_us)
    return attempt


def _cancel(world: World, plan: Plan, placed: Placed) -> None:
    intended_us = world.clock.now_us()
    reply = world.ask(world.target.cancel(placed.order_id, placed.token), TRACK_TIMEOUT_S)
    attempt = state_attempt(world.target, "cancel", "cancel", reply, plan, placed, intended_us, world.names)
    _note(world, attempt, reply)


def _note(world: World, attempt: Attempt, reply: Reply, from_us: int = -1) -> None:
    world.recorder.note(attempt, histogram_of(attempt), from_us, len(reply.body))


def _sleep_until(world: World, at_us: int) -> None:
    wait_us = at_us - world.clock.now_us()
    if wait_us > 0:
        world.sleep_us(wait_us)


assert State.DELIVERED in SETTLED, "a watcher stops when the key is shown"
