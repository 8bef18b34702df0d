"""The generator's own ceiling: the whole of it, by open arrivals, against a server that does nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.generator.ceiling import CeilingUnknown, cores, drive, null_server, run_pinned
from loadtests.generator.contract import Reply
from loadtests.generator.null_server import Null, Orders
from loadtests.generator.whole_ceiling import ceiling_of, whole_ceiling
from loadtests.record.history import Attempt
from loadtests.record.summary import Generator, WakeLag
from loadtests.scenarios import find
from loadtests.targets import Notice
from loadtests.targets.core import Core

QUARTER_US = 250_000
SAMPLES = 8
LAG_MOST_US = 5_000.0


def rise(late_from_us: int = 10**9) -> list[Attempt]:
    """Two seconds: in each quarter 100 arrivals more than in the last, all with a page before; some late."""
    found = []
    for quarter in range(SAMPLES):
        count = 100 * (quarter + 1)
        for number in range(count):
            due_us = quarter * QUARTER_US + number * QUARTER_US // count
            sent_us = due_us + (8_000 if due_us >= late_from_us else 300)
            place = Attempt(
                arrival=1_000 * quarter + number,
                op="place",
                why="first",
                buyer="b",
                intended_us=due_us,
                sent_us=sent_us,
                done_us=sent_us + 500,
                result="ok",
                status=201,
                outcome="accepted",
            )
            found += [msgspec.structs.replace(place, op="browse"), place]
    return found


def told(cpu: list[float], stalls: list[tuple[int, int]] | None = None) -> Generator:
    samples = [((number + 1) * QUARTER_US, share) for number, share in enumerate(cpu)]
    return Generator(
        scheduled=1,
        sent=1,
        unsent=0,
        shed=0,
        cpu_max=1.0,
        wake_lag_us=WakeLag(),
        cpu_samples=samples,
        stalls=stalls or [],
    )


EASY = [0.1] * SAMPLES


def test_the_ceiling_is_the_busiest_half_second_in_which_it_was_fit() -> None:
    found = ceiling_of(rise(), told(EASY), SAMPLES * QUARTER_US, LAG_MOST_US)
    assert found.arrivals_per_s == pytest.approx((700 + 800) * 2, rel=0.01)
    assert found.requests_per_s == pytest.approx(2 * found.arrivals_per_s, rel=0.01)
    assert not found.gave_out  # so that is no more than a lower bound


@pytest.mark.parametrize("why", ["cpu", "late", "stalled"])
def test_what_makes_a_run_void_ends_the_rise(why: str) -> None:
    """Stops: a ceiling that no run could have, since a run that is made there is not believed."""
    cpu = [0.1] * 5 + [0.9] * 3 if why == "cpu" else EASY
    attempts = rise(late_from_us=5 * QUARTER_US) if why == "late" else rise()
    stalls = [(5 * QUARTER_US + 10, 700_000)] if why == "stalled" else []
    found = ceiling_of(attempts, told(cpu, stalls), SAMPLES * QUARTER_US, LAG_MOST_US)
    assert found.arrivals_per_s == pytest.approx((400 + 500) * 2, rel=0.01)
    assert found.gave_out


def test_what_comes_after_the_rise_does_not_count() -> None:
    """Stops: a generator that catches up with what is overdue when all is over, taken for a fast one."""
    found = ceiling_of(rise(), told(EASY), 4 * QUARTER_US, LAG_MOST_US)
    assert found.arrivals_per_s == pytest.approx((300 + 400) * 2, rel=0.01)


def test_the_whole_generator_is_measured_and_does_less_than_a_closed_loop(tmp_path: Path) -> None:
    """The lean user's loop is no ceiling of a run: a run plans, waits for the due instant, pays and tracks besides."""
    whole = whole_ceiling(find("flash_sale"), 100.0, 2.0)
    with null_server() as port:
        lean = drive("Lean", port, 0.3, tmp_path)
    assert 100 < whole.arrivals_per_s < whole.requests_per_s < 2 * lean.per_s


# --- the null server ------------------------------------------------------------------------------------------


class Wire:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def asked(raw: bytes, cuts: list[int], share: float = 1.0) -> list[Reply]:
    wire, protocol, at = Wire(), Null(Orders(share)), 0
    protocol.connection_made(wire)  # type: ignore[arg-type]
    for cut in [*sorted(cuts), len(raw)]:
        if cut > at:
            protocol.data_received(raw[at:cut])
            at = cut
    replies = []
    while wire.written:
        head, _, rest = wire.written.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2])
        replies.append(Reply(1, 2, status=int(head.split(b" ")[1]), body=rest[:length]))
        wire.written = rest[length:]
    return replies


@settings(max_examples=100)
@given(cuts=st.lists(st.integers(1, 900), max_size=4))
def test_the_null_server_answers_whatever_a_buyer_asks_however_it_is_cut(cuts: list[int]) -> None:
    """Stops: a ceiling measured on answers that the generator could not read."""
    core = Core("127.0.0.1:1", b"g" * 32)
    notice = Notice("evt", "0" * 32, 1999, "CNY", "paid", 1_760_000_000_000, 1_760_000_000)
    asks = [
        ("browse", core.browse("hot"), "in"),
        ("place", core.place("key", "hot", "ann", 1), "accepted"),
        ("pay", core.pay(notice), "paid"),
        ("track", core.track("0" * 31 + "1", "token", 10), "delivered"),
        ("cancel", core.cancel("0" * 31 + "1", "token"), "cancelled"),
    ]
    replies = asked(b"".join(raw for _, raw, _ in asks), cuts)
    read = [core.read(call, reply).outcome for (call, _, _), reply in zip(asks, replies, strict=True)]  # type: ignore[arg-type]
    assert read == [outcome for _, _, outcome in asks]


def test_a_share_of_the_orders_is_accepted_each_under_its_own_id() -> None:
    core = Core("127.0.0.1:1", b"g" * 32)
    replies = asked(core.place("key", "hot", "ann", 1) * 200, [], 0.15)
    answers = [core.read("place", reply) for reply in replies]
    accepted = [one.placed.order_id for one in answers if one.placed]
    assert len(accepted) == len(set(accepted)) == 30
    assert [one.outcome for one in answers].count("sold_out") == 170


def test_what_is_measured_runs_on_the_generators_core_with_what_it_is_told() -> None:
    script = "import os, time; time.sleep(0.3); print(os.environ['SAID'], sorted(os.sched_getaffinity(0)))"
    done = run_pinned([sys.executable, "-c", script], "it was", 20, {"SAID": "so"})
    assert (done.returncode, done.stdout) == (0, f"so [{cores()[0]}]\n")


def test_a_measurement_that_does_not_end_is_ended_and_its_ceiling_unknown(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(CeilingUnknown, match="the generator was not done within 2 s"):
        run_pinned([sys.executable, "-c", script], "the generator was", 2)
    assert time.monotonic() - began < 30
    assert not psutil.pid_exists(int(pid.read_text()))
