"""A card key belongs to one line of one order of one buyer, for ever.

Evidence: the deliveries in PostgreSQL, and what the buyers were really shown, as keyed hashes of the card
keys. Both speak separately: no hash may stand in two deliveries, none may be shown for two orders or to two
buyers, none twice in one answer, and what is shown for one order must not be another order's in the store.

It stops the commonest fault of the trade: select a free key, mark it sold later (dujiaoka, kamiFaka,
qs-faka, zfaka, hiouttime, account-mall); under load 28 to 36 of 100 orders got a key already sold. It also
stops an answer cached for or routed to the wrong buyer.

It cannot see a key leaked anywhere but in an answer to a buyer, nor one secret uploaded under two spellings.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding
from loadtests.record.history import Attempt


def check(evidence: Evidence) -> Finding:
    """Return whether every key went to one buyer only."""
    return _examine(evidence)[0].close()


def duplicated(evidence: Evidence) -> int:
    """Return how many different keys went to more than one line, order or buyer."""
    return len(_examine(evidence)[1])


def _examine(evidence: Evidence) -> tuple[Case, set[str]]:
    case, twice = Case("one_key_one_buyer"), set[str]()
    owner: dict[str, str] = {}  # key hash -> order, by the store
    for delivery in evidence.postgres.deliveries:
        case.checked += 1
        key = delivery.key_hash
        if key in owner:
            twice.add(key)
            case.against(f"Key {key} is delivered to order {owner[key]} and again to order {delivery.order_id}.")
        owner[key] = delivery.order_id
    buyer_of = {order.id: order.buyer for order in evidence.postgres.orders}
    shown: dict[str, str] = {}  # key hash -> order, by what buyers saw
    for attempt in evidence.attempts:
        if attempt.keys:
            case.checked += len(attempt.keys)
            _shown(case, attempt, owner, shown, twice)
            rightful = buyer_of.get(attempt.order_id, attempt.buyer)
            if rightful != attempt.buyer:
                twice.update(attempt.keys)
                case.against(f"Buyer {attempt.buyer} was shown keys of {rightful}'s order {attempt.order_id}.")
    return case, twice


def _shown(case: Case, attempt: Attempt, owner: dict[str, str], shown: dict[str, str], twice: set[str]) -> None:
    if len(set(attempt.keys)) < len(attempt.keys):
        twice.update(key for key in attempt.keys if attempt.keys.count(key) > 1)
        case.against(f"Order {attempt.order_id} was shown one key twice in one answer.")
    for key in attempt.keys:
        first = shown.setdefault(key, attempt.order_id)
        if first != attempt.order_id:
            twice.add(key)
            case.against(f"Key {key} was shown for order {first} and for order {attempt.order_id}.")
        elif owner.get(key, attempt.order_id) != attempt.order_id:
            twice.add(key)
            case.against(f"Key {key} was shown for order {attempt.order_id}, but it is order {owner[key]}'s.")
