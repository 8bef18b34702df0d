"""A lean user for any Locust file: plain gevent sockets, keep-alive, every request accounted for in microseconds.

    from locust import constant, task
    from loadtests.generator.lean_user import LeanUser

    class Shopper(LeanUser):
        wait_time = constant(1)

        @task
        def look(self):
            self.client.get("/v1/products/hot", name="/v1/products/[sku]")

    python -m locust -f shopper.py --host http://127.0.0.1:8080 --headless -u 500 -r 100 -t 30s --lean-out out/lean

What it keeps of each request: one count in a histogram of its name and outcome (µs, HdrHistogram's buckets), one
line of ``requests.jsonl`` (both only with ``--lean-out``), and Locust's own statistics. What it leaves out, to be
lean: TLS, cookies, redirects, proxies and compression; for those Locust has ``FastHttpUser``. The users of one process
share their connections: there are as many as requests under way. A request is sent once, never again, and nothing is
pipelined.

``events.request`` is fired for each failure; successes are merged into Locust's statistics every half second, unless
the class says ``fires_every_request = True`` (some 5 µs a request).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit

import msgspec
from locust import User, events

from loadtests.generator.client import Client
from loadtests.generator.contract import NEVER_SENT, Reply
from loadtests.generator.lean_accounts import Accounts, Call, accounts_of

CONNECTIONS_MOST: Final = 9_000  # below the 10,000 files Locust asks the system for
TIMEOUT_S: Final = 30.0
_HEADS_MOST: Final = 1_024  # request heads remembered
_METHOD = re.compile(r"[A-Z]{1,16}")
_TARGET = re.compile(r"/[!-~]*")  # RFC 9112, 3.2.1: origin form, visible ASCII
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    """Add the user's one option to Locust's own."""
    parser.add_argument("--lean-out", default="", help="directory for requests.jsonl and histograms.json of LeanUser")


class LeanResponse:
    """What came back. Usable in a ``with`` block if asked for with ``catch_response=True``, as Locust's own is."""

    __slots__ = ("_call", "_reply", "_session", "content", "error", "status_code")

    def __init__(self, session: LeanSession, reply: Reply, call: Call) -> None:
        """Take the reply and its line of the history."""
        self._session, self._reply, self._call = session, reply, call
        self.status_code, self.content, self.error = reply.status, reply.body, reply.error

    @property
    def ok(self) -> bool:
        """Whether a reply came and its status is below 400."""
        return not self.error and self.status_code < 400

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers, names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._reply.headers.items()}

    @property
    def latency_us(self) -> int:
        """Return the µs from the call to the reply's end."""
        return self._call.done_us - self._call.intended_us

    @property
    def text(self) -> str:
        """Return the body as UTF-8."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body's JSON value.

        Raises:
            msgspec.DecodeError: it is none.
        """
        return msgspec.json.decode(self.content)

    def success(self) -> None:
        """Count this request as done, whatever its status."""
        self._call.result, self._call.outcome = "ok", "ok"

    def failure(self, why: object) -> None:
        """Count this request as failed, and say why."""
        self._call.result, self._call.outcome = "fail", str(why)[:200] or "failed"

    def __enter__(self) -> Self:
        """Let the block decide."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Account for the request; what the block raised fails it and goes on its way."""
        if kind is not None and issubclass(kind, Exception):
            self.failure(f"{kind.__name__}: {error}")
        self._session.account(self._call)


