"""A store that is killed, frozen or gone: what is unknown is called unknown, the process lives, nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest

from core.clock import parse_iso8601
from core.local.server import wait_until

if TYPE_CHECKING:
    from conftest import Answer, Shop

PATIENCE_S = 20.0
# What a buyer may be told while a store is away, and what each code says about the request.
OUTCOMES = {
    "store_unavailable": "not-executed",
    "shop_recovering": "not-executed",
    "overloaded": "not-executed",
    "outcome_unknown": "unknown",
}


@pytest.fixture(scope="module")
def shop(open_shop: Callable[..., Shop]) -> Iterator[Shop]:
    """A shop of our own, for its stores are going to suffer."""
    made = open_shop()
    made.stock(400, sku="plain")
    made.stock(20, sku="brief", hold_ms=1_000)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def the_same_processes(shop: Shop) -> Iterator[None]:
    """No store that is away may take serve, its worker or work with it; afterwards everything is ready again."""
    before = _processes(shop)
    yield
    assert wait_until(lambda: shop.is_ready() and _work_is_ready(shop), PATIENCE_S)
    assert _processes(shop) == before
    assert [one.what for one in shop.deployment.unplanned] == []
    shop.books.close()
    shop.books = type(shop.books)(shop.settings)  # its connections may have died with a store


def _processes(shop: Shop) -> list[int]:
    serve = psutil.Process(shop.deployment.pid("serve"))
    return [serve.pid, *[child.pid for child in serve.children()], shop.deployment.pid("work") or 0]


def _work_is_ready(shop: Shop) -> bool:
    return shop.operator("/readyz", shop.settings.work_ops_port).status == 200


@contextmanager
def frozen(shop: Shop, what: str) -> Iterator[None]:
    """Stop a store with all its processes by SIGSTOP; let it go on at the end."""
    root = psutil.Process(shop.deployment.pid(what))
    family = [root, *root.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)


def told(answer: Answer) -> str:
    """Return the code of a 503, after a look at whether it says what became of the request."""
    code = str(answer.json["code"])
    answer.refused(503, code, OUTCOMES[code])
    assert answer.headers["retry-after"] == "1"
    return code


def insisted(ask: Callable[[], Answer]) -> Answer:
    """Send the same request again, as the answers say, until it is done; bounded."""
    answer = ask()
    deadline = time.monotonic() + PATIENCE_S
    while answer.status == 503 and time.monotonic() < deadline:
        told(answer)
        time.sleep(0.1)
        answer = ask()
    return answer


def test_a_killed_valkey_is_told_and_every_retry_finds_its_order(shop: Shop) -> None:
    """Stops: an accepted order lost, or bought twice by the retry, when the store dies between two requests."""
    free = shop.books.free("plain")
    noticed, over = threading.Event(), threading.Event()

    def buy(number: int) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        while not over.is_set() and len(answers) < 90:
            key = f"killed-{number}-{len(answers)}"
            answers[key] = shop.place("plain", buyer=f"ann-{number}", key=key)
            if answers[key].status == 503:
                noticed.set()
            time.sleep(0.02)
        return answers

    with ThreadPoolExecutor(3) as pool:
        buyers = [pool.submit(buy, number) for number in range(3)]
        time.sleep(0.2)
        assert shop.deployment.kill("valkey")
        while not noticed.wait(0.1) and not all(one.done() for one in buyers):
            shop.deployment.kill("valkey")  # it came back before anyone asked
        assert wait_until(shop.is_ready, PATIENCE_S)
        over.set()
        first = {key: answer for one in buyers for key, answer in one.result().items()}
    codes = {told(answer) for answer in first.values() if answer.status != 201}
    assert codes, "nobody noticed"
    for key, answer in first.items():
        retry = insisted(partial(shop.place, "plain", buyer=f"ann-{key.split('-')[1]}", key=key))
        assert retry.status in (200, 201)
        if answer.status == 201:
            assert (retry.status, retry.body) == (200, answer.body)
    assert shop.books.free("plain") == free - len(first)
    shop.books.settled()
    assert shop.books.value("SELECT count(*) FROM orders WHERE buyer LIKE 'ann-_'") == len(first)


def test_a_frozen_valkey_is_unknown_in_bounded_time_and_the_retry_resolves(shop: Shop) -> None:
    """Stops: buyers who hang for ever, and `failed` said of what happens a moment later."""
    warm, unpaid = shop.placed("plain"), shop.placed("plain")
    assert shop.pay(warm).status == 200  # every lane has its connection, so what is sent now may be done
    free = shop.books.free("plain")
    event = shop.payment(unpaid)
    buy, pay = partial(shop.place, "plain", buyer="bob", key="frozen"), partial(shop.callback, event)
    with frozen(shop, "valkey"), ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        waiting = [pool.submit(one) for one in (buy, pay, partial(shop.track, unpaid, 5))]
        readiness = pool.submit(shop.operator, "/readyz")
        assert [told(one.result()) for one in waiting[:2]] == ["outcome_unknown"] * 2
        assert 1.5 < time.monotonic() - began < 4
        assert told(waiting[2].result()) in OUTCOMES
        assert readiness.result().status == 503
        assert shop.operator("/healthz").status == 200
    order, paid = insisted(buy), insisted(pay)
    assert order.status in (200, 201)
    assert paid.json["outcome"] in ("paid", "repeated")
    assert len(shop.delivered(unpaid)) == 1
    assert shop.books.free("plain") == free - 1
    assert shop.pay(order.json).json["outcome"] == "paid"
    assert len(shop.delivered(order.json)) == 1


def test_buying_and_paying_go_on_without_postgresql(shop: Shop) -> None:
    """Stops: orders refused because a side store is down (dujiao-next); a late payment undone by old news.

    The order of `brief` expires just after the database froze, and is paid late while its expiry waits to be committed.
    """
    bought = shop.placed("plain", buyer="dan", key="before")
    assert shop.pay(bought).status == 200
    assert len(shop.delivered(bought)) == 1
    late = shop.placed("brief")
    time.sleep(max(0.0, parse_iso8601(late["pay_by"]) / 1000 - 0.05 - time.time()))
    with frozen(shop, "postgres"):
        assert wait_until(lambda: shop.track(late).json["state"] == "expired", 3)
        time.sleep(0.2)
        assert shop.pay(late).json == {"outcome": "late", "state": "paid"}
        order = shop.placed("plain", buyer="cat", key="alone")
        assert shop.place("plain", buyer="cat", key="alone").status == 200
        assert shop.track(order).json["state"] == "reserved"
        other = shop.placed("plain")
        assert shop.cancel(other).json["state"] == "cancelled"
        assert shop.pay(order).json == {"outcome": "paid", "state": "paid"}
        began = time.monotonic()
        assert shop.track(order).json["state"] == "paid"
        assert told(shop.track(bought)) == "store_unavailable", "its key is in PostgreSQL alone"
        assert told(shop.ask("GET", "/v1/products")) in OUTCOMES
        assert time.monotonic() - began < 8
        said = shop.operator("/readyz")
        assert (said.status, said.json["ready"]) == (503, False)
    assert len(insisted_delivered(shop, order)) == len(insisted_delivered(shop, late)) == 1


def insisted_delivered(shop: Shop, order: dict[str, Any]) -> list[str]:
    """Return an order's keys; a store that is only just back may still be away for one answer."""
    assert wait_until(lambda: insisted(lambda: shop.track(order, 1)).json["state"] == "delivered", PATIENCE_S)
    return list(shop.track(order).json["keys"])


def test_a_killed_postgresql_loses_no_payment(shop: Shop) -> None:
    """Stops: a key delivered twice or never because the database died around its sale."""
    orders = [shop.placed("plain") for _ in range(8)]
    assert shop.pay(orders[0]).status == 200
    assert shop.deployment.kill("postgres")
    for order in orders[1:]:
        assert shop.pay(order).json == {"outcome": "paid", "state": "paid"}
    keys = [key for order in orders for key in insisted_delivered(shop, order)]
    assert len(keys) == len(set(keys)) == 8
    assert set(keys) <= shop.keys["plain"]
