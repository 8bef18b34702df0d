"""When a buyer's requests are due: by the plan, whatever the shop does, and what it makes late is in the latency."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import iso8601
from core.ids import Names
from loadtests.generator.buyer import World, play
from loadtests.generator.contract import Reply
from loadtests.generator.gateway import Gateway
from loadtests.generator.manners import Manners
from loadtests.generator.plan import Crowd, Plan
from loadtests.generator.recorder import Recorder
from loadtests.generator.retry_budget import RetryBudget
from loadtests.record.figures import gaps
from loadtests.record.history import Attempt, read
from loadtests.record.identity import first_places
from loadtests.targets.core import Core
from tests.harness.test_generator import SCENARIOS, null_shop_process, start

SECRET: Final = b"s" * 32
STARTED_UNIX_US: Final = 1_760_000_000_000_000
DUE_US: Final = 5_000_000
HOLD_US: Final = 10_000_000
ROOT: Final = Path(__file__).parents[2]


class Slow:
    """A shop on a clock of its own: the n-th answer takes the n-th of the given times, the others one millisecond.

    The buyer, its gateway and its recorder are the real ones; only time and the network are made.
    """

    started_unix_us = STARTED_UNIX_US

    def __init__(self, takes_us: Iterator[int], sold_out: int = 0, full_for_s: int = 0) -> None:
        self.us, self._takes, self._sold_out = DUE_US, takes_us, sold_out
        self._full_for_s = full_for_s

    def now_us(self) -> int:
        return self.us

    def sleep(self, pause_us: int) -> None:
        self.us += pause_us

    def ask(self, raw: bytes, _: float) -> Reply:
        sent_us = self.us
        self.us += next(self._takes, 1_000)
        if self._full_for_s:
            again, self._full_for_s = {b"retry-after": b"%d" % self._full_for_s}, 0
            return Reply(sent_us, self.us, status=503, headers=again, body=b'{"code":"overloaded"}')
        status, body = self._answer(raw)
        return Reply(sent_us, self.us, status=status, body=msgspec.json.encode(body))

    def _answer(self, raw: bytes) -> tuple[int, Any]:
        if raw.startswith(b"POST /v1/orders"):
            if self._sold_out:
                self._sold_out -= 1
                return 409, {"code": "sold_out"}
            order = {"order_id": "0" * 31 + "1", "token": "t", "state": "reserved", "sku": "hot", "quantity": 1}
            pay_by = iso8601((STARTED_UNIX_US + self.us + HOLD_US) // 1_000)
            return 201, order | {"amount": 1999, "currency": "CNY", "pay_by": pay_by}
        if raw.startswith(b"POST"):
            return 200, {"outcome": "paid", "state": "paid"}
        if raw.startswith(b"GET /v1/products"):
            return 200, {"stock": "in"}
        return 200, {"state": "cancelled" if raw.startswith(b"DELETE") else "reserved"}


def lived(
    out: Path,
    takes_us: list[int],
    changes: dict[str, Any],
    manners: Manners = Manners(),  # noqa: B008  # frozen
    sold_out: int = 0,
    late_us: int = 0,
    full_for_s: int = 0,
) -> list[Attempt]:
    """Return the history of one arrival that was due at ``DUE_US`` and begun ``late_us`` later."""
    shop, recorder = Slow(iter(takes_us), sold_out, full_for_s), Recorder(out)
    shop.us += late_us
    target = Core("127.0.0.1:1", b"g" * 32)
    plain: dict[str, Any] = {"again": "", "conflict": None, "ending": "never", "watch": "none", "callbacks": "once"}
    plan: Plan = msgspec.structs.replace(Crowd(1, "hot", 5).plan(3), **plain | changes)

    def at_once(job: Callable[..., Any], *arguments: Any) -> None:
        job(*arguments)

    play(
        World(
            target=target,
            ask=shop.ask,
            wait=shop.ask,
            gateway=Gateway(target, shop.ask, recorder, shop, shop.sleep),
            recorder=recorder,
            names=Names(SECRET),
            clock=shop,
            sleep_us=shop.sleep,
            spawn=at_once,
            ask_beside=lambda *_: pytest.fail("nobody clicks twice here"),
            manners=manners,
            budget=RetryBudget(),
        ),
        plan,
        DUE_US,
    )
    recorder.close()
    return list(read(out / "history.jsonl"))


def only(attempts: list[Attempt], op: str) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.op == op]


def test_who_was_refused_returns_when_told_and_not_before_and_not_at_all_where_that_is_too_late(tmp_path: Path) -> None:
    """Stops: buyers who hammer a shop that has asked for a pause, or who wait for ten minutes as no buyer does."""
    first, second = only(lived(tmp_path / "a", [1_000], {}, full_for_s=4), "place")
    assert second.why == "retry"
    assert 4_000_000 <= second.intended_us - first.done_us < 4_100_000
    assert len(only(lived(tmp_path / "b", [1_000], {}, full_for_s=11), "place")) == 1


TOOK = st.integers(1_000, 4_000_000)


@settings(max_examples=40)
@given(takes=st.lists(TOOK, min_size=4, max_size=4), look_us=st.integers(0, 1_000_000))
def test_an_order_after_looking_around_is_due_when_the_plan_says_and_shows_all_the_time_missed(
    tmp_path_factory: pytest.TempPathFactory, takes: list[int], look_us: int
) -> None:
    """Stops: an order re-anchored on when the shop was done showing pages: a slow shop then looks fast."""
    looks = ("", "cold-001", "hot")
    attempts = lived(tmp_path_factory.mktemp("run"), takes, {"looks": looks, "look_us": look_us})
    pages, (order,) = only(attempts, "browse"), only(attempts, "place")
    free_us = DUE_US
    for number, page in enumerate(pages):
        assert page.intended_us == DUE_US + number * look_us
        free_us = max(free_us, page.intended_us) + takes[number]
        assert page.done_us == free_us
    planned_us = DUE_US + len(looks) * look_us
    missed_us = max(0, free_us - planned_us)
    assert order.intended_us == planned_us
    assert order.done_us - order.intended_us == missed_us + takes[3]
    assert order.waited_us == missed_us  # the shop's doing, never the generator's
    backlog = gaps([order])
    assert (backlog["backlog"].max, backlog["wake_lag"].max) == (missed_us, 0)


@pytest.mark.parametrize("look_us", [0, 25_000, 200_000])
def test_the_generators_own_lateness_is_never_laid_at_the_shops_door(tmp_path: Path, look_us: int) -> None:
    """Stops: a generator that comes late to the first page, and has the order's wake lag forgiven as backlog."""
    changes = {"looks": ("cold-001", "hot"), "look_us": look_us}
    attempts = lived(tmp_path, [10_000, 10_000, 10_000], changes, late_us=50_000)
    (order,) = only(attempts, "place")
    in_time = lived(tmp_path / "in_time", [10_000, 10_000, 10_000], changes)
    (punctual,) = only(in_time, "place")
    assert order.waited_us == punctual.waited_us  # what the shop cost is the same
    assert gaps([order])["wake_lag"].max == order.sent_us - punctual.sent_us


