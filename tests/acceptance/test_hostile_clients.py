"""Clients that hold connections and give nothing are cut off, each in its own way, and buyers do not notice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest

from core.local.server import wait_until
from core.settings import HEAD_DEADLINE_S, HEAD_MOST, UNACKNOWLEDGED_MOST_S, to_environment
from loadtests.shop.deployment import CORE, free_ports
from loadtests.shop.parts import Command, worker_of
from loadtests.trials.siege import Fate, Siege

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Face, Shop

PATIENCE_S = 20.0
CAP = 60  # connections one address may have
SIEGE = {"silent": 60, "slow_head": 200, "slow_body": 100, "slow_read": 100}
SIEGE_S = 10.4
AGE_MOST_S = 10.0
MEMORY_MOST_MIB = 32
SOON_S = 2.0  # an answer to an honest buyer; without a siege it takes some milliseconds

GET = b"GET /v1/products/plain HTTP/1.1\r\nHost: shop\r\n\r\n"
PAGE = b"GET /v1/products?limit=%d HTTP/1.1\r\nHost: shop\r\n\r\n"
# What a connection carries first, whole and answered, and then a part of a head.
OPENINGS = [(b"", b"G"), (b"", b"\r\n\r\nGET / HTTP/1.1\r\n"), (GET, GET[:-1]), (PAGE % 1, GET[:20])]


class Server:
    """A `serve` of one worker that trusts nobody, on the shop's stores."""

    def __init__(self, face: Face, command: Command) -> None:
        self.face, self.command = face, command

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Return a new connection from one of this machine's addresses."""
        where = (self.face.settings.host, self.face.settings.port)
        return socket.create_connection(where, PATIENCE_S, source_address=(source, 0))

    def memory_mib(self) -> float:
        """Return what the worker has in memory."""
        return float(psutil.Process(worker_of(self.command.pid)).memory_info().rss) / 2**20

    def counted(self, reason: str) -> float:
        """Return how many connections were cut off for a reason, by the server's metrics."""
        head = b'flashproof_connections_cut_total{reason="%s"}' % reason.encode()
        lines = self.face.operator("/metrics").body.splitlines()
        return sum(float(line.rpartition(b" ")[2]) for line in lines if line.startswith(head))


@pytest.fixture(scope="module")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One more `serve`, whose address is this module's alone."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    port, ops_port = free_ports(2)
    settings = msgspec.structs.replace(
        shop.settings, port=port, ops_port=ops_port, connections_per_address=CAP, trusted_networks="none"
    )
    shop.stock(500, sku="fort", buyer_limit=1_000)
    command = Command(
        [*CORE, "serve", "--workers", "1"],
        shop.deployment.environment() | to_environment(settings) | {"TMPDIR": str(folder)},
        folder / "serve.log",
    )
    command.start()
    try:
        made = Server(shop.face(settings), command)
        assert wait_until(made.face.is_ready, PATIENCE_S), command.log_file.read_text()
        assert made.face.described.document
        yield made
    finally:
        command.kill()


def answers(connection: socket.socket, number: int) -> list[tuple[int, bytes]]:
    """Return the status and the body of so many answers."""
    found = []
    with connection.makefile("rb") as received:
        for _ in range(number):
            status = int(received.readline().split()[1])
            length = 0
            while line := received.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            found.append((status, received.read(length)))
    return found


class Buyer(threading.Thread):
    """Orders all the time, each order on a connection of its own."""

    def __init__(self, face: Face) -> None:
        super().__init__(daemon=True)
        self._face, self._over = face, threading.Event()
        self.slowest_s, self.statuses = 0.0, list[int]()

    def run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.statuses.append(self._face.place("fort").status)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            time.sleep(0.05)

    def end(self) -> None:
        """Buy no more."""
        self._over.set()
        self.join()


def begun(server: Server, first: bytes, then: bytes) -> float:
    """Send a whole request or none, then a part of one; return after how long that was cut off, with its reason."""
    connection = server.connect()
    with connection:
        if first:
            connection.sendall(first)
            assert answers(connection, 1)[0][0] == 200
        connection.sendall(then)
        began = time.monotonic()
        status, body = answers(connection, 1)[0]
        assert (status, msgspec.json.decode(body)["code"]) == (408, "head_timeout")
        assert connection.recv(1) == b""
        return time.monotonic() - began


def crumbled(server: Server) -> None:
    """Send two requests byte by byte, each in time, and after a long pause another; all are answered."""
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for idle_s in (0, HEAD_DEADLINE_S + 0.7, 0):  # idle is not late
            for at in range(len(GET)):
                connection.sendall(GET[at : at + 1])
                time.sleep(0.01)
            assert answers(connection, 1)[0][0] == 200
            time.sleep(idle_s)


