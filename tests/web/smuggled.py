"""Shapes by which one request is hidden in another: each is bytes that two readers might cut differently.

Most carry ``HIDDEN``, a whole order of its own, where a careless reader finds it and a careful one does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pure_stores import an_order_id
from spoken import HOST, Header, order_body, place, product, request, signature, status

HIDDEN: Final = place("hidden", "hidden", "thief")
KEY: Final[Header] = ("Idempotency-Key", "open")
BODY: Final = order_body()
_CODING: Final = "Transfer-Encoding"
_LINE: Final = "POST /v1/orders HTTP/1.1"


def _post(headers: Iterable[Header], body: bytes, line: str | bytes = _LINE) -> bytes:
    return request(line, [HOST, KEY, *headers], body, length=False)


def _length(text: str | bytes, body: bytes = BODY) -> bytes:
    return _post([("Content-Length", text)], body)


def _coded(text: str | bytes, body: bytes, *more: Header, name: str = _CODING) -> bytes:
    return _post([(name, text), *more], body)


def _changed(old: bytes, new: bytes) -> bytes:
    """Return the plain order with something in its head replaced once, and the hidden one behind it."""
    plain = _length(_N)
    assert old in plain
    return plain.replace(old, new, 1) + HIDDEN


def _chunk(data: bytes, size: bytes | None = None) -> bytes:
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + b"\r\n"


_N: Final = str(len(BODY))
_BOTH: Final = str(len(BODY + HIDDEN))
_ENDED: Final = _chunk(BODY) + b"0\r\n\r\n"
_EMPTY: Final = b"0\r\n\r\n"
_REFUSED_LENGTHS: Final[dict[str, str | bytes]] = {
    "plus": f"+{_N}", "minus": f"-{_N}", "minus nothing": "-0", "a blank within": f"{_N[0]} {_N[1:]}",
    "hex": hex(len(BODY)), "underscored": "4_2", "a list": f"{_N}, {_N}", "a list unlike": f"{_N},{_BOTH}",
    "a fraction": f"{_N}.0", "an exponent": "4e1", "a letter behind": f"{_N}a", "a comma behind": f"{_N},", "empty": "",
    "quoted": f'"{_N}"', "a sum": f"{_N}+0", "a NUL behind": f"{_N}\0", "a NUL before": f"\0{_N}",
    "a vertical tab": f"\x0b{_N}", "a form feed": f"{_N}\x0c", "Arabic digits": "٤٢", "wide digits": "４２",
    "a Latin-1 blank": b"\xa0" + _N.encode(), "beyond 64 bits": str(2**64 + len(BODY)), "just 64 bits": str(2**64),
    "negative 64 bits": str(-(2**63)),
}  # fmt: skip
_REFUSED_CODINGS: Final[dict[str, tuple[str | bytes, str]]] = {
    "identity": ("identity", ""), "a blank before the colon": ("chunked", "Transfer-Encoding "), "empty": ("", ""),
    "a tab before the colon": ("chunked", "Transfer-Encoding\t"), "chunked twice": ("chunked, chunked", ""),
    "not last": ("chunked, identity", ""), "an x": ("xchunked", ""), "quoted": ('"chunked"', ""), "cow": ("cow", ""),
    "a semicolon": ("chunked;q=1", ""), "a vertical tab": ("\x0bchunked", ""), "a form feed": ("chunked\x0c", ""),
    "a NUL": ("chunked\0", ""), "a folded line": ("\r\n chunked", ""), "a line end": ("chunked\n", ""),
    "a Latin-1 blank": (b"\xa0chunked", ""), "a dotted name": ("chunked", ".Transfer-Encoding"),
    "an underscored name": ("chunked", "Transfer_Encoding"), "a comma": ("chunked,", ""),
    "gzip first": ("gzip, chunked", ""), "a return in it": ("chun\rked", ""),
    "a name in two": ("chunked", "Transfer-\r\n Encoding"),
}  # fmt: skip

PLAIN: Final = _length(_N)  # nothing is hidden in it; its shape is what a lane may know before the others come
_ID: Final = an_order_id(0).hex()
_BEHIND: Final = f"\nContent-Length: {len(HIDDEN)}\n"
_STATUS: Final = status() + HIDDEN

# What nobody may take the hidden order from: it is inside a body, or behind something that must not be understood.
REFUSED: Final[dict[str, bytes]] = {
    **{f"a length with {how}": _length(text) + HIDDEN for how, text in _REFUSED_LENGTHS.items()},
    **{f"a length with {how}, nothing behind": _length(text) for how, text in _REFUSED_LENGTHS.items()},
    **{
        f"coding and length, {how}": _coded(text, _EMPTY + HIDDEN, ("Content-Length", _N), name=name or _CODING)
        for how, (text, name) in _REFUSED_CODINGS.items()
    },
    **{
        f"length and coding, {how}": _post(
            [("Content-Length", "0"), (name or _CODING, text)], _chunk(HIDDEN) + _EMPTY
        ).replace(b"POST /v1/orders", b"GET /v1/orders", 1)
        for how, (text, name) in _REFUSED_CODINGS.items()
    },
    "CL.TE": _post([("Content-Length", _BOTH), ("Transfer-Encoding", "chunked")], _EMPTY + HIDDEN),
    "TE.CL": _post([("Transfer-Encoding", "chunked"), ("Content-Length", "4")], _chunk(HIDDEN) + _EMPTY),
    "CL.0": _length(str(len(HIDDEN)), HIDDEN),
    "CL.0 on a GET": request("GET /v1/products/plain HTTP/1.1", [HOST], HIDDEN),
    "a signed callback": request("POST /v1/payments/sandbox/callback HTTP/1.1", [HOST, signature(HIDDEN)], HIDDEN),
    "two lengths unlike": _post([("Content-Length", _N), ("Content-Length", _BOTH)], BODY + HIDDEN),
    "two lengths unlike, the long one first": _post([("Content-Length", _BOTH), ("content-length", _N)], BODY + HIDDEN),
    "two lengths alike": _post([("Content-Length", _N), ("CONTENT-LENGTH", _N)], BODY + HIDDEN),
    "a blank before the colon of the length": _post([("Content-Length ", _N)], BODY + HIDDEN),
    "a tab before the colon of the length": _post([("Content-Length\t", _N)], BODY + HIDDEN),
    "a NUL in the name": _post([("Content\0-Length", _N)], BODY + HIDDEN),
    "a header without a colon": _changed(b"Key: ", b"Key "),
    "a header without a name": _post([("", "x"), ("Content-Length", _N)], BODY + HIDDEN),
    "a folded first header": _changed(b"Host:", b" Host:"),
    "a folded length": _post([("Content-Length", f"0\r\n {_N}")], BODY + HIDDEN),
    "a folded key": _changed(b": open", b": op\r\n\ten"),
    "the body too long": _length(_N, BODY + b"X" + HIDDEN),
    "the body too long by a blank": _length(_N, BODY + b" " + HIDDEN),
    "the body too short": _length(_BOTH),
    "the body too short by a byte": _length(_N, BODY[:-1]),
    "half a head": HIDDEN[:60],
    "no length": _post([], BODY + HIDDEN),
    "a bare line feed behind the line": _changed(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "a bare line feed behind a header": _changed(b"Host: shop\r\n", b"Host: shop\n"),
    "a length behind a bare line feed": _post([("X", f"y\nContent-Length: {_N}")], BODY + HIDDEN),
    "a length behind a bare return": _post([("X", f"y\rContent-Length: {_N}")], BODY + HIDDEN),
    "bare line feeds behind the head": _changed(b"\r\n\r\n", b"\n\n"),
    "a bare return behind the head": _changed(b"\r\n\r\n", b"\r\n\r"),
    "only line feeds": _changed(b"\r\n", b"\n").replace(b"\r\n", b"\n"),
    "only returns": _changed(b"\r\n", b"\r"),
    "a return doubled": _changed(b"shop\r\n", b"shop\r\r\n"),
    "a request in a folded header": _post([("X", "y\r\n \r\n" + HIDDEN.decode())], b""),
    "a length behind a line feed in the key": _changed(b"open", f"open\nContent-Length: {_BOTH}".encode()),
    "a length behind a return in the key": _changed(b"open", f"open\rContent-Length: {_BOTH}".encode()),
    "a NUL in the key": _changed(b"open", b"op\0en"),
    "a deletion in the key": _changed(b"open", b"op\x7fen") + b"\0",
    "an end in the key": _changed(b"open", b"open\n\nPOST"),
    "a length behind a line feed in the token": _STATUS.replace(b"Bearer ", b"Bearer " + _BEHIND.encode()),
    "a line end in the order's id": _STATUS.replace(_ID.encode(), (_ID[:30] + "\r\n").encode()),
    "a line feed in the order's id": _STATUS.replace(_ID.encode(), (_ID[:31] + "\n").encode()),
    "a return in the order's id": _STATUS.replace(_ID.encode(), (_ID[:31] + "\r").encode()),
    "another version in the order's id": _STATUS.replace(_ID.encode(), (_ID[:22] + " HTTP/1.0\n").encode()),
    "a header in the order's id": _STATUS.replace(_ID.encode(), b" HTTP/1.1\nContent-Length: 371\nA:"),
    "a length in the order's id": _STATUS.replace(_ID.encode(), b" HTTP/1.1\r\nContent-Length: 9\r\nA:"),
    "an end in the order's id": _STATUS.replace(_ID.encode(), b" HTTP/1.1\r\nConnection: close\r\nA:"),
    "chunked": _coded("chunked", _chunk(HIDDEN) + _EMPTY),
    "chunked with blanks": _coded(" \tchunked \t", _ENDED) + HIDDEN,
    "a chunk shorter than it says": _coded("chunked", _chunk(BODY, b"ff") + _EMPTY + HIDDEN),
    "a chunk longer than it says": _coded("chunked", _chunk(BODY + HIDDEN, b"2a") + _EMPTY),
    "a chunk size with a sign": _coded("chunked", _chunk(BODY, b"+2a") + _EMPTY + HIDDEN),
    "a chunk size with 0x": _coded("chunked", _chunk(BODY, b"0x2a") + _EMPTY + HIDDEN),
    "a chunk size beyond 64 bits": _coded("chunked", _chunk(BODY, b"1000000000000002a") + _EMPTY + HIDDEN),
    "a chunk ended by a line feed": _coded("chunked", b"2a\n" + BODY + b"\n0\n\n" + HIDDEN),
    "a chunk extension with a line feed": _coded("chunked", b"2a;\n" + BODY + b"\r\n" + _EMPTY + HIDDEN),
    "a request as a trailer": _coded("chunked", _chunk(BODY) + b"0\r\n" + HIDDEN),
    "HTTP/1.0": PLAIN.replace(b"1.1", b"1.0", 1),
    "HTTP/1.0 with a body behind": _length("0", HIDDEN).replace(b"1.1", b"1.0", 1),
    "HTTP/1.0, coded": _coded("chunked", _ENDED).replace(b"1.1", b"1.0", 1) + HIDDEN,
    "HTTP/0.9": b"GET /v1/products/plain\r\n\r\n" + HIDDEN,
    "HTTP/0.9 with an order": b"POST /v1/orders\r\n\r\n" + BODY + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/1.2": _changed(b"1.1", b"1.2"),
    "HTTP/11": _changed(b"1.1", b"11"),
    "http in lower case": _changed(b"HTTP", b"http"),
    "a method in lower case": _changed(b"POST", b"post"),
    "no such method": _changed(b"POST", b"GPOST"),
    "a tab in the line": _changed(b"POST ", b"POST\t"),
    "authority form": _changed(b"/v1/orders", b"shop:80"),
    "no host": _changed(b"Host: shop\r\n", b""),
    "two hosts": _post([("Host", "shop"), ("Content-Length", _N)], BODY + HIDDEN),
    "two hosts unlike": _post([("hOST", "other"), ("Content-Length", _N)], BODY + HIDDEN),
    "a blank before the colon of the host": _changed(b"Host:", b"Host :"),
    "a connection that ends": _post([("Connection", "close"), ("Content-Length", _N)], BODY + HIDDEN),
    "a connection that ends, after one that stays": _post(
        [("Connection", "keep-alive"), ("Connection", "close"), ("Content-Length", _N)], BODY + HIDDEN
    ),
    "expecting something else": _post([("Expect", "a miracle"), ("Content-Length", _N)], BODY + HIDDEN),
    "a packed body": _post([("Content-Encoding", "gzip"), ("Content-Length", _N)], BODY) + b"\0" + HIDDEN,
    "a body of 100,000 bytes with it inside": _length("100000", HIDDEN.ljust(100_000)),
}  # fmt: skip

# What is cut as the sender meant it: the second order is one of its own, and both lanes must take it, once.
TWO_ORDERS: Final[dict[str, bytes]] = {
    "two in a row": PLAIN + HIDDEN,
    "another key": _changed(b"open", b"another"),
    "blanks around the key": _changed(b": open", b":  open \t "),
    "no key": _changed(b": open", b":"),
    "a key that is none": _changed(b"open", "ö".encode()),
    "an order's id that is none": _STATUS.replace(_ID.encode(), b"?" * 32),
    "leading zeros": _length("000" + _N) + HIDDEN,
    "blanks around the length": _length(f"  {_N} \t ") + HIDDEN,
    "a name in odd case": _post([("cOnTeNt-LeNgTh", _N)], BODY + HIDDEN),
    "line ends between": _length(_N) + b"\r\n\r\n" + HIDDEN,
    "line ends before": b"\r\n\r\n" + _length(_N) + HIDDEN,
    "chunked": _coded("chunked", _ENDED) + HIDDEN,
    "chunked in odd case": _coded("cHuNkEd", _ENDED) + HIDDEN,
    "chunks with leading zeros": _coded("chunked", _chunk(BODY, b"0002a") + b"000\r\n\r\n") + HIDDEN,
    "chunks with extensions": _coded("chunked", _chunk(BODY, b"2a;a=b") + _EMPTY) + HIDDEN,
    "chunks with a trailer": _coded("chunked", _chunk(BODY) + b"0\r\nX: y\r\n\r\n") + HIDDEN,
    "absolute form": _changed(b" /v1", b" http://shop/v1"),
    "absolute form elsewhere": _changed(b" /v1", b" http://other/v1"),
    "a GET with a body": request("GET /v1/products/plain HTTP/1.1", [HOST], BODY) + HIDDEN,
    "a status with a body": status().replace(b"\r\n\r\n", b"\r\nContent-Length: 42\r\n\r\n") + BODY + HIDDEN,
    "expecting": _post([("Expect", "100-continue"), ("Content-Length", _N)], BODY + HIDDEN),
    "a length of nothing": _length("0", b"") + HIDDEN,
    "a product": product() + HIDDEN,
    "HTTP/1.0 that stays": _changed(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"),
    "a body of 100,000 bytes before it": _length("100000", BODY.ljust(100_000)) + HIDDEN,
}  # fmt: skip

# Where aiohttp itself finds the second order or loses it by how the bytes were cut: the lane only has to do the same.
EITHER: Final[dict[str, bytes]] = {
    "a tunnel": request("CONNECT shop:80 HTTP/1.1", [HOST]) + HIDDEN,
    "an upgrade": _post([("Upgrade", "h2c"), ("Connection", "Upgrade"), ("Content-Length", _N)], BODY + HIDDEN),
}  # fmt: skip