@pytest.mark.parametrize("order_took_us", [1_000, 3_000_000])
@pytest.mark.parametrize("ending", ["pay", "cancel"])
def test_paying_and_cancelling_keep_their_instant_when_the_order_was_answered_too_late(
    tmp_path: Path, ending: str, order_took_us: int
) -> None:
    """Stops: payments that thin out just when the shop is slow."""
    attempts = lived(tmp_path, [order_took_us], {"ending": ending, "think_us": 400_000})
    (then,) = only(attempts, ending)
    missed_us = max(0, order_took_us - 400_000)
    assert (then.intended_us, then.waited_us) == (DUE_US + 400_000, missed_us)
    assert then.sent_us == DUE_US + max(400_000, order_took_us)


def test_a_callback_that_comes_later_keeps_its_distance_from_the_payments_instant(tmp_path: Path) -> None:
    changes = {"ending": "pay", "think_us": 100_000, "callbacks": "twice_later", "gap_us": 1_000_000}
    first, again = only(lived(tmp_path, [1_000, 1_700_000], changes), "pay")
    assert (first.intended_us, again.intended_us) == (DUE_US + 100_000, DUE_US + 1_100_000)
    assert (again.why, again.waited_us, again.sent_us) == ("pay_again", 700_000, first.done_us)


