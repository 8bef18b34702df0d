"""The row of those who wait: 20,000 buyers with `?wait=` on one worker, and how soon each is woken.

Every buyer has a connection and a paid order of its own. The projector is held still while they come; when the worker
says that all of them wait, the projector is let go and delivers as fast as it can. Nothing is paced for the sake of the
figure: the worker wakes and answers while PostgreSQL and the projector work on what comes next, on the same cores.

*Woken after* = from PostgreSQL's own commit timestamp of the transaction that delivered the order (it is taken just
before the commit is written to disk, so the figure is a little too long) to the moment at which the client has read the
answer with the key. Both are this machine's wall clock. For these timestamps the run turns on
``track_commit_timestamp``, which a shop does not need.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import resource
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from benchmarks.record.client import Arrived, Client, raise_files
from benchmarks.record.offer import Offer
from benchmarks.record.requests import Requests
from benchmarks.record.result import Book, Figure, figure, percentile, spent
from benchmarks.record.shop import Meter, Progress, a_shop, held
from benchmarks.record.stage import set_stage
from core.arguments import Arguments
from core.backends import postgres
from core.errors import BadInput, Fault
from core.settings import FILES_KEPT, WAIT_MOST_S
from loadtests.shop.deployment import Deployment

BUYERS: Final = 20_000
FIRST: Final = 600_000_000  # number of the first order; each verb has its own
WOKEN_MOST_MS: Final = 250.0
_GATEWAYS: Final = 64  # connections that pay
_COMING_MOST: Final = 200  # buyers who have asked and are not yet known to be served, while they come
_PLACE_BATCH: Final = 100
_PROJECT_MOST_S: Final = 30.0
_COME_MOST_S: Final = WAIT_MOST_S - 5.0  # the first to come must still wait when the last one does
_FOLLOW_MOST_S: Final = 30.0
_COUNTED_AGAIN_S: Final = 0.1
_LAST_COUNT_S: Final = 5.0


class _Seen(msgspec.Struct):
    """What the client reads of an order's answer."""

    state: str
    keys: list[str] = []


_seen = msgspec.json.Decoder(_Seen)


class Woken(NamedTuple):
    """One round."""

    waited: int  # buyers who waited at once, as the worker counts
    after_s: list[float]  # from commit to key
    delivered_s: float  # from the projector's release to the last key
    seconds: dict[str, float]


def _pay(client: Client, requests: Requests, first: int, orders: int, say: Progress) -> None:
    """Pay orders over HTTP as fast as they are taken."""
    lines = [client.open() for _ in range(min(_GATEWAYS, orders))]
    following, done = first + len(lines), 0
    for number, line in enumerate(lines, first):
        line.send(requests.callback(number))
    while done < orders:
        for answer in client.arrived(1.0):
            if answer.status != 200:
                raise Fault(f"a payment was answered {answer.status}: {answer.body[:200]!r}")
            done += 1
            if following < first + orders:
                answer.line.send(requests.callback(following))
                following += 1
        say.still(f"{done:,} of {orders:,} paid")


def _come(shop: Deployment, client: Client, requests: Requests, first: int, orders: int, say: Progress) -> int:
    """Let every buyer connect and ask; return how many wait when all have come, as the worker counts.

    Raises:
        Fault: not all of them wait, or it takes so long that the first would leave again.
    """
    began = time.monotonic()
    for number in range(first, first + orders):
        line = client.open()
        line.about = number
        line.send(requests.wait(number, int(WAIT_MOST_S)))
        if (number - first) % _COMING_MOST == _COMING_MOST - 1:
            for early in client.arrived(0.0):
                raise Fault(f"a buyer got an answer before anything was delivered: {early.raw[:300]!r}")
            say.still(f"{number - first + 1:,} of {orders:,} buyers have come")
    counted_until = time.monotonic() + _LAST_COUNT_S
    while (waiting := _waiting(shop)) < orders and time.monotonic() < counted_until:
        say.still(f"{waiting:,} of {orders:,} wait")
        time.sleep(_COUNTED_AGAIN_S)
    if waiting < orders:
        raise Fault(f"only {waiting:,} of {orders:,} buyers wait: the worker takes no more, or lost some")
    if time.monotonic() - began > _COME_MOST_S:
        raise Fault(f"the buyers took more than {_COME_MOST_S:.0f} s to come; ask for fewer")
    return waiting


def _waiting(shop: Deployment) -> int:
    found = re.search(r"^flashproof_waiters ([0-9.e+]+)$", shop.metrics("serve"), re.MULTILINE)
    return int(float(found.group(1))) if found else 0


def _wake(client: Client, orders: int, say: Progress) -> list[Arrived]:
    """Return the answers of all who wait; they are read at once and looked at later."""
    arrived: list[Arrived] = []
    until = time.monotonic() + _FOLLOW_MOST_S
    while len(arrived) < orders:
        arrived.extend(client.arrived(0.5))
        if time.monotonic() > until:
            raise Fault(f"{orders - len(arrived):,} buyers were not woken within {_FOLLOW_MOST_S:.0f} s")
        say.still(f"{len(arrived):,} of {orders:,} have their key")
    return arrived


