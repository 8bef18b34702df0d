"""The judge of the flood: each bar can be missed, and bad usage is told before anything is started."""

from __future__ import annotations

import base64
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]
import pytest

from loadtests.__main__ import main
from loadtests.trials import overload
from loadtests.trials.flood import HONOUR, IGNORE, Bucket, Done, Flood, Phase, Plan, Told
from loadtests.trials.flood_bars import bars_of, void_of
from loadtests.trials.slices import Slices, sliced

CALM = Bucket(accepted=500, accepted_p99_ms=10.0)


def phases(
    sold: int = 9_500, refused_ms: float = 20.0, after: list[Bucket] | None = None, others: int = 0
) -> list[Told]:
    """Return peak, calm, one flood of a second and what came after it."""
    flood = Told(
        "flood 5x",
        seconds=1.0,
        sent=50_000,
        refused=40_000,
        driver_share=0.7,
        accepted=sold,
        accepted_ms=[1, 2, 3],
        refused_ms=[1, refused_ms, 900],
    )
    flood.others = {"500": others} if others else {}
    return [
        Told("peak", seconds=1.0, accepted_ms=[1, 2, 3]),
        Told("calm", seconds=1.0, accepted_ms=[1, 5, 9]),
        flood,
        Told("after 5x", seconds=8.0, buckets=after or [CALM] * 16),
    ]


def missed(told: list[Told]) -> list[str]:
    """Return the first words of the bars that a flood of five times a peak of 10,000 missed."""
    return [bar.name.split(" ")[0] for bar in bars_of(10_000.0, told, [5.0], 0) if not bar.met]


def test_a_good_flood_meets_every_bar() -> None:
    """Stops: a bar that cannot be met."""
    assert missed(phases()) == []
    assert missed(phases(after=[Bucket(refused=1), *[CALM] * 15])) == []


@pytest.mark.parametrize(
    ("told", "bar"),
    [
        (phases(sold=8_900), "goodput"),
        (phases(refused_ms=51.0), "refused"),
        (phases(after=[*[CALM] * 10, Bucket(accepted=500, refused=1), *[CALM] * 5]), "normal"),
        (phases(after=[*[CALM] * 10, Bucket(accepted=500, accepted_p99_ms=51.0), *[CALM] * 5]), "normal"),
        (phases(others=1), "answers"),
    ],
)
def test_each_bar_can_be_missed(told: list[Told], bar: str) -> None:
    """Stops: a judge that lets pass what it names."""
    assert missed(told) == [bar]


def test_a_payment_that_is_turned_away_by_a_flood_of_orders_is_a_bar_missed() -> None:
    """Stops: a shop that sells on and loses the word of those who paid."""
    assert [bar.name for bar in bars_of(10_000.0, phases(), [5.0], 1) if not bar.met] == [
        "payments and questions refused"
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["--small", "x"],
        ["--share", "0"],
        ["--manners", "x"],
        ["--times", "5,x"],
        ["--times", "0.5"],
        ["--times", "1,2,3,4"],
        ["--seconds", "0"],
        ["--connections", "0"],
        ["x"],
    ],
)
def test_bad_usage_is_told_at_once(argv: list[str]) -> None:
    """Stops: a mistyped figure that costs a minute, or is taken for another one."""
    assert main(["overload", *argv]) == 64


def test_a_flood_that_was_one_is_not_void() -> None:
    """Stops: a judge that can never be satisfied."""
    assert void_of(10_000.0, phases(), [5.0], Slices("store", 0.05)) == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"sent": 49_000}, "4.9 times"),
        ({"driver_share": 0.9}, "90%"),
        ({"refused": 0}, "nobody was refused"),
        ({"accepted": 12_000}, "more than the peak"),
    ],
)
def test_a_flood_that_was_none_is_void(changed: dict[str, float], word: str) -> None:
    """Stops: a goodput of 100 % under a load that never reached the server."""
    told = phases()
    for name, value in changed.items():
        setattr(told[2], name, value)
    why = void_of(10_000.0, told, [5.0], Slices("store", 0.05))
    assert len(why) == 1
    assert word in why[0]


def test_slices_that_came_late_are_void() -> None:
    """Stops: a shop that was small in name only."""
    assert len(void_of(10_000.0, phases(), [5.0], Slices("store", 0.05, late=0.2))) == 1


@contextmanager
def full_shop() -> Iterator[int]:
    """A shop that refuses everybody at once; yields its port."""
    body = b"{}"
    answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nX-Outcome: not-executed\r\nRetry-After: 1\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as door, select.epoll() as poll:
        socks = {door.fileno(): door}
        poll.register(door, select.EPOLLIN)

        def serve() -> None:
            while not over.is_set():
                for end, _ in poll.poll(0.05):
                    if end == door.fileno():
                        sock, _ = door.accept()
                        socks[sock.fileno()] = sock
                        poll.register(sock, select.EPOLLIN)
                    elif socks[end].recv(65_536):
                        socks[end].send(answer)
                    else:
                        poll.unregister(end)
                        socks.pop(end).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            over.set()
            thread.join()
            for sock in socks.values():
                sock.close()


def flooded(manners: str) -> Done:
    """Ask a full shop for 400 a second, for a second."""
    secret = base64.b64encode(bytes(32)).decode()
    with full_shop() as port:
        flood = Flood(Plan(port, 50, 0, secret, [Phase("flood", 400.0, 1.0, whole=True)], [os.getpid()], manners))
        flood.connect()
        return flood.run()


def test_who_ignores_retry_after_is_part_of_the_rate_and_not_beyond_it() -> None:
    """Stops: a flood of ten times that is one of thirty, or a client that ignores in name only."""
    done = flooded(IGNORE)
    told = done.phases[0]
    assert 380 <= told.sent <= 480, (
        "some return at once and go before new ones; beside the rate it would be 800 and more"
    )
    assert done.next < told.sent / 2, "most were asked before"


def test_who_honours_retry_after_is_not_back_within_it() -> None:
    """Stops: an honest client that is none."""
    done = flooded(HONOUR)
    told = done.phases[0]
    assert done.next == told.sent == told.returning + told.waiting
    assert told.sent >= 380
    assert told.again_s == 1


def test_a_part_that_is_sliced_gets_its_share_and_goes_on_afterwards() -> None:
    """Stops: a share on paper, and a store that stays stopped when its trial is over."""
    core = max(os.sched_getaffinity(0))
    part = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        process = psutil.Process(part.pid)
        with sliced("store", 0.2, core, [part.pid]) as told:
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(1.5)
            used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        assert used < 0.45, "a fifth was meant; a busy machine gives less or is late"
        assert 0.1 < told[0].given < 0.4
        assert told[0].periods > 50
        assert process.status() != psutil.STATUS_STOPPED
    finally:
        part.send_signal(signal.SIGKILL)
        part.wait()


@pytest.mark.proof
def test_a_small_flood_is_played_from_start_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stops: a command that rots; it is run whole only when somebody measures."""
    for name, value in (("_ORDERS_BEFORE", 5_000), ("PEAK_S", 2.0), ("CALM_S", 1.0), ("AFTER_S", 2.0)):
        monkeypatch.setattr(overload, name, value)
    cores = os.sched_getaffinity(0)
    code = main(["overload", "--times", "3", "--seconds", "1", "--connections", "1000"])
    said = capsys.readouterr().out
    assert os.sched_getaffinity(0) == cores
    assert code in (0, 1, 3), said
    for word in ("flood 3x", "normal again", "payments and questions refused", "written to"):
        assert word in said