def test_a_pages_timer_ticks_on_while_the_shop_is_silent(tmp_path: Path) -> None:
    """Stops: a storm of polls that becomes a breeze when the shop stands still."""
    manners = Manners(polls_most=4, poll_every_us=150_000)
    polls = only(lived(tmp_path, [1_000, 400_000], {"watch": "poll"}, manners), "track")
    assert [poll.intended_us - DUE_US for poll in polls] == [150_000, 300_000, 450_000, 600_000]
    assert [poll.waited_us for poll in polls] == [0, 250_000, 101_000, 0]


def test_who_comes_back_does_so_when_the_plan_says(tmp_path: Path) -> None:
    attempts = lived(tmp_path, [900_000], {"come_back_us": 500_000, "ending": "pay", "think_us": 200_000}, sold_out=2)
    places, (payment,) = only(attempts, "place"), only(attempts, "pay")
    assert [place.intended_us - DUE_US for place in places] == [0, 500_000, 1_000_000]
    assert [place.waited_us for place in places] == [0, 400_000, 0]
    assert payment.intended_us == places[-1].intended_us + 200_000


def test_who_pays_late_is_late_by_the_shops_own_word(tmp_path: Path) -> None:
    """The one instant that an answer may move: what the shop calls late must be late."""
    attempts = lived(tmp_path, [2_000_000], {"ending": "late", "late_us": 300_000})
    (order,), (payment,) = only(attempts, "place"), only(attempts, "pay")
    assert abs(payment.intended_us - (order.done_us + HOLD_US + 300_000)) < 1_000


# --- a real process, a real freeze ------------------------------------------------------------------------------

RATE: Final = 150
SALE_S: Final = 4.0
FROZEN_S: Final = 1.2


def test_a_shop_frozen_while_visitors_look_around_has_it_in_the_latency_of_their_orders(tmp_path: Path) -> None:
    """Arrivals of an ordinary day whose page was kept by the freeze order that much later than planned, and show it."""
    out = tmp_path / "run"
    with null_shop_process("--stock", "100000", "--hold-ms", "60000") as (url, shop):
        of = ("--fp-arrivals", "constant", "--fp-cold", "200", "--fp-think", "0", "--fp-drain", "1")
        process = start(url, out, RATE, SALE_S, *of, scenario=SCENARIOS / "ordinary_day.py")
        assert process.stdout is not None
        while "FLASHPROOF" not in process.stdout.readline():
            time.sleep(0.01)
        time.sleep(1.0)
        shop.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        shop.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    attempts = list(read(out / "history.jsonl"))
    orders = first_places(attempts)
    pages: dict[int, list[Attempt]] = {}
    for page in only(attempts, "browse"):
        pages.setdefault(page.arrival, []).append(page)
    kept = 0
    for number, order in orders.items():
        assert order.intended_us >= number * 1_000_000 // RATE  # never before its arrival, never moved:
        last = max(pages[number], key=lambda page: page.intended_us)
        planned_us = order.intended_us - last.intended_us  # one look, of 0.3 s at most
        assert 0 <= planned_us <= 300_000
        missed_us = last.done_us - order.intended_us
        if missed_us > 100_000:
            kept += 1
            assert order.done_us - order.intended_us >= missed_us
            assert abs(order.waited_us - missed_us) < 50_000
    assert kept > RATE * FROZEN_S / 3
    accepted = json.loads((out / "histograms.json").read_text())["latency"]["accepted"]
    assert accepted["p99"] > 0.7 * FROZEN_S * 1e6
    assert len(orders) == RATE * SALE_S
