"""The history's line for each kind of request, from what was asked and what the target's adapter read in the answer."""

from __future__ import annotations

from core.ids import Names
from loadtests.generator import contract
from loadtests.generator.contract import Placed, Reply
from loadtests.generator.plan import Plan
from loadtests.record.history import Attempt, Charge, Op, Result
from loadtests.targets import Answer, Call, Target


def read(target: Target, call: Call, reply: Reply) -> Answer:
    """Return what a reply says; one that did not come whole says the same whatever the shop."""
    if reply.error:
        return Answer(*contract.judge(reply))
    return target.read(call, reply)


def never_sent(reply: Reply, result: Result, no_connection: Result) -> Result:
    """Return the result, or the word for why nothing was sent."""
    if reply.error == contract.CUT_EARLY:
        return "unsent"
    return no_connection if reply.error == contract.NO_CONNECTION else result


def place_attempt(
    target: Target,
    reply: Reply,
    *,
    arrival: int,
    why: str,
    buyer: str,
    sku: str,
    quantity: int,
    idempotency_key: str,
    intended_us: int,
    group: str = "",
) -> tuple[Attempt, Placed | None]:
    """Return the line for one place request, and the order if there is one."""
    answer = read(target, "place", reply)
    placed = answer.placed
    attempt = Attempt(
        arrival=arrival,
        op="place",
        group=group,
        why=why,
        buyer=buyer,
        sku=sku,
        quantity=quantity,
        idempotency_key=idempotency_key,
        order_id=placed.order_id if placed else "",
        amount=placed.amount if placed else 0,
        currency=placed.currency if placed else "",
        intended_us=intended_us,
        waited_us=reply.waited_us,
        connect_us=reply.connect_us,
        sent_us=reply.sent_us,
        done_us=reply.done_us,
        read_late_us=reply.read_late_us,
        result=never_sent(reply, answer.result, "shed"),
        status=reply.status,
        outcome=answer.outcome,
        answer=answer.digest,
    )
    return attempt, placed


def first_attempt(
    plan: Plan, due_us: int, sent_us: int, done_us: int, read_late_us: int | None, status: int, answer: Answer
) -> Attempt:
    """Return the line for an arrival's first order that got no order and waited for nothing; as ``place_attempt``'s."""
    return Attempt(
        arrival=plan.number,
        op="place",
        group="" if plan.retries == "patient" else plan.retries,
        why=plan.why,
        buyer=plan.buyer,
        sku=plan.sku,
        quantity=plan.quantity,
        idempotency_key=plan.idempotency_key,
        intended_us=due_us,
        sent_us=sent_us,
        done_us=done_us,
        read_late_us=read_late_us,
        result=answer.result,
        status=status,
        outcome=answer.outcome,
        answer=answer.digest,
    )


def unsent_attempt(plan: Plan, due_us: int, result: Result) -> Attempt:
    """Return the line for an arrival that was due and whose order was never sent; ``result`` says why."""
    return first_attempt(plan, due_us, 0, 0, None, 0, Answer(result, result))


def state_attempt(
    target: Target,
    op: Op,
    why: str,
    reply: Reply,
    of: Plan | Attempt,
    placed: Placed,
    intended_us: int,
    names: Names,
) -> Attempt:
    """Return the line for a request that is answered with the order's state, track or cancel; ``of`` ordered it."""
    answer = read(target, "cancel" if op == "cancel" else "track", reply)
    return Attempt(
        arrival=of.number if isinstance(of, Plan) else of.arrival,
        op=op,
        why=why,
        buyer=of.buyer,
        sku=of.sku,
        quantity=of.quantity,
        order_id=placed.order_id,
        intended_us=intended_us,
        waited_us=reply.waited_us,
        connect_us=reply.connect_us,
        sent_us=reply.sent_us,
        done_us=reply.done_us,
        read_late_us=reply.read_late_us,
        result=never_sent(reply, answer.result, answer.result),
        status=reply.status,
        outcome=answer.outcome,
        keys=tuple([names.key_hash(key).hex() for key in answer.keys]),
    )


def browse_attempt(target: Target, why: str, reply: Reply, arrival: int, buyer: str, sku: str, due_us: int) -> Attempt:
    """Return the line for a look at a product (``sku``) or at the list (``""``)."""
    answer = read(target, "browse", reply)
    return Attempt(
        arrival=arrival,
        op="browse",
        why=why,
        buyer=buyer,
        sku=sku,
        intended_us=due_us,
        waited_us=reply.waited_us,
        connect_us=reply.connect_us,
        sent_us=reply.sent_us,
        done_us=reply.done_us,
        read_late_us=reply.read_late_us,
        result=never_sent(reply, answer.result, answer.result),
        status=reply.status,
        outcome=answer.outcome,
    )


class Payer:
    """Who pays for what: the fields of a charge's attempts that the charge itself does not hold."""

    __slots__ = ("arrival", "buyer", "jitter", "quantity", "sku")

    def __init__(self, arrival: int, buyer: str, sku: str, quantity: int, jitter: float = 0.5) -> None:
        """Take the arrival it belongs to, and the order's buyer, SKU and quantity."""
        self.arrival, self.buyer, self.sku, self.quantity, self.jitter = arrival, buyer, sku, quantity, jitter


def callback_attempt(
    target: Target, charge: Charge, payer: Payer, event_id: str, why: str, intended_us: int, reply: Reply
) -> Attempt:
    """Return the line for one callback and its answer."""
    answer = read(target, "pay", reply)
    return Attempt(
        arrival=payer.arrival,
        op="pay",
        why=why,
        buyer=payer.buyer,
        sku=payer.sku,
        quantity=payer.quantity,
        order_id=charge.order_id,
        event_id=event_id,
        amount=charge.amount,
        currency=charge.currency,
        intended_us=intended_us,
        waited_us=reply.waited_us,
        connect_us=reply.connect_us,
        sent_us=reply.sent_us,
        done_us=reply.done_us,
        read_late_us=reply.read_late_us,
        result=never_sent(reply, answer.result, answer.result),
        status=reply.status,
        outcome=answer.outcome,
    )