class LeanSession:
    """What ``self.client`` is: requests to the user's host."""

    def __init__(self, host: SplitResult, accounts: Accounts) -> None:
        """Take the host, checked, and where to account.

        Raises:
            OSError: the name cannot be resolved.
        """
        self._client: Client = accounts.client(host.hostname or "", host.port or 80, CONNECTIONS_MOST)
        self._host = b" HTTP/1.1\r\nHost: " + host.netloc.rpartition("@")[2].encode("idna") + b"\r\n"
        self._now_us = accounts.now_us
        self._heads: dict[tuple[str, str], bytes] = {}
        self.account = accounts.note

    def get(self, path: str, **more: Any) -> LeanResponse:
        """Send a GET; see ``request``."""
        return self.request("GET", path, **more)

    def post(self, path: str, data: bytes | str | None = None, **more: Any) -> LeanResponse:
        """Send a POST; see ``request``."""
        return self.request("POST", path, data=data, **more)

    def put(self, path: str, data: bytes | str | None = None, **more: Any) -> LeanResponse:
        """Send a PUT; see ``request``."""
        return self.request("PUT", path, data=data, **more)

    def patch(self, path: str, data: bytes | str | None = None, **more: Any) -> LeanResponse:
        """Send a PATCH; see ``request``."""
        return self.request("PATCH", path, data=data, **more)

    def delete(self, path: str, **more: Any) -> LeanResponse:
        """Send a DELETE; see ``request``."""
        return self.request("DELETE", path, **more)

    def request(
        self,
        method: str,
        path: str,
        *,
        name: str = "",
        data: bytes | str | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_S,
        catch_response: bool = False,
    ) -> LeanResponse:
        """Send one request and account for it.

        Args:
            method: GET, POST, …; no HEAD and no CONNECT, whose replies are framed by other rules.
            path: from the first slash, with the query.
            name: what it is counted under (default: the path).
            data: the body.
            json: a value to send as JSON instead.
            headers: further headers.
            timeout: seconds for all of it.
            catch_response: leave the verdict to the ``with`` block around it.

        Raises:
            ValueError: this can be no request; nothing was sent or counted.
        """
        head = self._heads.get((method, path)) or self._head(method, path)
        plain = headers is None and data is None and json is None
        raw = head + (b"\r\n" if plain else _rest(data, json, headers))
        asked_us = self._now_us()
        reply = self._client.request(raw, timeout)
        error, status = reply.error, reply.status
        if not error:
            result, outcome = ("ok", "ok") if status < 400 else ("fail", f"http_{status}")
        else:
            result, outcome = ("fail" if error in NEVER_SENT else "unknown"), error
        call = Call(
            method,
            name or path,
            asked_us,
            reply.sent_us,
            reply.done_us,
            result,
            status,
            outcome,
            len(reply.body),
            reply.read_late_us,
        )
        if not catch_response:
            self.account(call)
        return LeanResponse(self, reply, call)

    def _head(self, method: str, path: str) -> bytes:
        if not _METHOD.fullmatch(method) or method in ("HEAD", "CONNECT"):
            raise ValueError(f"LeanUser sends GET, POST, PUT, PATCH, DELETE and OPTIONS, not {method!r}")
        if not _TARGET.fullmatch(path):
            raise ValueError(f"a path begins with / and is percent-encoded ASCII, not {path!r}")
        head = f"{method} {path}".encode("ascii") + self._host
        if len(self._heads) >= _HEADS_MOST:
            self._heads.clear()
        self._heads[method, path] = head
        return head


def _rest(data: bytes | str | None, json: Any, headers: Mapping[str, str] | None) -> bytes:
    """Return what follows a request's first two lines."""
    lines = ""
    for name, value in (headers or {}).items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"no header: {name!r}: {value!r}")
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise ValueError(f"LeanUser sets {name} by itself")
        lines += f"{name}: {value}\r\n"
    body = b""
    if json is not None:
        body = msgspec.json.encode(json)
        if "content-type:" not in lines.lower():
            lines += "Content-Type: application/json\r\n"
    elif data is not None:
        body = data.encode() if isinstance(data, str) else data
    elif headers is not None:
        return lines.encode("ascii") + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (lines.encode("ascii"), len(body), body)


class LeanUser(User):  # type: ignore[misc]  # Locust is untyped here
    """A stock Locust user whose ``self.client`` is lean."""

    abstract = True
    fires_every_request = False  # whether successes too are told to the listeners of events.request, one by one

    def __init__(self, environment: Any) -> None:
        """Take Locust's environment.

        Raises:
            ValueError: the host cannot be reached by plain sockets.
        """
        super().__init__(environment)
        host = self.host or environment.host or ""
        url = urlsplit(host)
        if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query:
            raise ValueError(f"LeanUser needs --host http://name:port, not {host!r}; for https use FastHttpUser")
        self.client = LeanSession(url, accounts_of(environment, self.fires_every_request))
