"""The flood after the last unit: refused without Valkey, never for long, and never for who has an order already."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from conftest import Shop

FLOOD = 600


def calls(shop: Shop) -> int:
    """Return how many script calls Valkey has had."""
    client: Any = redis.Redis.from_url(shop.settings.valkey_url)
    try:
        said = client.info("commandstats")
        return int(said.get("cmdstat_evalsha", {}).get("calls", 0)) + int(said.get("cmdstat_eval", {}).get("calls", 0))
    finally:
        client.close()


def sell_out(shop: Shop, sku: str, units: int, **terms: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Stock a SKU and sell every unit of it; return the buyers, their keys and their orders."""
    shop.stock(units, sku=sku, **terms)
    sold = []
    for number in range(units):
        buyer, key = shop.buyer(), f"{sku}-{number}"
        sold.append((buyer, key, shop.placed(sku, buyer=buyer, key=key)))
    return sold


def test_a_flood_for_a_sold_out_sku_hardly_reaches_valkey(shop: Shop) -> None:
    """Stops: refusals that cost the store as much as sales, when nothing is left to sell."""
    sell_out(shop, "flooded", 3)
    before = calls(shop)
    for _ in range(FLOOD):
        shop.place("flooded").refused(409, "sold_out")
    # Each worker asks again every forty milliseconds; the projector and the expirer go on meanwhile.
    assert calls(shop) - before < FLOOD / 3


def test_who_retries_in_the_flood_finds_the_order_on_every_worker(shop: Shop) -> None:
    """Stops: *sold out* for a buyer who has one, because another worker sold it."""
    sold = sell_out(shop, "retried", 4)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        for buyer, key, order in sold:
            shop.place("retried").refused(409, "sold_out")
            again = shop.place("retried", buyer=buyer, key=key)
            assert (again.status, again.json["order_id"]) == (200, order["order_id"])


def test_a_unit_that_comes_back_is_sold_again_within_a_moment(shop: Shop) -> None:
    """Stops: a memory of *sold out* that outlives the truth, and the unit that nobody gets (miaosha #145)."""
    ((_, _, order),) = sell_out(shop, "returned", 1)
    for _ in range(50):
        shop.place("returned").refused(409, "sold_out")
    assert shop.cancel(order).status == 200
    began = time.monotonic()
    while shop.place("returned").status == 409:
        assert time.monotonic() - began < 1.0
    assert shop.books.free("returned") == 0


def test_before_the_sale_opens_a_flood_hardly_reaches_valkey_and_at_the_instant_it_opens(shop: Shop) -> None:
    """Stops: a sale that opens late for the workers that were asked too early."""
    opens_ms = time.time_ns() // 1_000_000 + 1_500
    shop.stock(2, sku="opening", opens_ms=opens_ms)
    before, asked = calls(shop), 0
    while (now_ms := time.time_ns() // 1_000_000) < opens_ms - 5:
        shop.place("opening").refused(403, "sale_not_open")
        asked += 1
    assert calls(shop) - before < max(asked, FLOOD) / 3
    while shop.place("opening").status != 201:
        assert time.time_ns() // 1_000_000 - opens_ms < 500, now_ms