def unread(server: Server) -> float:
    """Ask for answers that the kernel has room for, and read none; return after how long the server was rid of it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: 2,304 bytes
        connection.connect((server.face.settings.host, server.face.settings.port))
        connection.sendall(GET * 20)
        began, port = time.monotonic(), connection.getsockname()[1]
        worker = psutil.Process(worker_of(server.command.pid))

        def is_there() -> bool:
            return any(one.raddr[1:] == (port,) for one in worker.net_connections("tcp"))

        # The client is told nothing: the kernel gives up without a word.
        assert wait_until(is_there, PATIENCE_S) and wait_until(lambda: not is_there(), PATIENCE_S)
        return time.monotonic() - began


class Besieged(NamedTuple):
    """What a siege came to: for the hostile, a buyer and the server; and what became of slow heads beside it."""

    fates: dict[str, Fate]
    statuses: list[int]
    slowest_s: float
    memory_mib: float
    late: list[Future[float]]
    in_time: Future[None]
    unread: Future[float]


@pytest.fixture(scope="module")
def besieged(server: Server) -> Besieged:
    """One siege, and all that takes its time beside it."""
    buyer, siege = Buyer(server.face), Siege(server.face.settings.host, server.face.settings.port, SIEGE)
    with ThreadPoolExecutor(len(OPENINGS) + 2) as pool:
        memory, before = 0.0, server.memory_mib()
        buyer.start()
        siege.begin()
        late = [pool.submit(begun, server, *both) for both in OPENINGS]
        in_time, never = pool.submit(crumbled, server), pool.submit(unread, server)
        until = time.monotonic() + SIEGE_S
        while time.monotonic() < until:
            siege.step(time.monotonic() + 0.1)
            memory = max(memory, server.memory_mib())
        fates = siege.end()
        buyer.end()
    return Besieged(fates, buyer.statuses, buyer.slowest_s, memory - before, late, in_time, never)


def test_who_keeps_the_server_waiting_is_cut_off_and_buyers_do_not_notice(server: Server, besieged: Besieged) -> None:
    """Stops: a shop filled by 2,000 sockets that send a byte a second, or take answers and never read them."""
    fates = besieged.fates
    assert all(fate.refused == 0 for fate in fates.values()), fates
    assert all(fate.cut > 0 for fate in fates.values()), fates
    assert max(fate.oldest_s for fate in fates.values()) < AGE_MOST_S, fates
    for kind in ("slow_head", "slow_body"):
        assert fates[kind].answers == {"408": fates[kind].cut}, fates
    assert set(besieged.statuses) == {201}
    assert len(besieged.statuses) > 20
    assert besieged.slowest_s < SOON_S
    assert besieged.memory_mib < MEMORY_MOST_MIB
    reasons = ("connection_silent", "head_timeout", "body_timeout", "answer_not_taken")
    assert wait_until(lambda: all(server.counted(reason) > 0 for reason in reasons), 5)
    assert "Traceback" not in server.command.log_file.read_text()


def test_a_head_is_cut_off_with_a_reason_unless_it_ends_in_time(besieged: Besieged) -> None:
    """Stops: a client that waits for ever; a deadline only for the first request, or one that outlives its head."""
    for one in besieged.late:
        assert HEAD_DEADLINE_S - 0.2 < one.result() < HEAD_DEADLINE_S + 2
    besieged.in_time.result()


def test_answers_that_fit_into_the_kernels_buffers_and_are_not_read_are_cut_off_by_the_kernel(
    besieged: Besieged,
) -> None:
    """Stops: connections kept for 15 minutes by who asks for little and reads nothing of it."""
    assert UNACKNOWLEDGED_MOST_S - 0.5 < besieged.unread.result() < AGE_MOST_S


def test_a_head_that_never_stops_growing_is_refused(server: Server) -> None:
    """Stops: memory filled by header lines, each of them short enough."""
    line = b"X-More: " + b"m" * 1_000 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(GET[:-2])
        for _ in range(HEAD_MOST // len(line) + 1):
            connection.sendall(line)
            time.sleep(0.005)
        status, body = answers(connection, 1)[0]
        assert (status, msgspec.json.decode(body)["code"]) == (431, "head_too_large")


def test_requests_sent_before_their_answers_are_answered_in_turn(server: Server) -> None:
    """Stops: a request lost because it came while another was under way; answers in another order."""
    for pieces in ([GET, PAGE % 1, PAGE % 2, GET], [GET + PAGE % 1 + PAGE % 2 + GET], [PAGE % 1, PAGE % 2 + GET, GET]):
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.001)
            sent = b"".join(pieces).count(b"GET ")
            found = answers(connection, sent)
            assert [status for status, _ in found] == [200] * sent
            sizes = [len(msgspec.json.decode(body).get("products", [])) for _, body in found]
            asked = [part.partition(b"?limit=")[2][:1] for part in b"".join(pieces).split(b"GET ")[1:]]
            assert sizes == [int(size or b"0") for size in asked]


def test_an_address_has_so_many_connections_and_no_more(server: Server) -> None:
    """Stops: all places of a worker taken by one machine; a cap that hits the others, or stays when all are gone."""
    hostile = [server.connect("127.0.0.9") for _ in range(CAP)]
    for one in hostile:  # each is served: it is the number that is refused, not the client
        one.sendall(GET)
        assert answers(one, 1)[0][0] == 200
    with server.connect("127.0.0.9") as beyond:
        status, body = answers(beyond, 1)[0]
        assert (status, msgspec.json.decode(body)["code"]) == (429, "too_many_connections")
        assert beyond.recv(1) == b""
    with server.connect("127.0.0.10") as another:
        another.sendall(GET)
        assert answers(another, 1)[0][0] == 200
    for one in hostile:
        one.close()

    def is_served() -> bool:
        with server.connect("127.0.0.9") as again:
            again.sendall(GET)
            return answers(again, 1)[0][0] == 200

    assert wait_until(is_served, 5)
    assert wait_until(lambda: server.counted("too_many_connections") > 0, 5)
