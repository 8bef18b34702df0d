"""The client against real sockets: what may have been executed is never sent twice and never called failed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.monkey import get_original

from loadtests.generator import contract
from loadtests.generator.ceiling import null_server
from loadtests.generator.client import Client
from loadtests.generator.contract import judge
from loadtests.generator.stamps import EVERY, ask_for_stamps

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Serve = Callable[[socket.socket, int], None]  # one connection and its number


class Server:
    """A real TCP server; each connection is handled by a plain thread."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
        self.serve: Serve = self.answer
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(sock, self.connections), daemon=True).start()

    def _one(self, sock: socket.socket, number: int) -> None:
        with sock, contextlib.suppress(OSError):  # the client ended it
            self.serve(sock, number)

    def read(self, sock: socket.socket) -> bool:
        data = sock.recv(65536)
        self.requests += bool(data)
        return bool(data)

    def answer(self, sock: socket.socket, _: int) -> None:
        while self.read(sock):
            sock.sendall(OK)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.close()


def client_of(server: Server, connections: int = 8) -> Client:
    return Client("127.0.0.1", server.port, lambda: time.monotonic_ns() // 1000, connections)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_one_connection_serves_request_after_request(server: Server) -> None:
    client = client_of(server)
    replies = [client.request(REQUEST, 5) for _ in range(50)]
    assert {(r.status, r.body, r.error) for r in replies} == {(200, b"ok", "")}
    assert all(r.sent_us <= r.done_us for r in replies)
    assert server.connections == 1


def test_a_reply_in_pieces_and_in_chunks_is_read(server: Server) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        for raw in (OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"):
            server.read(sock)
            for at in range(0, len(raw), 7):
                sock.sendall(raw[at : at + 7])
                time.sleep(0.001)

    server.serve = serve
    client = client_of(server)
    assert [client.request(REQUEST, 5).body for _ in range(2)] == [b"ok", b"ok"]
    assert server.connections == 1


def test_connection_close_gets_a_new_connection(server: Server) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    server.serve = serve
    client = client_of(server)
    assert [client.request(REQUEST, 5).status for _ in range(3)] == [200, 200, 200]
    assert server.connections == 3


@pytest.mark.parametrize(("how", "error"), [(reset, contract.RESET), (socket.socket.close, contract.CLOSED)])
def test_a_reused_connection_that_fails_is_unknown_and_never_sent_again(
    server: Server, how: Callable[[socket.socket], None], error: str
) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        server.read(sock)
        sock.sendall(OK)
        server.read(sock)
        how(sock)

    server.serve = serve
    client = client_of(server)
    assert client.request(REQUEST, 5).status == 200
    reply = client.request(REQUEST, 5)
    assert (reply.error, judge(reply)[0]) == (error, "unknown")
    assert server.requests == 2


def test_an_idle_connection_that_the_server_closed_is_not_used(server: Server) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        server.read(sock)
        sock.sendall(OK)
        if number > 1:
            server.answer(sock, number)

    server.serve = serve
    client = client_of(server)
    assert client.request(REQUEST, 5).status == 200
    gevent.sleep(0.05)
    assert client.request(REQUEST, 5).status == 200
    assert server.connections == 2


def test_a_late_answer_is_a_timeout_and_the_connection_is_gone(server: Server) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        if number == 1:
            server.read(sock)
            time.sleep(0.4)
            sock.sendall(OK)
        else:
            server.answer(sock, number)

    server.serve = serve
    client = client_of(server)
    began = time.monotonic()
    reply = client.request(REQUEST, 0.1)
    assert (reply.error, judge(reply)[0]) == (contract.TIMEOUT, "unknown")
    assert 0.1 <= time.monotonic() - began < 0.35
    assert client.request(REQUEST, 5).status == 200
    assert server.connections == 2


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", contract.OVERSIZE),
        (b"220 mail ready\r\n\r\n", contract.MALFORMED),
    ],
)
def test_a_reply_that_cannot_be_read_is_unknown(server: Server, raw: bytes, error: str) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        server.read(sock)
        sock.sendall(raw)
        time.sleep(0.05)

    server.serve = serve
    reply = client_of(server).request(REQUEST, 5)
    assert (reply.error, judge(reply)[0]) == (error, "unknown")


