"""An order's life over HTTP: placed, retried, paid, delivered, expired, cancelled, paid late, charged twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest

from core.clock import parse_iso8601
from core.local.server import wait_until

if TYPE_CHECKING:
    from conftest import Answer, Shop

SOON_S = 5.0  # what takes milliseconds, on a machine that is busy with something else


class Charges:
    """The sandbox gateway's books: the charges `made`, who was `asked` about; it can be `silent`."""

    def __init__(self) -> None:
        self.made: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.silent: set[str] = set()

    def answer(self, order_id: str) -> tuple[int, bytes]:
        """Return status and body of GET /charges/<order id>."""
        self.asked.append(order_id)
        body = self.made.get(order_id, b"")
        return (503, b"") if order_id in self.silent else (200 if body else 404, body)


@pytest.fixture
def charges(shop: Shop) -> Iterator[Charges]:
    """A gateway that listens where the shop asks about charges."""
    books = Charges()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = books.answer(self.path.removeprefix("/charges/"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", urlsplit(shop.settings.sandbox_url).port or 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield books
        server.shutdown()
        thread.join()


def state(shop: Shop, order: dict[str, Any]) -> str:
    """Return where an order stands now."""
    answer = shop.track(order)
    assert answer.status == 200, answer
    return str(answer.json["state"])


def during(work: Callable[[], Answer], act: Callable[[], object]) -> tuple[Answer, float]:
    """Begin a request, act a moment later; return its answer and the seconds from the act to it."""
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(work)
        time.sleep(0.3)
        assert not begun.done(), f"it did not wait: {begun.result()}"
        acted = time.monotonic()
        act()
        return begun.result(), time.monotonic() - acted


def charges_of(shop: Shop, order: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (applied, refusal) of an order's recorded charges, oldest first."""
    query = "SELECT applied, refusal FROM payments WHERE order_id = $1 ORDER BY recorded_at, event_id"
    return [(row["applied"], row["refusal"]) for row in shop.books.rows(query, UUID(order["order_id"]))]


def test_a_retry_gets_the_same_order_and_another_body_conflicts(shop: Shop) -> None:
    """Stops: two orders for one click, and one key that means two things."""
    first = shop.place("plain", buyer="ann", key="click-1")
    assert first.status == 201
    retry = shop.place("plain", buyer="ann", key="click-1")
    assert (retry.status, retry.body) == (200, first.body)
    shop.place("plain", buyer="ann", key="click-1", quantity=2).refused(422, "idempotency_conflict")
    shop.place("brief", buyer="ann", key="click-1").refused(422, "idempotency_conflict")
    other = shop.place("plain", buyer="bob", key="click-1")
    assert other.status == 201
    assert other.json["order_id"] != first.json["order_id"]
    assert first.json["pay_url"].endswith(first.json["order_id"])


def test_the_same_click_many_times_at_once_is_one_order(shop: Shop) -> None:
    """Stops: a double click that both look for the order and both find none."""
    before = shop.books.free("plain")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.place("plain", buyer="dan", key="clicks"), range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert len({answer.body for answer in answers}) == 1
    assert shop.books.free("plain") == before - 1


def test_a_buyer_may_have_any_name_and_a_payment_any_date(shop: Shop) -> None:
    """Stops: a journal that stops at the first name or instant that one of the stores cannot take."""
    for buyer, paid_at in (
        ("🎁" * 128, "0001-01-01T00:00:00+23:59"),
        ('"\u2028\u202e\\', "9999-12-31T23:59:59.999-23:59"),
    ):
        order = shop.placed("plain", buyer=buyer)
        assert shop.pay(order, paid_at=paid_at).json["outcome"] == "paid"
        assert len(shop.delivered(order)) == 1
        assert shop.books.value("SELECT buyer FROM orders WHERE id = $1", UUID(order["order_id"])) == buyer


def test_a_payment_wakes_the_waiting_buyer_with_the_key(shop: Shop) -> None:
    """Stops: buyers who poll because waiting does not tell them."""
    order = shop.placed("plain")
    answer, took = during(lambda: shop.track(order, 20), lambda: shop.pay(order))
    if answer.json["state"] == "paid":
        answer = shop.track(order, 20)
    assert answer.json["state"] == "delivered"
    assert took < SOON_S
    (key,) = answer.json["keys"]
    assert key in shop.keys["plain"]
    began = time.monotonic()
    assert shop.track(order, 20).json == answer.json
    assert time.monotonic() - began < 2, "a delivered order has nothing to wait for"


def test_repeated_and_disordered_callbacks_deliver_once(shop: Shop) -> None:
    """Stops: a notification sent three times that delivers three keys (dujiaoka #97, card-system #287)."""
    order = shop.placed("plain")
    event = shop.payment(order)
    with ThreadPoolExecutor(3) as pool:
        outcomes = sorted(answer.json["outcome"] for answer in pool.map(shop.callback, [event] * 3))
    assert outcomes == ["paid", "repeated", "repeated"]
    keys = shop.delivered(order)
    assert shop.pay(order, event_id="late-news", status="started").json == {"outcome": "noted", "state": "delivered"}
    assert shop.callback(event).json == {"outcome": "repeated", "state": "delivered"}
    assert shop.delivered(order) == keys
    assert charges_of(shop, order) == [("first", "")]
    assert shop.books.value("SELECT count(*) FROM deliveries WHERE order_id = $1", UUID(order["order_id"])) == 1


def test_two_units_are_two_keys(shop: Shop) -> None:
    """Stops: one key for an order of two, or two orders sharing one."""
    order, other = shop.placed("two", quantity=2), shop.placed("plain", quantity=2)
    assert (order["amount"], order["quantity"]) == (2 * 1999, 2)
    assert shop.pay(order).status == shop.pay(other).status == 200
    keys, more = shop.delivered(order), shop.delivered(other)
    assert len(set(keys)) == len(set(more)) == 2
    assert set(keys) <= shop.keys["two"]
    assert set(more) <= shop.keys["plain"]


def test_a_second_charge_is_a_refund_due_and_moves_nothing(shop: Shop) -> None:
    """Stops: money taken twice and recorded once."""
    order = shop.placed("plain")
    assert shop.pay(order).json == {"outcome": "paid", "state": "paid"}
    keys = shop.delivered(order)
    assert shop.pay(order, event_id=f"again-{order['order_id']}").json == {
        "outcome": "refund_due",
        "state": "delivered",
    }
    assert wait_until(lambda: len(charges_of(shop, order)) == 2, SOON_S)
    assert charges_of(shop, order) == [("first", ""), ("refund_due", "charged_twice")]
    assert shop.delivered(order) == keys


def test_an_unpaid_unit_is_back_within_a_second_of_its_time(shop: Shop) -> None:
    """Stops: a shop frozen by carts that nobody pays (dujiao-next #105)."""
    before = shop.books.free("brief")
    order = shop.placed("brief", quantity=2)
    assert shop.books.free("brief") == before - 2
    assert wait_until(lambda: shop.books.free("brief") == before, SOON_S)
    assert 0 <= time.time() - parse_iso8601(order["pay_by"]) / 1000 <= 1.0
    assert state(shop, order) == "expired"


def test_a_waiting_buyer_learns_of_the_expiry(shop: Shop) -> None:
    """Stops: a buyer kept waiting for a payment that can no longer come in time."""
    order = shop.placed("brief")
    began = time.monotonic()
    assert shop.track(order, 20).json["state"] == "expired"
    assert time.monotonic() - began < 1 + SOON_S
    shop.cancel(order).refused(409, "not_cancellable")


def test_a_late_payment_reserves_again(shop: Shop) -> None:
    """Stops: paid, and no key, because the hold was over (acg-faka #913, #940)."""
    order = shop.placed("brief")
    assert wait_until(lambda: state(shop, order) == "expired", SOON_S)
    free = shop.books.free("brief")
    assert shop.pay(order).json == {"outcome": "late", "state": "paid"}
    assert set(shop.delivered(order)) <= shop.keys["brief"]
    assert shop.books.free("brief") == free - 1
    assert charges_of(shop, order) == [("late", "")]


def test_a_late_payment_for_the_last_unit_is_a_refund_due(shop: Shop) -> None:
    """Stops: one unit sold twice, or the money of the one who came late kept in silence."""
    late = shop.placed("last")
    assert wait_until(lambda: state(shop, late) == "expired", SOON_S)
    time.sleep(0.06)  # what came back to a sold-out SKU rests before it is sold again
    quick = shop.placed("last")
    assert shop.pay(quick).json["outcome"] == "paid"
    assert shop.pay(late).json == {"outcome": "refund_due", "state": "refund_due"}
    assert set(shop.delivered(quick)) == shop.keys["last"]
    assert wait_until(lambda: charges_of(shop, late) == [("refund_due", "sold_out")], SOON_S)
    assert shop.track(late, 5).json["state"] == "refund_due"
    assert "keys" not in shop.track(late).json
    shop.cancel(late).refused(409, "not_cancellable")


def test_cancelling_gives_the_units_back_once(shop: Shop) -> None:
    """Stops: units lost with a cancelled order, or given back by each repetition."""
    before = shop.books.free("plain")
    order = shop.placed("plain", quantity=3)
    answer, took = during(lambda: shop.track(order, 20), lambda: shop.cancel(order))
    assert (answer.json["state"], took < SOON_S) == ("cancelled", True)
    assert shop.cancel(order).json["state"] == "cancelled"
    assert shop.books.free("plain") == before
    assert shop.pay(order).json == {"outcome": "late", "state": "paid"}
    assert len(shop.delivered(order)) == 3
    shop.cancel(order).refused(409, "not_cancellable")
    assert shop.books.free("plain") == before - 3


def test_wait_ends_with_the_present_state(shop: Shop) -> None:
    """Stops: a long poll that ends in an error, or never."""
    order = shop.placed("plain")
    began = time.monotonic()
    assert shop.track(order, 0.7).json["state"] == "reserved"
    assert 0.6 < time.monotonic() - began < SOON_S
    assert shop.track(order, 0).json == shop.track(order).json


def test_a_started_payment_is_not_released_before_the_gateway_is_asked(shop: Shop, charges: Charges) -> None:
    """Stops: a unit sold to the next one while the money of the first is on its way."""
    held, unpaid, failed = shop.placed("brief"), shop.placed("brief"), shop.placed("brief")
    charges.silent.add(held["order_id"])
    for order in (held, unpaid, failed):
        started = shop.pay(order, event_id=f"started-{order['order_id']}", status="started")
        assert started.json == {"outcome": "noted", "state": "reserved"}
    assert shop.pay(failed, event_id=f"failed-{failed['order_id']}", status="failed").json["outcome"] == "noted"
    assert wait_until(lambda: held["order_id"] in charges.asked, SOON_S)
    assert wait_until(lambda: state(shop, unpaid) == state(shop, failed) == "expired", 2 * SOON_S)
    assert unpaid["order_id"] in charges.asked
    assert failed["order_id"] not in charges.asked
    assert state(shop, held) == "reserved", "the gateway has not said yet"
    charges.made[held["order_id"]] = shop.payment(held)
    charges.silent.clear()
    assert set(shop.delivered(held)) <= shop.keys["brief"]
    assert charges_of(shop, held) == [("first", "")]


def test_cancelling_a_started_payment_asks_the_gateway_first(shop: Shop, charges: Charges) -> None:
    """Stops: a cancelled order whose charge nobody looked for."""
    silent, charged, free = shop.placed("plain"), shop.placed("plain"), shop.placed("plain")
    charges.silent.add(silent["order_id"])
    charges.made[charged["order_id"]] = shop.payment(charged)
    for order in (silent, charged, free):
        assert shop.pay(order, event_id=f"started-{order['order_id']}", status="started").status == 200
    shop.cancel(silent).refused(503, "store_unavailable")
    assert state(shop, silent) == "reserved"
    shop.cancel(charged).refused(409, "not_cancellable")
    assert len(shop.delivered(charged)) == 1
    assert shop.cancel(free).json["state"] == "cancelled"
    assert charges.asked == [order["order_id"] for order in (silent, charged, free)]


def test_buyers_see_the_stock_as_a_word(shop: Shop) -> None:
    """Stops: a number to race for, and `in` for what is gone."""

    def word() -> str:
        return str(shop.ask("GET", "/v1/products/words").json["stock"])

    assert word() == "in"
    shop.placed("words", quantity=2)
    assert wait_until(lambda: word() == "low", SOON_S)
    order = shop.placed("words", quantity=3)
    assert wait_until(lambda: word() == "out", SOON_S)
    shop.cancel(order)
    assert wait_until(lambda: word() == "low", SOON_S)


def test_the_catalog_comes_in_pages(shop: Shop) -> None:
    """Stops: a product on two pages or on none, and instants that name no time zone."""
    seen: list[dict[str, Any]] = []
    after = ""
    while after is not None and len(seen) < 100:
        page = shop.ask("GET", f"/v1/products?limit=3&after={after}").json
        assert 1 <= len(page["products"]) <= 3
        seen += page["products"]
        after = page["next"]
    skus = [product["sku"] for product in seen]
    assert skus == sorted(shop.keys)
    assert shop.ask("GET", "/v1/products").json["products"] != []
    over, later = seen[skus.index("over")], seen[skus.index("later")]
    assert over["opens_at"] is later["closes_at"] is None
    assert parse_iso8601(over["closes_at"]) < time.time() * 1000 < parse_iso8601(later["opens_at"])


def test_workers_share_what_buyers_wait_for(shop: Shop) -> None:
    """Stops: a buyer on one worker who is never told because the news came to the other."""
    workers = psutil.Process(shop.deployment.pid("serve")).children()
    assert len(workers) == 2
    order = shop.placed("plain")

    def busy() -> bool:
        return all(
            any(one.status == "ESTABLISHED" for one in worker.net_connections("tcp") if one.laddr[1] == port)
            for worker in workers
        )

    port = shop.settings.port
    with ThreadPoolExecutor(60) as pool:
        waiting: list[Future[Answer]] = []
        while not busy() and len(waiting) < 60:
            waiting.append(pool.submit(shop.track, order, 20))
            time.sleep(0.05)
        assert busy(), "all connections went to one worker"
        waiting += [pool.submit(shop.track, order, 20) for _ in range(4)]
        time.sleep(0.3)
        paid = time.monotonic()
        assert shop.pay(order).status == 200
        states = {one.result().json["state"] for one in waiting}
    assert states <= {"paid", "delivered"}
    assert time.monotonic() - paid < SOON_S


def test_a_buyer_who_walks_away_is_forgotten(shop: Shop) -> None:
    """Stops: one waiter leaked by each closed browser, until nobody may wait any longer."""

    def waiting() -> float:
        lines = shop.operator("/metrics").body.decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("flashproof_waiters "))

    order = shop.placed("plain")
    assert wait_until(lambda: waiting() == 0, SOON_S)
    ask = f"GET /v1/orders/{order['order_id']}?wait=30 HTTP/1.1\r\nHost: shop\r\n"
    ask += f"Authorization: Bearer {order['token']}\r\n\r\n"
    address = (shop.settings.host, shop.settings.port)
    buyers = [socket.create_connection(address, SOON_S) for _ in range(10)]
    for buyer in buyers:
        buyer.sendall(ask.encode())
    assert wait_until(lambda: waiting() == 10, SOON_S)
    for buyer in buyers:
        buyer.close()
    assert wait_until(lambda: waiting() == 0, SOON_S)


def test_an_order_outlives_the_server(shop: Shop) -> None:
    """Stops: a retry after a restart that buys a second time."""
    first = shop.place("plain", buyer="cat", key="before-the-restart")
    assert shop.deployment.restart("serve")
    shop.deployment.wait_ready()
    retry = shop.place("plain", buyer="cat", key="before-the-restart")
    assert (retry.status, retry.body) == (200, first.body)
    assert shop.pay(first.json).json["outcome"] == "paid"
    assert len(shop.delivered(first.json)) == 1
    again = shop.place("plain", buyer="cat", key="before-the-restart")
    assert (again.status, again.json) == (200, first.json | {"state": "delivered"})


def test_no_card_key_is_anywhere_but_in_its_buyers_hands(shop: Shop) -> None:
    """Stops: a key in a log, in Valkey, in a fact (the append-only file has every one), or in clear in PostgreSQL."""
    assert shop.books.value("SELECT count(*) FROM deliveries") > 0
    order = shop.placed("plain")
    shop.pay(order)
    assert all(key.startswith(shop.mark) for key in shop.delivered(order))
    assert shop.mark not in repr(shop.books.snapshot())
    folders = (shop.deployment.directory, Path(shop.books.value("SHOW data_directory")))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    read = {path: path.read_bytes() for path in files}
    assert [path for path, content in read.items() if shop.mark.encode() in content] == []
    names = " ".join(map(str, files))
    for part in ("serve.log", "work.log", "appendonlydir", "pg_wal", "server.log"):
        assert part in names, f"{part} was not looked through"
    assert any(b"placed" in content for path, content in read.items() if "appendonlydir" in str(path))
    for port in (shop.settings.ops_port, shop.settings.work_ops_port):
        assert shop.mark.encode() not in shop.operator("/metrics", port).body