def _round(shop: Deployment, offer: Offer, first: int, orders: int, say: Progress) -> Woken:
    requests = Requests(shop.settings)
    offer.fill(offer.prepare(orders, _PLACE_BATCH), lambda done: say.still(f"{done:,} of {orders:,} placed"))
    offer.wait_committed(_PROJECT_MOST_S, lambda: say.still("waiting for the projector"))
    gateway, client = Client(shop.settings.port), Client(shop.settings.port)
    gc.disable()  # a collection among twenty thousand connections would be read as a late answer
    try:
        with held(shop):
            _pay(gateway, requests, first, orders, say)
            gateway.close()
            waited = _come(shop, client, requests, first, orders, say)
            say(f"{waited:,} wait on one worker; the projector goes on")
            meter, began = Meter(shop), time.time()
        arrived = _wake(client, orders, say)
        seconds = meter.read()
    finally:
        gc.enable()
        gateway.close()
        client.close()
    given = set()
    for answer in arrived:
        seen = _seen.decode(answer.body)
        if answer.status != 200 or len(seen.keys) != 1:
            raise Fault(f"a buyer was woken without a key: {answer.raw[:300]!r}")
        given.add(seen.keys[0])
    if len(given) != orders:
        raise Fault(f"{orders:,} orders show {len(given):,} different keys")
    commits = asyncio.run(_commits(shop))
    after = [answer.at - commits[requests.order_id(answer.line.about)] for answer in arrived]
    return Woken(waited, after, max(answer.at for answer in arrived) - began, seconds)


async def _commits(shop: Deployment) -> dict[bytes, float]:
    """Return when each delivery was committed, by order."""
    connection = await postgres.connect(shop.settings.postgres_dsn, timeout_s=60)
    try:
        rows = await connection.fetch(
            "SELECT order_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM deliveries"
        )
        return {row["order_id"].bytes: row["at"] for row in rows}
    finally:
        connection.terminate()


async def _note_commits(dsn: str) -> None:
    connection = await postgres.connect(dsn)
    try:
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    finally:
        connection.terminate()


def _with_commit_timestamps(shop: Deployment, say: Progress) -> None:
    """Let PostgreSQL note the instant of each commit; it must be started again for that."""
    say("starting PostgreSQL again, with commit timestamps")
    asyncio.run(_note_commits(shop.settings.postgres_dsn))
    shop.restart("postgres")
    shop.wait_ready()


def figures_of(rounds: Sequence[Woken], wanted: int, why: str) -> list[Figure]:
    """Return the figures of all rounds; ``why`` fewer than ``wanted`` may have waited."""
    waited = [one.waited for one in rounds]
    found = [figure("buyers who waited at once on one worker", waited, "buyers", least=wanted, note=why)]
    for name, share in (("p50", 0.5), ("p99", 0.99), ("the last one", 1.0)):
        values = [percentile(one.after_s, share) * 1000 for one in rounds]
        found.append(figure(f"woken after, {name}", values, "ms", most=WOKEN_MOST_MS if share == 1.0 else None))
    found.append(figure("from the projector's release to the last key", [one.delivered_s for one in rounds], "s"))
    return found


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks waiters", description=main.__doc__)
    parser.add_argument(
        "--buyers",
        type=int,
        metavar="N",
        help=f"who wait at once (default {BUYERS:,}, or as many as the limit of open files lets one worker have)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="each with all buyers anew (default 3)")
    options = parser.parse_args(argv)
    if options.buyers is not None and not 1 <= options.buyers <= 40_000:
        raise BadInput("--buyers must be from 1 to 40,000")
    if not 1 <= options.rounds <= 5:
        raise BadInput("--rounds must be from 1 to 5")
    return options


def _buyers(asked: int | None) -> tuple[int, str]:
    """Return how many buyers one worker can have here, and why that is fewer than the bar says."""
    if asked is not None:
        return asked, ""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    room = BUYERS if hard == resource.RLIM_INFINITY else hard - FILES_KEPT
    if room >= BUYERS:
        return BUYERS, ""
    why = f"a process may have {hard:,} open files here (ulimit -Hn), and a worker keeps {FILES_KEPT} of them"
    return max(1, room), why


def main(argv: Sequence[str]) -> int:
    """Let 20,000 buyers wait on one worker, deliver to all of them, and measure how soon each is woken.

    Exit code 0: every bar is met; 1: one is missed; 64: bad usage.
    """
    options = _parse(argv)
    buyers, why = _buyers(options.buyers)
    raise_files(buyers)
    book, say = Book("waiters"), Progress()
    with a_shop(say) as shop:
        _with_commit_timestamps(shop, say)
        set_stage(shop.settings, buyers * options.rounds, say)
        requests = Requests(shop.settings)
        offer = Offer(shop.settings.valkey_url, requests.names, FIRST)
        rounds = []
        try:
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}: {buyers:,} buyers")
                rounds.append(_round(shop, offer, FIRST + number * buyers, buyers, say))
        finally:
            offer.close()
        say("stopping the shop")
    costs = {"delivered and shown": spent([one.seconds for one in rounds], [buyers] * len(rounds))}
    asked = {"rounds": options.rounds, "buyers": buyers}
    figures = figures_of(rounds, options.buyers or BUYERS, why)
    words, code = book.close(options.rounds, asked, figures, costs)
    sys.stdout.write(words)
    return code