def test_a_refused_connection_sent_nothing_and_so_failed() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound, but it does not listen
        client = Client("127.0.0.1", deaf.getsockname()[1], lambda: time.monotonic_ns() // 1000, 8)
        reply = client.request(REQUEST, 5)
    assert (reply.error, reply.sent_us, judge(reply)[0]) == (contract.REFUSED, 0, "fail")


def test_the_pool_is_bounded_and_serves_in_turn(server: Server) -> None:
    client = client_of(server, connections=2)
    jobs = [gevent.spawn(client.request, REQUEST, 5) for _ in range(40)]
    gevent.joinall(jobs)
    assert {job.value.status for job in jobs} == {200}
    assert server.connections <= 2
    assert client.waited >= 38


def test_a_pool_that_stays_busy_sends_nothing(server: Server) -> None:
    server.serve = lambda sock, _: (server.read(sock), time.sleep(0.5))[1]
    client = client_of(server, connections=1)
    first = gevent.spawn(client.request, REQUEST, 0.3)
    gevent.sleep(0.01)
    reply = client.request(REQUEST, 0.1)
    assert (reply.error, judge(reply)[0]) == (contract.NO_CONNECTION, "fail")
    first.join()


def test_a_request_cut_off_by_the_end_of_the_run_is_unknown(server: Server) -> None:
    server.serve = lambda sock, _: (server.read(sock), time.sleep(0.5))[1]
    client = client_of(server)
    job = gevent.spawn(client.request, REQUEST, 5)
    gevent.sleep(0.05)
    job.kill()
    assert (job.value.error, judge(job.value)[0]) == (contract.CUT_OFF, "unknown")
    with pytest.raises(gevent.GreenletExit):
        client.request(REQUEST, 5)


@pytest.fixture
def apart() -> Iterator[Client]:
    """A client of one connection, whose server is another process: it answers while this one stands still."""
    with null_server() as port:
        yield Client("127.0.0.1", port, lambda: time.monotonic_ns() // 1000, 1)


block = get_original("time", "sleep")  # stands still, and the whole loop with it; Locust's lets others run


def test_a_reply_that_lay_in_the_kernel_while_the_loop_was_busy_is_read_late(apart: Client) -> None:
    """Stops: a generator that is on time with asking and books its slow reading on the shop."""
    late = []
    for _ in range(2 * EVERY):
        gevent.spawn(block, 0.02)  # begins when the request is sent and the loop goes on
        late.append(apart.request(REQUEST, 5).read_late_us)
    measured = [us for us in late if us is not None]
    if not ask_for_stamps(socket.socket()):
        assert measured == []  # never a zero that nobody measured
        pytest.skip("this kernel stamps nothing that it receives")
    assert len(measured) == 2  # one in sixteen
    assert all(5_000 < us < 2_000_000 for us in measured)


def test_of_a_reply_in_pieces_the_last_one_counts(server: Server) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            sock.sendall(OK[:20])
            time.sleep(0.03)
            sock.sendall(OK[20:])

    server.serve = serve
    client = client_of(server)
    late = [client.request(REQUEST, 5).read_late_us for _ in range(EVERY)][-1]
    assert late is None or late < 20_000


def test_a_kernel_that_stamps_nothing_leaves_it_unmeasured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.generator.stamps.sys.platform", "darwin")
    client = client_of(server)
    assert {client.request(REQUEST, 5).read_late_us for _ in range(2 * EVERY)} == {None}


def test_the_wait_for_a_connection_ends_when_it_is_free_and_not_when_the_generator_wakes_up(apart: Client) -> None:
    """Stops: the generator's own slowness told as the shop's backlog."""

    def ask_and_stand_still() -> None:
        apart.request(REQUEST, 5)
        block(0.2)  # the connection is free, and nobody wakes up whose turn it is

    apart.warm(1)
    gevent.spawn(ask_and_stand_still)
    gevent.sleep(0)
    asked_us = time.monotonic_ns() // 1000
    second = apart.request(REQUEST, 5)
    assert 0 < second.waited_us < 150_000
    assert second.connect_us == 0
    assert second.sent_us - asked_us - second.waited_us >= 190_000


def test_a_crowd_of_replies_is_timed_when_it_comes_and_not_as_it_is_worked_through() -> None:
    """Stops: the last of a batch seeming slower than the first by all that the generator does with the others."""
    crowd, works_s = 20, 0.005
    done_us = []

    def ask_and_work(client: Client) -> None:
        done_us.append(client.request(REQUEST, 5).done_us)
        block(works_s)

    with null_server() as port:
        client = Client("127.0.0.1", port, lambda: time.monotonic_ns() // 1000, crowd)
        client.warm(crowd)
        asking = [gevent.spawn(ask_and_work, client) for _ in range(crowd)]
        gevent.spawn(block, 0.1)  # all have asked, and all are answered meanwhile
        gevent.joinall(asking)
    assert len(done_us) == crowd
    assert max(done_us) - min(done_us) < crowd * works_s * 1e6 / 2


def test_opening_a_connection_is_a_part_of_its_own(server: Server) -> None:
    """A free slot is there at once, so nothing is backlog; what the handshake takes is connect."""
    client = client_of(server)
    asked_us = time.monotonic_ns() // 1000
    opened = client.request(REQUEST, 5)
    assert opened.waited_us == 0
    assert 0 < opened.connect_us <= opened.sent_us - asked_us
    again = client.request(REQUEST, 5)
    assert (again.waited_us, again.connect_us) == (0, 0)


def test_a_slot_that_was_waited_for_has_both_parts_and_they_do_not_overlap(server: Server) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        server.read(sock)
        time.sleep(0.05)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    server.serve = serve
    client = client_of(server, connections=1)
    gevent.spawn(client.request, REQUEST, 5)
    gevent.sleep(0)
    asked_us = time.monotonic_ns() // 1000
    reply = client.request(REQUEST, 5)
    assert reply.waited_us > 30_000
    assert reply.connect_us > 0
    assert reply.waited_us + reply.connect_us <= reply.sent_us - asked_us
